"""Who leads which shard, as far as this node has heard.

Soft state: it is never saved and never trusted for safety, only for routing. A
replica here knows its own group's leader; of shards that have no replica here,
the leaders tell (a ``leaders`` frame to every node, each second and on change).

Rule: a higher term wins, whoever said it; within a term, a known leader wins
over "nobody yet" (raft.md B45: never let a laggard's answer replace a newer one).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from krita.codec import decode, encode
from krita.errors import ProtocolError
from kritad.host.demand import Row

NO_NODE = 0


_SHAPE = (
    "leaders is [[[shard, term], …], unwilling, [[shard, replica], …], [[shard, asked, served], …]]"
)


@attrs.frozen
class Word:
    """What a node says of itself in a ``leaders`` frame."""

    led: Sequence[tuple[int, int]]  # (shard, term)
    unwilling: bool = False  # to lead more: its disk is full, or it is stopping
    damaged: Sequence[tuple[int, int]] = ()  # (shard, replica): useless, and not to be mended
    demand: Sequence[Row] = ()  # (shard, asked and served a second): demand.py

    def encode(self) -> bytes:
        """The frame's body."""
        return encode([self.led, self.unwilling, self.damaged, self.demand])

    @classmethod
    def decode(cls, body: bytes) -> Word:
        """The inverse; elements that an older kritad does not send have their defaults.
        Raises ProtocolError."""
        match decode(body):
            case [list(led)]:
                return cls(_pairs(led))
            case [list(led), bool(unwilling)]:
                return cls(_pairs(led), unwilling)
            case [list(led), bool(unwilling), list(damaged)]:
                return cls(_pairs(led), unwilling, _pairs(damaged))
            case [list(led), bool(unwilling), list(damaged), list(demand), *_]:
                return cls(_pairs(led), unwilling, _pairs(damaged), _demand(demand))
        raise ProtocolError(_SHAPE)


def _demand(rows: list[object]) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        match row:
            case [int(shard), int(asked), int(served), *_] if min(shard, asked, served) >= 0:
                found.append((shard, asked, served))
            case _:
                raise ProtocolError(_SHAPE)
    return found


def _pairs(rows: list[object]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for row in rows:
        match row:
            case [int(shard), int(number), *_] if shard >= 0 and number >= 0:
                found.append((shard, number))
            case _:
                raise ProtocolError(_SHAPE)
    return found


class LeaderTable:
    """shard -> (node, term)."""

    def __init__(self) -> None:
        self._leaders: dict[int, tuple[int, int]] = {}

    def learn(self, shard: int, node: int, term: int) -> bool:
        """Somebody says that ``node`` leads ``shard`` in ``term`` (node 0: that
        there is such a term, and no leader known). True when it was news."""
        known_node, known_term = self._leaders.get(shard, (NO_NODE, 0))
        if term < known_term or (term == known_term and (known_node or not node)):
            return False
        self._leaders[shard] = (node, term)
        return True

    def lost(self, shard: int, term: int) -> None:
        """The leader of ``term`` has gone (a group member says so)."""
        known_node, known_term = self._leaders.get(shard, (NO_NODE, 0))
        if term >= known_term and known_node:
            self._leaders[shard] = (NO_NODE, term)

    def of(self, shard: int) -> tuple[int, int]:
        """(node, term); node 0 when nobody is known to lead."""
        return self._leaders.get(shard, (NO_NODE, 0))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        for shard, (node, term) in sorted(self._leaders.items()):
            yield shard, node, term
