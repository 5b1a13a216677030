"""Who leads which shard, as far as this node has heard.

Soft state: it is never saved and never trusted for safety, only for routing. A
replica here knows its own group's leader; of shards that have no replica here,
the leaders tell (a ``leaders`` frame to every node, each second and on change).

Rule: a higher term wins, whoever said it; within a term, a known leader wins
over "nobody yet" (raft.md B45: never let a laggard's answer replace a newer one).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from krita.codec import decode, encode
from krita.errors import ProtocolError

NO_NODE = 0


def encode_leaders(led: Sequence[tuple[int, int]], unwilling: bool) -> bytes:
    """The body of a ``leaders`` frame: (shard, term) of all that the sender leads,
    and whether it should be given no more (its disk is full, or it is stopping)."""
    return encode([led, unwilling])


def decode_leaders(body: bytes) -> tuple[list[tuple[int, int]], bool]:
    """The inverse. Raises ProtocolError."""
    unwilling = False
    match decode(body):
        case [list(rows)]:
            pass
        case [list(rows), bool(unwilling), *_]:
            pass
        case _:
            raise ProtocolError("leaders is [[[shard, term], …], unwilling]")
    led: list[tuple[int, int]] = []
    for row in rows:
        match row:
            case [int(shard), int(term), *_] if shard >= 0 and term >= 0:
                led.append((shard, term))
            case _:
                raise ProtocolError("leaders is [[[shard, term], …], unwilling]")
    return led, unwilling


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
