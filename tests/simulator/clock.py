"""The clocks of a simulated node: a rate of their own, and a wall clock that jumps."""

from __future__ import annotations

from tests.simulator.loop import Loop

# When the simulated world begins, in Unix time.
_EPOCH_MS = 1_700_000_000_000


class NodeClock:
    """Stands where a node has kritad.host.clock.Clock. ``rate`` 1.02: it runs 2 % fast."""

    def __init__(self, loop: Loop, rate: float = 1.0, wall_offset_ms: int = 0) -> None:
        self._loop = loop
        self.rate = rate
        self.wall_offset_ms = wall_offset_ms

    def monotonic_ms(self) -> float:
        return self._loop.now_us * self.rate / 1000.0

    def wall_ms(self) -> int:
        return _EPOCH_MS + self.wall_offset_ms + int(self._loop.now_us * self.rate) // 1000

    def real_us(self, own_ms: float) -> int:
        """How long it takes in the world until ``own_ms`` have passed on this clock."""
        return max(1, int(own_ms * 1000.0 / self.rate))
