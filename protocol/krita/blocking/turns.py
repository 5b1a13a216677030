"""Turns: the threads that share an object use it one after the other.

The twin of ``krita.aio.turns``, which has the rules. It waits outside of the client, which
other threads use meanwhile.
"""

from __future__ import annotations

import math
import threading


class Turns:
    """See the module."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now = 0  # the turn that there is; 0: none
        self._last = 0
        self._thread: threading.Thread | None = None  # who has taken it

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._now or 'free'}>"

    @property
    def mine(self) -> bool:
        """Whether the thread that asks has taken the turn that there is."""
        with self._changed:
            return self._now > 0 and self._thread is threading.current_thread()

    def take(self, wait_s: float) -> int:
        """Wait for a turn; 0: it did not come in that time."""
        with self._changed:
            timeout_s = None if wait_s == math.inf else min(wait_s, threading.TIMEOUT_MAX)
            if not self._changed.wait_for(lambda: not self._now, timeout_s):
                return 0
            self._thread = threading.current_thread()
            self._last += 1
            self._now = self._last
            return self._now

    def end(self, turn: int) -> None:
        """Let the next one in. Nothing happens unless it is this turn."""
        with self._changed:
            if turn and turn == self._now:
                self._now, self._thread = 0, None
                self._changed.notify()
