"""Whether a scan finds what is there: once, in order, and as it was meanwhile.

No moment is common to all shards or pages, so a key that was changed during a scan may be
told as it was at any time of it, or not. All others are told as they were.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from krita.operations import Op, What
from tests.simulator.chronicle.chronicle import Chronicle
from tests.simulator.chronicle.draft import Held
from tests.simulator.crafts.deed import Deed
from tests.simulator.history import Fate
from tests.simulator.oracles.answers import Lineage, Lineages

# What a key may have held during a scan; None: it may have been absent.
_index = itemgetter(0)
_Possible = dict[bytes, list[Held | None]]


def check_scans(chronicle: Chronicle, deeds: Iterable[Deed]) -> list[str]:
    """What is wrong with the scans and counts."""
    lineages = Lineages(chronicle)
    pages: dict[str, list[Deed]] = {}
    for deed in deeds:
        if deed.op == Op.SCAN:
            pages.setdefault(deed.ask.about, []).append(deed)
    complaints = []
    for scan in pages.values():
        if all(page.fate is Fate.OK for page in scan):
            problem = _check(lineages, scan)
            if problem:
                complaints.append(problem + "".join(f"\n    {page}" for page in scan[:5]))
    return complaints


def _check(lineages: Lineages, scan: list[Deed]) -> str | None:
    first, last = scan[0], scan[-1]
    over = last.field("what") == What.COUNT or last.body[1] is None
    start, stop = first.field("start") or b"", first.field("stop")
    if not over:  # it was not read to its end: it is whole up to where it would go on
        start, stop = (last.body[1], stop) if first.field("reverse") else (start, last.body[1])
    possible = {
        key: states
        for lineage in lineages.all
        for key, states in _possible(lineage, first.begun, last.ended).items()
        if key >= start and (stop is None or key < stop)
    }
    if first.field("what") == What.COUNT:
        least = sum(None not in states for states in possible.values())
        if not least <= first.body[0] <= len(possible):
            return f"counted {first.body[0]}, and there were {least} to {len(possible)} keys"
        return None
    rows = [row for page in scan for row in page.body[0]]
    return _check_rows(rows, possible, reverse=first.field("reverse"), what=first.field("what"))


def _possible(lineage: Lineage, begun: int, ended: int) -> _Possible:
    """Of all keys of a shard that were there at some time of it."""
    first, last = lineage.floor(begun), lineage.floor(ended)
    found: _Possible = {}
    for key, changes in lineage.changes.items():
        before, behind = (bisect_right(changes, at, key=_index) for at in (first, last))
        states = [held for _, held in changes[before:behind]]
        states.append(changes[before - 1][1] if before else None)
        if any(states):
            found[key] = states
    return found


def _check_rows(
    rows: list[list[Any]], possible: _Possible, *, reverse: bool, what: int
) -> str | None:
    keys = [row[0] for row in rows]
    if keys != sorted(set(keys), reverse=reverse):
        return f"the keys are not in order, or not once each: {keys}"
    for key, value, revision, content_type, *_ in rows:
        told = {
            (None if what == What.KEYS else held.value, held.revision, held.content_type)
            for held in possible.get(key, ())
            if held
        }
        if (value, revision, content_type) not in told:
            return f"{key!r} never was {value!r} of revision {revision} meanwhile, but {told}"
    missing = [key for key, states in possible.items() if None not in states]
    missing = sorted(set(missing) - set(keys))
    return f"{missing} were there all the time, and are not told" if missing else None
