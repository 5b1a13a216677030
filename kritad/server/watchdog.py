"""The deadlines of all connections, looked after by one task.

A connection has one deadline at a time, for what it is doing now. A trio
``move_on_after`` would cost 10 µs each time and moving a scope's deadline 1.5;
here it is one attribute, and one task looks at all of them five times a second,
so a deadline is kept up to ``PERIOD_S`` late.
"""

from __future__ import annotations

import math

import attrs
import trio

from kritad.metrics import Series

PERIOD_S = 0.2


@attrs.define(eq=False)
class Watched:
    """One connection's scope and its present deadline."""

    watchdog: Watchdog
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    at: float = math.inf
    reason: str = ""  # what is late, once the scope has been cancelled for it

    _what: str = ""

    def expect(self, what: str, within_s: float) -> None:
        """``what`` has to happen within that time, or the scope is cancelled. 0.1 µs."""
        self._what = what
        self.at = self.watchdog.now + within_s

    def rest(self) -> None:
        """Nothing is expected of the other side now."""
        self.at = math.inf

    def cut(self, reason: str) -> None:
        """End the connection now."""
        self._what = reason
        self.expire()

    def expire(self) -> None:
        """The deadline has passed."""
        self.reason = self._what
        self.at = math.inf
        self.scope.cancel()


class Watchdog:
    """Cancels what is late. ``run`` in a task of the server's nursery."""

    def __init__(self, lag_seconds: Series) -> None:
        self.now = trio.current_time()  # coarse: the time of the last round
        self._lag_seconds = lag_seconds
        self._watched: set[Watched] = set()

    def watch(self) -> Watched:
        """A new connection's deadlines; give it back with ``forget``."""
        watched = Watched(self)
        self._watched.add(watched)
        return watched

    def forget(self, watched: Watched) -> None:
        """The connection has ended."""
        self._watched.discard(watched)

    async def run(self) -> None:
        """Look after them until cancelled. 0.05 µs a connection and round."""
        while True:
            due = trio.current_time() + PERIOD_S
            await trio.sleep_until(due)
            self.now = trio.current_time()
            self._lag_seconds.observe(self.now - due)
            now = self.now
            for late in [watched for watched in self._watched if watched.at <= now]:
                late.expire()
