"""What keeps a lease or a lock alive while a block runs, and ends the block when it is lost.

    keeper.start(asked_at)  # in front of the block
    keeper.stop(...)        # behind it

A task of the client's renews it three times in its time to live. When it is surely gone,
because the cluster says so or because the time has passed without an answer, the block is
cancelled, and ``stop`` raises why. Its time is counted from when it was asked for, not from
when that was answered: the cluster may have begun to count at any moment in between.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from krita.errors import ConditionFailed, KritaError, LeaseUnknown

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup


class AsyncKeeper:
    """See the module. Made by ``AsyncClient.keeper``. ``start`` and ``stop`` are called in
    one task, around the block."""

    def __init__(
        self,
        tasks: TaskGroup,
        renew: Callable[[], Awaitable[object]],
        ttl_ms: int,
        lost: type[KritaError],
    ) -> None:
        self._tasks = tasks
        self._renew = renew
        self._ttl_s = ttl_ms / 1000
        self._lost_type = lost
        self._block = anyio.CancelScope()
        self._work = anyio.CancelScope()
        self._lost: KritaError | None = None

    def start(self, asked_at: float) -> None:
        """It was asked for then, seconds of ``time.monotonic``, and granted."""
        self._block.__enter__()
        self._tasks.start_soon(self._keep, asked_at)

    def rest(self) -> None:
        """It was given up before the block has ended. Idempotent."""
        self._work.cancel()

    def stop(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The block has ended so. Raises why it was lost, if that has ended it."""
        self.rest()
        swallowed = self._block.__exit__(kind, error, traceback)
        if self._lost is not None and (swallowed or error is None):
            raise self._lost
        assert error is None or not swallowed, "nothing else cancels the block's own scope"

    async def _keep(self, renewed_at: float) -> None:
        with self._work:
            while self._lost is None:
                pause_s = renewed_at + self._ttl_s / 3 - time.monotonic()
                await anyio.sleep(max(0.0, pause_s))
                asked_at = time.monotonic()
                left_s = renewed_at + self._ttl_s - asked_at
                with anyio.move_on_after(left_s) as scope:
                    await self._renew_once()
                    renewed_at = asked_at
                if scope.cancelled_caught:
                    self._lose(self._lost_type("it could not be kept alive in time"))

    async def _renew_once(self) -> None:
        while True:
            try:
                await self._renew()
            except (LeaseUnknown, ConditionFailed) as error:
                self._lose(error)
                return
            except KritaError:
                await anyio.sleep(self._ttl_s / 30)
            else:
                return

    def _lose(self, error: KritaError) -> None:
        self._lost = error
        self._block.cancel()
