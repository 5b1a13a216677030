"""Calls in flight whose outcomes are taken one by one, in the order they come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from krita.aio.client import AsyncClient
    from krita.call import Call
    from krita.request import Request


class AsyncMailbox:
    """See the module. Made by ``AsyncClient.mailbox``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._finished: deque[Call] = deque()
        self._open: dict[Call, None] = {}
        self._event = anyio.Event()

    @property
    def in_flight(self) -> int:
        """How many calls have no outcome yet."""
        return len(self._open)

    def post(self, request: Request[Any], timeout_ms: float | None = None) -> None:
        """Start a call; its outcome will be among those that ``take`` returns."""
        finished: list[Call] = []

        def done(call: Call) -> None:
            finished.append(call)  # perhaps before submit has returned
            self._open.pop(call, None)
            self._finished.append(call)
            self._event.set()

        call = self._client.submit(request, done, timeout_ms)
        if not finished:
            self._open[call] = None

    async def take(self) -> Call:
        """Wait for the next call that has finished. Some must be in flight, or have come.
        A cancelled ``take`` has taken nothing."""
        assert self._open or self._finished, "nothing was posted"
        if self._finished:
            await anyio.lowlevel.checkpoint()
        while not self._finished:
            self._event = anyio.Event()
            await self._event.wait()
        return self._finished.popleft()

    def close(self) -> None:
        """Forget what is in flight. Idempotent."""
        for call in self._open:
            self._client.cancel(call)
        self._open.clear()
        self._finished.clear()
