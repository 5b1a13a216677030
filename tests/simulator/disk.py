"""The disk of a simulated node, and the two threads that wait for it.

A piece of work takes its time, then it is done (and what it wrote is in the store),
then, a moment later, the loop hears of it. A crash in front of the first leaves
nothing, one between the two leaves what nobody was told of.

Rules: one piece at a time for each worker, in the order of submission; a stalled disk
finishes nothing until it moves again; once the disk is healed, what was begun while it
was slow ends soon too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from kritad.host.writer import Finished
from tests.simulator.invariants import Violation
from tests.simulator.loop import SECOND_US

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

T = TypeVar("T")

_STALL_LOOK_US = 20_000  # how often a hanging disk is looked at
# How often a slow piece of work looks whether the disk was healed meanwhile. On a disk
# that is not slow, none takes so long.
_SLOW_LOOK_US = SECOND_US
_HOP_US = 60  # from the thread back to the loop


@attrs.define(eq=False)
class Disk:
    """What a node's two workers have in common; outlives its crashes."""

    access_us: int
    dice: random.Random
    factor: float = 1.0  # how much slower than usual
    spikes: float = 0.01  # how often a cache is full
    stalled_until_us: int = 0
    healed: bool = False  # no piece of work is slow any more, whenever it was begun

    def heal(self) -> None:
        """End whatever is wrong with it."""
        self.factor = 1.0
        self.spikes = 0.0  # a leader with a slow disk hands over, rightly
        self.stalled_until_us = 0
        self.healed = True

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
        self._go_on(self._disk.time_us())

    def _go_on(self, left_us: int) -> None:
        """Wait for the piece in hand. In steps: drawn on a slow disk, it may take minutes,
        and the bounds on what must work after healing begin with the healing."""
        if left_us <= _SLOW_LOOK_US:
            self._node.later_raw(left_us, self._work)
        elif self._disk.healed:
            self._work()
        else:
            rest_us = left_us - _SLOW_LOOK_US
            self._node.later_raw(_SLOW_LOOK_US, partial(self._go_on, rest_us))

    def _work(self) -> None:
        if self._disk.stalled_until_us > self._node.loop.now_us:
            self._node.later_raw(_STALL_LOOK_US, self._work)
            return
        work, done = self._jobs.popleft()
        finished: Finished[object]
        try:
            finished = Finished(value=work())
        except Violation:
            raise
        except Exception as error:  # handed to `done`, which decides, as WorkerThread does
            finished = Finished(error=error)
        self._node.later(_HOP_US, done, finished)
        if self._jobs:
            self._begin()
        else:
            self._busy = False
