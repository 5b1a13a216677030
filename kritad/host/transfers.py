"""The snapshots that this node sends, and how far each of them is: for people to see.

One ``Outgoing`` for each that a leader's core has asked for, from that moment until
the core is told what came of it. Nothing is decided here: see host/snapshots.py.
"""

from __future__ import annotations

import enum

import attrs

from kritad.host.clock import Clock


class Standing(enum.Enum):
    """What a transfer is doing."""

    WAITING = "waiting"  # for its turn here, or for the receiver's
    SENDING = "sending"
    HELD = "held"  # people have stopped the moves of its shard, or the disk is full


@attrs.define(eq=False)
class Outgoing:
    """A snapshot for one replica. ``since_ms`` and ``moved_bytes`` are of the present
    stretch of sending: what lies before a pause says nothing of the rate."""

    shard: int
    replica: int  # the recipient's id
    node: int
    asked_ms: float  # on the host's clock
    standing: Standing = Standing.WAITING
    sent_bytes: int = 0  # of keys and values that have arrived
    total_bytes: int = 0  # of those that are to; 0 until it begins
    since_ms: float = 0.0
    moved_bytes: int = 0

    def rate(self, now_ms: float) -> float:
        """Bytes per second of this stretch; 0.0 while nothing moves."""
        if self.standing is not Standing.SENDING or now_ms <= self.since_ms:
            return 0.0
        return self.moved_bytes * 1000.0 / (now_ms - self.since_ms)


class Transfers:
    """All of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way: list[Outgoing] = []
        self.sent_bytes = 0  # since the node has started, repetitions included

    def __repr__(self) -> str:
        return f"<Transfers {len(self._under_way)} under way, {self.sent_bytes} bytes sent>"

    def expect(self, shard: int, replica: int, node: int) -> Outgoing:
        """A core has asked for one."""
        outgoing = Outgoing(shard, replica, node, self._clock.monotonic_ms())
        self._under_way.append(outgoing)
        return outgoing

    def end(self, outgoing: Outgoing) -> None:
        """The core is about to hear of it."""
        self._under_way.remove(outgoing)

    def stand(self, outgoing: Outgoing, standing: Standing) -> None:
        """It does this from now on."""
        if standing is not outgoing.standing:
            outgoing.standing = standing
            outgoing.since_ms = self._clock.monotonic_ms()
            outgoing.moved_bytes = 0

    def note(self, outgoing: Outgoing, size_bytes: int, sent_bytes: int) -> None:
        """A slice of ``size_bytes`` was taken; ``sent_bytes`` have arrived in all."""
        self.sent_bytes += size_bytes
        outgoing.moved_bytes += size_bytes
        outgoing.sent_bytes = sent_bytes

    def documents(self) -> list[dict[str, object]]:
        """The ``transfers`` of a node's document: see protocol/README.md."""
        now_ms = self._clock.monotonic_ms()
        return [
            {
                "shard": outgoing.shard,
                "replica": outgoing.replica,
                "node": outgoing.node,
                "state": outgoing.standing.value,
                "sent_bytes": outgoing.sent_bytes,
                "total_bytes": outgoing.total_bytes,
                "bytes_per_s": int(outgoing.rate(now_ms)),
                "elapsed_s": round((now_ms - outgoing.asked_ms) / 1000.0, 1),
            }
            for outgoing in self._under_way
        ]
