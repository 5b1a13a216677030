"""Calls in flight whose outcomes are taken one by one, in the order they come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from krita.call import Call
    from krita.client import Client
    from krita.request import Request


class Mailbox:
    """See the module. Made by ``Client.mailbox``. Between two calls of ``take`` nothing moves."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._finished: deque[Call] = deque()
        self._open: dict[Call, None] = {}

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

        call = self._client.submit(request, done, timeout_ms)
        if not finished:
            self._open[call] = None

    def take(self) -> Call:
        """Wait for the next call that has finished. Some must be in flight, or have come."""
        assert self._open or self._finished, "nothing was posted"
        while not self._finished:
            self._client.turn()
        return self._finished.popleft()

    def close(self) -> None:
        """Forget what is in flight. Idempotent."""
        for call in self._open:
            self._client.cancel(call)
        self._open.clear()
        self._finished.clear()
