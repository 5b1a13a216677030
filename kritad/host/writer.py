"""A thread that does one piece of disk work after the other.

The event loop must never wait for a disk (a hung disk would stop heartbeats and
with them the cluster's view of every shard here), so each database has one
thread of its own. Work goes in through a queue; what came of it comes back on
the loop through ``run_sync_soon``. One hop per batch, never per row: a hop costs
250–400 µs on an idle machine, half of that with a thread of one's own as here
compared with trio.to_thread.

Rule: work is done in the order it was submitted, and nothing is done after a
failure of the disk: a database that failed once says so for ever (fsyncgate,
raft.md B5).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs

T = TypeVar("T")


@attrs.define
class Finished(Generic[T]):
    """What came of a piece of work: a value, or the exception that ended it. Not to be
    changed, and not ``frozen``: one is made for each save, and that would cost twice as much."""

    value: T | None = None
    error: BaseException | None = None

    def unwrap(self) -> T:
        """The value; raises the work's own exception."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class Token(Protocol):
    """The part of trio's token that is needed to get back onto the loop."""

    def run_sync_soon(self, sync_fn: Callable[..., object], *args: object) -> object:
        """Call ``sync_fn(*args)`` on the loop's thread."""


class Worker(Protocol):
    """What the drive loop and the flusher need; the simulator has its own."""

    def submit(self, work: Callable[[], T], done: Callable[[Finished[T]], None]) -> None:
        """Do ``work`` after all that was submitted before, then ``done``."""


@attrs.define
class Workers:
    """One for each database: a slow flush must not delay the log."""

    log: Worker
    data: Worker


class WorkerThread:
    """A Worker that is a thread. ``close`` waits for all submitted work."""

    def __init__(self, name: str, token: Token) -> None:
        self._token = token
        self._queue: queue.SimpleQueue[
            tuple[Callable[[], object], Callable[[Finished[object]], None]] | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[Finished[T]], None]) -> None:
        self._queue.put((work, done))  # type: ignore[arg-type]

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, done = item
            try:
                finished = Finished(value=work())
            except Exception as error:  # handed to `done`, which decides
                finished = Finished(error=error)
            try:
                self._token.run_sync_soon(done, finished)
            except RuntimeError:
                return  # the loop has ended: nobody is left to tell

    def close(self, timeout_s: float) -> bool:
        """Stop once everything submitted is done. False when the disk hangs for
        longer than ``timeout_s``; the thread is a daemon and dies with us."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
