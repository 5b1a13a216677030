"""Turns: the tasks that share an object use it one after the other.

A turn is a number, and whoever ends it names it: one that has ended already ends no other.
It is not bound to the task that took it, as that of ``threading.Lock`` is not: another task
may end it.
"""

from __future__ import annotations

import anyio


class AsyncTurns:
    """See the module. First come, first served."""

    def __init__(self) -> None:
        self._free = anyio.Semaphore(1)
        self._now = 0  # the turn that there is; 0: none
        self._last = 0
        self._task: object = None  # who has taken it

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._now or 'free'}>"

    @property
    def mine(self) -> bool:
        """Whether the task that asks has taken the turn that there is."""
        return self._now > 0 and self._task is anyio.get_current_task().coro

    async def take(self, wait_s: float) -> int:
        """Wait for a turn; 0: it did not come in that time."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(wait_s) as scope:
                await self._free.acquire()
            if scope.cancelled_caught:
                return 0
        # The coroutine and not the task's id, which another may have when this one has ended.
        self._task = anyio.get_current_task().coro
        self._last += 1
        self._now = self._last
        return self._now

    def end(self, turn: int) -> None:
        """Let the next one in. Nothing happens unless it is this turn."""
        if turn and turn == self._now:
            self._now, self._task = 0, None
            self._free.release()
