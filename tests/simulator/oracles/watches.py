"""Whether watchers are told all changes: each once, in order, and nothing else.

Each answer to a poll says up to which entry its events are all there are. So each is held
against the log by itself: the events between where the poll began and where the answer
ends are just those of the log in the range that was asked for. As the next poll begins
where an answer ended, nothing is left to happen between two of them; where it is sent, and
who has failed meanwhile, makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from krita.errors import Status
from krita.operations import Change, Op
from tests.simulator.chronicle.chronicle import Book, Chronicle
from tests.simulator.chronicle.draft import Held
from tests.simulator.chronicle.ideal import Event
from tests.simulator.crafts.deed import Deed
from tests.simulator.history import Fate


def check_watches(chronicle: Chronicle, deeds: Iterable[Deed]) -> list[str]:
    """What is wrong with the answers to polls."""
    complaints = []
    for deed in deeds:
        if deed.op == Op.CHANGES and deed.fate is Fate.OK:
            problem = _check(chronicle.books[deed.ask.fields[0]], deed)
            if problem:
                complaints.append(f"{problem}\n    {deed}")
    return complaints


def _check(book: Book, deed: Deed) -> str | None:
    after = deed.field("after")
    if deed.status is Status.COMPACTED:
        oldest = deed.detail["oldest"]
        if after is None or oldest <= after or oldest > book.index:
            return "compacted, and it is all there"
        return None
    events, upto, _ = deed.body
    if after is None:
        floor = book.floor(deed.begun)
        if events or upto < floor:
            return f"a watch begins at {upto}, and entry {floor} had been applied before"
        after = upto
    newest = book.floor(deed.ended)
    if upto < after or upto > max(after, newest):
        return f"told up to {upto}, and there were entries up to {newest}"
    wanted = _events(book, after, upto, deed)
    if not _same(events, wanted):
        return f"the log has these events behind {after} up to {upto}: {wanted}"
    return None


def _events(book: Book, after: int, upto: int, deed: Deed) -> list[list[Any]]:
    start, stop = deed.field("start") or b"", deed.field("stop")
    found = []
    for record in book.records[max(0, after - book.born) : max(0, upto - book.born)]:
        for event in record.events:
            key = event[1]
            inside = key >= start and (stop is None or key < stop)
            if inside or event[0] == Change.SPLIT:
                found.append(_to_wire(event))
    return found


def _to_wire(event: Event) -> list[Any]:
    kind, key, held, index = event
    if isinstance(held, Held):
        return [kind, key, held.value, held.revision, held.content_type, index]
    if isinstance(held, tuple):
        return [kind, None, held[0], index, held[1], index]
    return [kind, key, None, index, None, index]


def _same(told: list[list[Any]], wanted: list[list[Any]]) -> bool:
    """A value may be left out where one entry has made several events."""
    if len(told) != len(wanted):
        return False
    several = [event[5] for event in wanted]
    return all(
        one == other
        or (
            one[2] is None
            and several.count(one[5]) > 1
            and [*one[:2], *one[3:]] == [*other[:2], *other[3:]]
        )
        for one, other in zip(told, wanted, strict=True)
    )
