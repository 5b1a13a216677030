"""Planted bugs: watches, scans, reads of other times and places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from krita.errors import KritaError, Status
from krita.operations import Op
from kritad import data_service
from kritad.gather import Everywhere
from kritad.host.polls import Polls
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.scan_page import ScanPage
from kritad.state import reading
from kritad.state.feed import Event, Feed
from kritad.state.keyspace import Keyspace
from kritad.state.machine import ShardState
from kritad.state.retention import Retention
from kritad.state.versions import Version, Versions
from kritad.storage.rows import Row
from tests.simulator.mutants.mutant import Mutant

_behind = Feed.behind
_keep_version = Keyspace._keep_version
_limit = data_service._limit
_at = Versions.at
_everywhere_then = Everywhere._then
_read = Replica.read
_set = Retention.set
_then = ScanPage._then
_woken = Polls.woken

Found = tuple[list[Event], int] | None


def _cut_within_an_entry(
    feed: Feed, after: int, start: bytes, stop: bytes | None, limit: int, bytes_max: int = 1 << 30
) -> Found:
    """The limit counts events, and the next answer begins behind the entry."""
    found = _behind(feed, after, start, stop, limit, bytes_max)
    return found and (found[0][:limit], found[1])


def _begin_one_later(
    feed: Feed, after: int, start: bytes, stop: bytes | None, limit: int, bytes_max: int = 1 << 30
) -> Found:
    """Events are those behind the next entry."""
    return _behind(feed, after + 1, start, stop, limit, bytes_max)


def _begin_one_earlier(
    feed: Feed, after: int, start: bytes, stop: bytes | None, limit: int, bytes_max: int = 1 << 30
) -> Found:
    """Events are those of the last entry too."""
    return _behind(feed, max(feed.oldest, after - 1), start, stop, limit, bytes_max)


def _up_to_now(state: ShardState, after: int, upto: int = -1) -> int:  # noqa: ARG001
    """All is told up to where the replica is, however much the answer holds."""
    return max(after, state.index)


def _wake_for_ranges(polls: Polls, events: Iterable[Event]) -> list[Request]:
    """Whoever waits for a single key is answered when its time has passed."""
    of_key, polls._of_key = polls._of_key, {}
    try:
        return _woken(polls, events)
    finally:
        polls._of_key = of_key


def _pass_the_edge(page: ScanPage, answers: dict[int, Any]) -> None:
    """A page ends where the last of the shards' pages ends."""
    edges = [part[1] for part in answers.values() if part[1] is not None]
    if edges:
        edge = min(edges) if page.reverse else max(edges)
        for part in answers.values():
            part[1] = edge
    _then(page, answers)


def _whatever_the_revision(number: object, name: str, default: int) -> int:
    """A replica answers a stale read, however far behind it is."""
    return 0 if name == "revision_min" else _limit(number, name, default)


def _keep_no_absence(keyspace: Keyspace, key: bytes, until_index: int) -> None:
    """That a key was not there is not worth a version."""
    if keyspace.table.get(key) is not None:
        _keep_version(keyspace, key, until_index)


def _as_it_is(versions: Versions, key: bytes, index: int) -> Row | None:
    """A key that was not written since is what it is; so is any other."""
    current = versions._table.get(key)
    return current if current is not None and current.revision <= index else None


def _just_before(
    versions: Versions, key: bytes, time_ms: int, clock_ms: int
) -> Version | Row | None:
    """What ended at a time was there at that time."""
    return _at(versions, key, time_ms - 1, clock_ms)


def _whole_for_the_longer_time(
    retention: Retention, prefix: bytes, retention_ms: int, clock_ms: int, index: int
) -> None:
    """A longer time holds for what is there already."""
    since = {rule.prefix: rule.since_ms for rule in retention.rules}
    _set(retention, prefix, retention_ms, clock_ms, index)
    for rule in [rule for rule in retention.rules if rule.prefix in since]:
        retention._keep(attrs.evolve(rule, since_ms=since[rule.prefix]))


def _believe_that_all_have_answered(everywhere: Everywhere, answers: dict[int, Any]) -> None:
    """Whoever is asked speaks for a half that was split off too."""
    if everywhere.write:
        _everywhere_then(everywhere, answers)
        return
    try:
        everywhere.respond(Status.OK, everywhere.reply(list(answers.values())))
    except KritaError as error:
        everywhere.fail(error)


def _tell_at_once(replica: Replica, request: Request) -> None:
    """A place that this replica has not reached is one that the log has never had."""
    if request.op == Op.CHANGES and type(request.fields[0]) is int:
        replica._poll_confirmed(request)
    else:
        _read(replica, request)


MUTANTS = (
    Mutant(
        name="place-ahead-is-compacted-at-once",
        rule="a watch ahead of a replica is told so behind a round of reads, and not before",
        source="host/replica.py",
        hint="watch: a replica that lags, asked by who has just asked another one",
        patches=((Replica, "read", _tell_at_once),),
    ),
    Mutant(
        name="feed-cuts-an-entry",
        rule="the events of one entry stay together",
        source="state/feed.py, raft.md B46",
        hint="watch: transactions, and an answer with a limit",
        patches=((Feed, "behind", _cut_within_an_entry),),
    ),
    Mutant(
        name="watch-goes-on-one-later",
        rule="the next events are those behind the last ones",
        source="raft.md B46",
        hint="watch: any",
        patches=((Feed, "behind", _begin_one_later),),
    ),
    Mutant(
        name="watch-goes-on-one-earlier",
        rule="each event is told once",
        source="raft.md B46",
        hint="watch: any",
        patches=((Feed, "behind", _begin_one_earlier),),
    ),
    Mutant(
        name="poll-is-ahead-of-its-events",
        rule="an answer says up to which entry it is whole",
        source="state/reading.py, raft.md B46",
        hint="watch: answers with a limit",
        patches=((reading, "upto_of", _up_to_now),),
    ),
    Mutant(
        name="waiting-for-a-key-is-forgotten",
        rule="a poll that waits is told of what happens",
        source="host/polls.py",
        hint="watch: a bookmark behind a change",
        patches=((Polls, "woken", _wake_for_ranges),),
    ),
    Mutant(
        name="scan-passes-a-shards-edge",
        rule="a page ends where the first of the shards' pages ends",
        source="kritad/scan_page.py",
        hint="scan: several shards, and pages that one of them cuts short",
        patches=((ScanPage, "_then", _pass_the_edge),),
    ),
    Mutant(
        name="stale-read-is-older-than-asked-for",
        rule="a stale read is not older than the revision that was asked for",
        source="kritad/data_service.py",
        hint="answers: a write, and a read of it on another node",
        patches=((data_service, "_limit", _whatever_the_revision),),
    ),
    Mutant(
        name="absence-is-no-version",
        rule="that a key was not there has to be known to say what it was then",
        source="state/versions.py",
        hint="answers: a key that is deleted, and put again",
        patches=((Keyspace, "_keep_version", _keep_no_absence),),
    ),
    Mutant(
        name="what-was-is-what-is",
        rule="a key that has changed since is told as it was",
        source="state/versions.py",
        hint="answers: reads of an earlier revision",
        patches=((Versions, "as_of", _as_it_is),),
    ),
    Mutant(
        name="ends-a-moment-too-late",
        rule="at the time at which a version ended, the next one is there",
        source="state/versions.py",
        hint="answers: reads of the very time of a change",
        patches=((Versions, "at", _just_before),),
    ),
    Mutant(
        name="longer-retention-is-whole-at-once",
        rule="what goes soon is not promised because more will be kept from now on",
        source="state/retention.py",
        hint="answers: reads of a time, after the retention was made longer",
        patches=((Retention, "set", _whole_for_the_longer_time),),
    ),
    Mutant(
        name="half-is-not-asked-for-a-lease",
        rule="what all shards know is told when all have been asked",
        source="found here: docs/simulation.md",
        hint="inquiries: leases that are shown while a shard is split",
        patches=((Everywhere, "_then", _believe_that_all_have_answered),),
    ),
)
