"""Virtual time: a heap of things to do, done in order, and a hash of all that was done.

Rules:
* Time is whole microseconds and moves only from one event to the next. Events of one
  instant happen in the order in which they were asked for.
* Nothing here or above reads a clock, and chance comes from ``Chance``: a stream for
  every name, so that one more draw in one place shifts nothing elsewhere.
* ``hash`` folds in every event (of numbers only: Python's hash of a tuple of numbers
  is the same in every process, that of a text is not). Two runs of a seed that differ
  anywhere differ in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

Act = Callable[..., None]

SECOND_US = 1_000_000
MS_US = 1_000


class Chance:
    """Named streams of randomness from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, *name: object) -> random.Random:
        """A generator of its own for whatever ``name`` stands for."""
        return random.Random("/".join(str(part) for part in (self.seed, *name)))


class Loop:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.now_us = 0
        self.events = 0  # all that were done: see ``count``
        self.hash = 0
        self.trace: Callable[[str], None] | None = None  # takes readable lines, when asked for
        self._heap: list[tuple[int, int, Act, tuple[Any, ...]]] = []
        self._next_number = count(1).__next__

    def after(self, delay_us: int, act: Act, *args: Any) -> None:
        """Have ``act(*args)`` done so much later. 0.5 µs."""
        heappush(self._heap, (self.now_us + delay_us, self._next_number(), act, args))

    def count(self, more: int) -> None:
        """The present event is more than one: a frame of several messages, a tick of
        several replicas. So ``events`` counts what is handed to state machines: messages
        and ticks to replicas, turns, finished work of disks, bytes, timers."""
        self.events += more

    def fold(self, *numbers: int) -> None:
        """Let the hash know of something besides the time of the events."""
        self.hash = hash((self.hash, *numbers))

    def note(self, text: str) -> None:
        """A line of the readable trace. Guard costly texts with ``if loop.trace``."""
        if self.trace is not None:
            self.trace(f"{self.now_us / SECOND_US:12.6f} {text}")

    def run_until(self, time_us: int) -> None:
        """Do everything that is due up to ``time_us``, and let it be that time."""
        heap = self._heap
        done = 0
        try:
            while heap and heap[0][0] <= time_us:
                now_us, number, act, args = heappop(heap)
                self.now_us = now_us
                self.hash = hash((self.hash, now_us, number))
                done += 1
                act(*args)
        finally:
            self.events += done
        self.now_us = time_us
