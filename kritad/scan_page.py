"""One page of a scan, or a count, put together from what the shards answer.

Rules:
* A scan is whole: the arcs of the answers cover the ring, or the shards are asked anew.
  A shard that was split while it was asked answers for the half that it has left.
* A page ends where the first of the shards' pages ends: behind that, another may
  have a key in between.
* No moment is common to all shards; each one's part is as of some moment of the request.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from krita.errors import KritaError, Status, Unavailable, to_wire
from krita.operations import Op, What
from krita.ring import RING_SIZE
from kritad.host.request import Respond

_ROWS_MIN = 16  # asked of each shard at least
_ROUNDS_AT_ONCE = 20  # of asking anew, while shards are split; then with pauses


class Question(Protocol):
    """What may have to be asked anew, because a shard was split meanwhile."""

    deadline_ms: float

    def ask(self) -> None:
        """Ask all shards. Raises KritaError."""

    def fail(self, error: KritaError) -> None:
        """Answer with an error."""


class Shards(Protocol):
    """Whom to ask: ``kritad.gather.Gather``."""

    def shards(self) -> list[int]: ...
    def again(self, question: Question, pauses: int) -> bool: ...
    def ask(
        self,
        op: Op,
        asks: Mapping[int, Sequence[object]],
        deadline_ms: float,
        then: Callable[[dict[int, Any]], None],
        fail: Callable[[KritaError], None],
    ) -> None: ...


@attrs.define(eq=False)
class _Question:
    """What both have in common."""

    shards: Shards
    start: Any
    stop: Any
    deadline_ms: float
    respond: Respond
    rounds: int = attrs.field(default=0, init=False)

    def ask(self) -> None:
        """Ask all shards, from the start. Raises KritaError."""
        raise NotImplementedError

    def again(self) -> None:
        """The arcs did not fit together: a shard is being split."""
        self.rounds += 1
        if not self.shards.again(self, self.rounds - _ROUNDS_AT_ONCE):
            self.fail(Unavailable("a shard is being split", hint="ask again"))

    def fail(self, error: KritaError) -> None:
        """Answer with an error."""
        self.respond(error.status, to_wire(error))


@attrs.define(eq=False)
class ScanPage(_Question):
    """One page."""

    rows_max: int
    reverse: bool
    what: Any
    bytes_max: int

    def ask(self) -> None:
        """Ask all shards for their part of the page. Raises KritaError."""
        shards = self.shards.shards()
        # Twice what each would have on the average: few pages are cut short by one of them.
        rows = max(_ROWS_MIN, min(self.rows_max, 2 * self.rows_max // len(shards)))
        bytes_each = max(1, 2 * self.bytes_max // len(shards))
        fields = (self.start, self.stop, rows, self.reverse, self.what, bytes_each)
        asks = dict.fromkeys(shards, fields)
        self.shards.ask(Op.SHARD_SCAN, asks, self.deadline_ms, self._then, self.fail)

    def _then(self, answers: dict[int, Any]) -> None:
        parts = list(answers.values())
        if not cover_the_ring([(part[3], part[4]) for part in parts]):
            self.again()
            return
        edges = [part[1] for part in parts if part[1] is not None]
        edge = None if not edges else max(edges) if self.reverse else min(edges)
        found: list[Any] = []
        bytes_left = self.bytes_max
        for row in heapq.merge(*(part[0] for part in parts), key=_key_of, reverse=self.reverse):
            key = row[0]
            # A shard's edge is the first key that it has left out.
            if edge is not None and (key <= edge if self.reverse else key >= edge):
                break
            bytes_left -= _bytes_of(row)
            if len(found) == self.rows_max or (found and bytes_left < 0):
                edge = key
                break
            found.append(row)
        self.respond(Status.OK, [found, self._go_on(edge)])

    def _go_on(self, edge: bytes | None) -> bytes | None:
        """The ``start`` of the next page; in reverse its ``stop``, which is exclusive."""
        return None if edge is None else edge + b"\0" if self.reverse else edge


@attrs.define(eq=False)
class ShardCounts(_Question):
    """A count: each shard counts its own keys, in slices."""

    _count: int = attrs.field(default=0, init=False)
    _arcs: dict[int, tuple[int, int]] = attrs.field(factory=dict, init=False)

    def ask(self) -> None:
        """Begin to count. Raises KritaError."""
        self._count = 0
        self._arcs = {}
        self._slice(dict.fromkeys(self.shards.shards(), self.start))

    def _slice(self, starts: dict[int, Any]) -> None:
        """Let these shards count on from there."""
        asks = {
            shard: (start, self.stop, None, False, int(What.COUNT), None)
            for shard, start in starts.items()
        }
        self.shards.ask(Op.SHARD_SCAN, asks, self.deadline_ms, self._then, self.fail)

    def _then(self, answers: dict[int, Any]) -> None:
        starts: dict[int, Any] = {}
        for shard, (count, edge, _, *arc) in answers.items():
            lo, hi = arc
            if self._arcs.setdefault(shard, (lo, hi)) != (lo, hi):
                self.again()
                return
            self._count += count
            if edge is not None:
                starts[shard] = edge
        if starts:
            self._slice(starts)
        elif cover_the_ring(list(self._arcs.values())):
            self.respond(Status.OK, [self._count, None])
        else:
            self.again()


def cover_the_ring(arcs: list[tuple[int, int]]) -> bool:
    """Whether the arcs are the whole ring, each part of it once."""
    place = 0
    for lo, hi in sorted(arcs):
        if lo != place:
            return False
        place = hi
    return place == RING_SIZE


def _key_of(row: list[Any]) -> Any:
    return row[0]


def _bytes_of(row: list[Any]) -> int:
    key, value, _, content_type = row[:4]
    return len(key) + len(value or b"") + len(content_type or "")
