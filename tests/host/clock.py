"""Time that passes when the test says so."""

from __future__ import annotations


class VirtualClock:
    """The host's Clock; both hands move together."""

    def __init__(self, monotonic_ms: float = 1_000_000.0, wall_ms: int = 1_700_000_000_000) -> None:
        self._monotonic_ms = monotonic_ms
        self._wall_ms = wall_ms

    def monotonic_ms(self) -> float:
        return self._monotonic_ms

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, ms: int) -> None:
        self._monotonic_ms += ms
        self._wall_ms += ms

    def jump(self, ms: int) -> None:
        """The wall clock is set by so much."""
        self._wall_ms += ms
