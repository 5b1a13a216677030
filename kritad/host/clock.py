"""Time, as an argument: the one place of the host that reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the host asks of time. The simulator has its own."""

    def monotonic_ms(self) -> float:
        """For deadlines and durations: never goes back, starts anywhere."""

    def wall_ms(self) -> int:
        """For people and for stamps in the log: Unix time, may jump."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000.0

    def wall_ms(self) -> int:
        # Entries have no place for a time before 1970. Linux knows none either; what stands
        # between it and us, faketime say, does.
        return max(0, time.time_ns() // 1_000_000)
