"""A node's disk in virtual time: real files, work done inline, after a virtual latency.

``DiskWorker`` stands where kritad has a thread. A job's work is done at some moment
within its latency, and reported at its end: a node killed in between has the work on
its disk and was never told.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from kritad.host.writer import Finished

T = TypeVar("T")

_LATENCY_MIN_S = 0.0001
_LATENCY_MEAN_S = 0.0006


@attrs.define
class Disk:
    """One node's, for one life. ``slowness`` multiplies every latency."""

    chance: random.Random
    slowness: float = 1.0
    dead: bool = False  # the node was killed: nothing more is written
    _stalled: trio.Event | None = None

    @property
    def stalled(self) -> bool:
        """Whether it hangs."""
        return self._stalled is not None

    def stall(self) -> None:
        """Finish nothing, until ``resume``."""
        if self._stalled is None:
            self._stalled = trio.Event()

    def resume(self) -> None:
        """Go on."""
        if self._stalled is not None:
            self._stalled.set()
            self._stalled = None

    async def wait(self, share: float = 1.0) -> None:
        """For a part of what one piece of work takes."""
        latency_s = _LATENCY_MIN_S + self.chance.expovariate(1.0) * _LATENCY_MEAN_S
        await trio.sleep(latency_s * share * self.slowness)
        while self._stalled is not None:
            await self._stalled.wait()

    async def off_loop(self, work: Callable[..., T], *args: object) -> T:
        """Work in place of a thread's (kritad/host/surroundings.py OffLoop): once begun,
        it is not given up for a cancellation."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=not self.dead):
            await self.wait()
        return work(*args)


@attrs.define
class _Job:
    work: Callable[[], object]
    done: Callable[[Finished[object]], None]
    finished: Finished[object] | None = None

    def do(self) -> None:
        try:
            self.finished = Finished(value=self.work())
        except Exception as error:  # as WorkerThread does
            self.finished = Finished(error=error)


class DiskWorker:
    """An OwnedWorker whose thread is the task ``run``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._jobs: deque[_Job] = deque()
        self._submitted = trio.Event()
        self._closed = False

    def submit(self, work: Callable[[], T], done: Callable[[Finished[T]], None]) -> None:
        self._jobs.append(_Job(work, done))  # type: ignore[arg-type]
        self._submitted.set()

    async def run(self) -> None:
        """Do what is submitted until cancelled."""
        while True:
            if not self._jobs:
                self._submitted = trio.Event()
                await self._submitted.wait()
            job = self._jobs[0]
            done_at = self._disk.chance.random()
            await self._disk.wait(done_at)
            if self._closed or self._disk.dead:
                return
            job.do()
            await self._disk.wait(1.0 - done_at)
            if self._closed or self._disk.dead:
                return
            assert job.finished is not None
            self._jobs.popleft()
            job.done(job.finished)

    def close(self, timeout_s: float) -> bool:  # noqa: ARG002 - virtual time cannot pass here
        """Do at once what was submitted; nobody is told any more."""
        self._closed = True
        if self._disk.stalled:
            return False
        for job in self._jobs:
            if job.finished is None and not self._disk.dead:
                job.do()
        return True
