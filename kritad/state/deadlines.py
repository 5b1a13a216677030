"""What of many things ends first, by the clock. Pure.

The owner keeps the things, and when each ends; here is a heap that points at them. It keeps
what is not so any more until that comes to the top, or until there is more of it than of
what is: a key that is kept alive for a year is not remembered for each time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

NEVER_MS = 1 << 62  # later than any clock
_STALE_MAX = 1_000  # in the heap, besides as many as there are things

K = TypeVar("K", bytes, int)
T = TypeVar("T")


class Deadlines(Generic[K, T]):
    """See the module's docstring. ``next_ms``: nothing is due before it."""

    def __init__(self, things: Mapping[K, T], ends_ms: Callable[[T], int]) -> None:
        """``things`` is the owner's and is looked at whenever it matters; ``ends_ms`` tells
        when one of them ends, 0 for never."""
        self._things: Mapping[K, T] = things
        self._ends_ms = ends_ms
        self._heap: list[tuple[int, K]] = []
        self._build()
        self.next_ms = self._heap[0][0] if self._heap else NEVER_MS

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._things)}, {len(self._heap)} in the heap>"

    def changed(self, key: K) -> None:
        """The owner has taken the thing in, has changed it or let it go."""
        thing = self._things.get(key)
        ends_ms = 0 if thing is None else self._ends_ms(thing)
        if ends_ms:
            heapq.heappush(self._heap, (ends_ms, key))
            if len(self._heap) > 2 * len(self._things) + _STALE_MAX:
                self._build()
        self._settle()

    def due(self, clock_ms: int, limit: int) -> list[K]:
        """The next things whose deadlines have passed, in the order of (deadline, key). They
        stay here until the owner lets them go."""
        found: list[tuple[int, K]] = []
        while self.next_ms <= clock_ms and len(found) < limit:
            item = heapq.heappop(self._heap)
            # One that got the same deadline twice is there twice, in a row.
            if not found or found[-1] != item:
                found.append(item)
            self._settle()
        for item in found:
            heapq.heappush(self._heap, item)
        self._settle()
        return [key for _, key in found]

    def _settle(self) -> None:
        """Drop what is not so any more: the first is true then."""
        heap = self._heap
        while heap:
            ends_ms, key = heap[0]
            thing = self._things.get(key)
            if thing is not None and self._ends_ms(thing) == ends_ms:
                self.next_ms = ends_ms
                return
            heapq.heappop(heap)
        self.next_ms = NEVER_MS

    def _build(self) -> None:
        ends = ((self._ends_ms(thing), key) for key, thing in self._things.items())
        self._heap = [(ends_ms, key) for ends_ms, key in ends if ends_ms]
        heapq.heapify(self._heap)
