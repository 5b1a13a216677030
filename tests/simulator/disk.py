"""The disk of a simulated node, and the two threads that wait for it.

A piece of work takes its time, then it is done (and what it wrote is in the store),
then, a moment later, the loop hears of it. A crash in front of the first leaves
nothing, one between the two leaves what nobody was told of.

Rules: one piece at a time for each worker, in the order of submission; a stalled disk
finishes nothing until it moves again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

from kritad.host.writer import Finished

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

T = TypeVar("T")

_STALL_LOOK_US = 20_000  # how often a hanging disk is looked at
_HOP_US = 60  # from the thread back to the loop


@attrs.define(eq=False)
class Disk:
    """What a node's two workers have in common; outlives its crashes."""

    access_us: int
    dice: random.Random
    factor: float = 1.0  # how much slower than usual
    spikes: float = 0.01  # how often a cache is full
    stalled_until_us: int = 0

    def time_us(self) -> int:
        """How long the next piece of work takes."""
        time_us = int(self.access_us * self.factor * (0.5 + self.dice.random()))
        return time_us * 20 if self.dice.random() < self.spikes else time_us


class SimWorker:
    """Stands where a node has kritad.host.writer.WorkerThread."""

    def __init__(self, node: SimNode, disk: Disk) -> None:
        self._node = node
        self._disk = disk
        self._jobs: deque[tuple[Callable[[], object], Callable[[Finished[object]], None]]] = deque()
        self._busy = False

    def submit(self, work: Callable[[], T], done: Callable[[Finished[T]], None]) -> None:
        self._jobs.append((work, done))  # type: ignore[arg-type]
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        self._node.later_raw(self._disk.time_us(), self._work)

    def _work(self) -> None:
        if self._disk.stalled_until_us > self._node.loop.now_us:
            self._node.later_raw(_STALL_LOOK_US, self._work)
            return
        work, done = self._jobs.popleft()
        finished: Finished[object]
        try:
            finished = Finished(value=work())
        except Exception as error:  # handed to `done`, which decides, as WorkerThread does
            finished = Finished(error=error)
        self._node.later(_HOP_US, done, finished)
        if self._jobs:
            self._begin()
        else:
            self._busy = False
