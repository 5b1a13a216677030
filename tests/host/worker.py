"""Workers whose work is done when the test says so, and no thread anywhere.

``work`` does the oldest job's work and keeps its result back; ``report`` hands the
result over. A crash between the two is what a power cut behind an fsync looks like:
the disk has it, and nobody was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import attrs

from kritad.host.writer import Finished

T = TypeVar("T")


@attrs.define
class Job:
    """A piece of work on its way."""

    work: Callable[[], object]
    done: Callable[[Finished[object]], None]
    finished: Finished[object] | None = None


class QueuedWorker:
    """A Worker: submitted jobs wait in ``jobs``."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.fails_with: BaseException | None = None  # every job, from now on
        self.held = False  # run_all does nothing

    def submit(self, work: Callable[[], T], done: Callable[[Finished[T]], None]) -> None:
        self.jobs.append(Job(work, done))  # type: ignore[arg-type]

    def work(self) -> None:
        """Do the oldest job that is not done, without telling anybody."""
        job = next(job for job in self.jobs if job.finished is None)
        try:
            if self.fails_with is not None:
                raise self.fails_with
            job.finished = Finished(value=job.work())
        except Exception as error:  # as WorkerThread does
            job.finished = Finished(error=error)

    def report(self) -> None:
        """Tell what came of the oldest job."""
        job = self.jobs.popleft()
        assert job.finished is not None, "the job was not done yet"
        job.done(job.finished)

    def run_one(self) -> bool:
        """Do and report the oldest job; False when there is none."""
        if self.held or not self.jobs:
            return False
        if self.jobs[0].finished is None:
            self.work()
        self.report()
        return True

    def drain(self) -> None:
        """Do and report everything, held or not."""
        held, self.held = self.held, False
        self.run_all()
        self.held = held

    def run_all(self) -> bool:
        """Do and report everything, also what that submits; whether there was anything."""
        any_done = False
        while self.run_one():
            any_done = True
        return any_done
