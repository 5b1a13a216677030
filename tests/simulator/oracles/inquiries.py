"""Whether what is asked of all shards is what they had: a lease as it is shown, the retentions
as they are listed.

No moment is common to all shards, so each may have been asked at any moment between the
request and its answer. What was so in a shard during all of them has to be told, and what
was at none of them must not be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any

import attrs

from krita.errors import Status
from krita.operations import LeaseChange, Op
from tests.simulator.chronicle.chronicle import Chronicle, Record
from tests.simulator.crafts.deed import Deed
from tests.simulator.history import Fate
from tests.simulator.oracles.answers import Lineage, Lineages

_index, _first = attrgetter("index"), itemgetter(0)


def check_inquiries(chronicle: Chronicle, deeds: Iterable[Deed]) -> list[str]:
    """What is wrong with the answers to ``lease_show`` and ``retention_list``."""
    lineages = Lineages(chronicle).all
    complaints = []
    for deed in deeds:
        problem = None
        if deed.op == Op.LEASE_SHOW and deed.fate is Fate.OK:
            problem = _check_lease(lineages, deed)
        elif deed.op == Op.RETENTION_LIST and deed.fate is Fate.OK:
            problem = _check_retentions(lineages, deed)
        if problem:
            complaints.append(f"{problem}\n    {deed}")
    return complaints


def _moments(lineage: Lineage, deed: Deed) -> list[Record]:
    """Each entry that may have been the newest one when the shard was asked."""
    first, last = lineage.floor(deed.begun), lineage.floor(deed.ended)
    records = lineage.records
    before = bisect_right(records, first, key=_index)
    return records[max(0, before - 1) : bisect_right(records, last, key=_index)]


# --- leases -----------------------------------------------------------------------------


@attrs.frozen
class _Granted:
    ttl_ms: int
    deadline_ms: int


def _lease_at(lineage: Lineage, lease: int, moments: list[Record]) -> Iterator[_Granted | None]:
    """What a shard knew of it at each of the moments; None: that it had ended, or never was."""
    changes = lineage.leases.get(lease, [])
    for moment in moments:
        granted: _Granted | None = None
        for record in changes[: bisect_right(changes, moment.index, key=_index)]:
            change, ttl_ms = record.request[2], granted.ttl_ms if granted else 0
            if granted is not None and granted.deadline_ms <= record.clock_ms:
                granted = None
            if change == LeaseChange.GRANT:
                granted = _Granted(record.request[3], record.clock_ms + record.request[3])
            elif change == LeaseChange.KEEPALIVE and granted is not None:
                granted = _Granted(ttl_ms, record.clock_ms + ttl_ms)
            elif change == LeaseChange.REVOKE:
                granted = None
        yield granted if granted and granted.deadline_ms > moment.clock_ms else None


def _check_lease(lineages: list[Lineage], deed: Deed) -> str | None:
    lease = deed.ask.fields[0]
    most_ms: list[int] = []  # that it had left in each shard; its node's clock may be ahead
    ttls_ms, ended = set(), False
    for lineage in lineages:
        moments = _moments(lineage, deed)
        known = list(_lease_at(lineage, lease, moments))
        ended = ended or None in known or not known
        alive = [
            (granted.ttl_ms, granted.deadline_ms - moment.clock_ms)
            for granted, moment in zip(known, moments, strict=True)
            if granted
        ]
        if not alive and deed.ok:
            return f"shard {lineage.book.ideal.shard} had no such lease"
        ttls_ms |= {ttl_ms for ttl_ms, _ in alive}
        most_ms += [max(left_ms for _, left_ms in alive)] if alive else []
    if not deed.ok:
        return None if ended else "all shards had that lease"
    ttl_ms, left_ms, keys = deed.body
    if ttl_ms not in ttls_ms or not 0 <= left_ms <= min(most_ms):
        return f"its time is one of {ttls_ms}, of which {min(most_ms)} were left at most"
    return _check_keys(lineages, deed, lease, keys)


def _check_keys(lineages: list[Lineage], deed: Deed, lease: int, keys: list[bytes]) -> str | None:
    if keys != sorted(set(keys)):
        return "its keys are not in order, or not once each"
    for lineage in lineages:
        first, last = lineage.floor(deed.begun), lineage.floor(deed.ended)
        for key, changes in lineage.changes.items():
            before, behind = (bisect_right(changes, at, key=_first) for at in (first, last))
            states = [held for _, held in changes[max(0, before - 1) : behind]]
            had = [held is not None and held.lease == lease for held in states]
            if key in keys and not any(had):
                return f"{key!r} did not have it"
            if key not in keys and before and had and all(had):
                return f"{key!r} had it all the time"
    return None


# --- retentions -------------------------------------------------------------------------


def _rules_at(lineage: Lineage, prefix: bytes, moments: list[Record]) -> Iterator[int | None]:
    """For how long a shard kept versions at each of the moments; None: not at all."""
    changes = [
        record
        for record in lineage.retentions
        if record.request[1] == prefix
        and record.answer is not None
        and record.answer.status is Status.OK
    ]
    for moment in moments:
        place = bisect_right(changes, moment.index, key=_index)
        yield (changes[place - 1].request[2] or None) if place else None


def _check_retentions(lineages: list[Lineage], deed: Deed) -> str | None:
    listed: dict[bytes, Any] = {prefix: kept_ms for prefix, kept_ms, _ in deed.body[0]}
    prefixes = {prefix for one in lineages for prefix in _prefixes(one)} | set(listed)
    for prefix in sorted(prefixes):
        possible = [
            set(_rules_at(lineage, prefix, _moments(lineage, deed))) for lineage in lineages
        ]
        if listed.get(prefix) not in set[int | None]().union(*possible, {None}):
            return f"{prefix!r} was kept for one of {possible}"
        if prefix not in listed and any(rules and None not in rules for rules in possible):
            return f"{prefix!r} was kept all the time"
    return None


def _prefixes(lineage: Lineage) -> set[bytes]:
    return {record.request[1] for record in lineage.retentions}
