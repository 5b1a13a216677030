"""What is still to be sent on one CBOR connection, and the task that sends it.

``put`` is called for every reply and costs 0.2 µs; all that is there is joined
and sent in one piece. One writer per connection: ``run``. Besides, ``flush``
sends from within the reader what was answered at once, which saves a switch to
the writer's task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from kritad.server.watchdog import Watched
from kritad.stream import Stream

# What one send gathers: large enough to make system calls rare, small enough
# that joining it is no long stop of the loop.
_GATHER_BYTES = 256 << 10


class Outbox:
    """``bytes`` are unsent, those in the writer's hands included."""

    __slots__ = (
        "_finished", "_on_sent", "_parked", "_parts", "_stream", "_watched", "_work", "_write_s",
        "bytes", "sending",
    )  # fmt: skip

    def __init__(
        self, stream: Stream, watched: Watched, write_s: float, on_sent: Callable[[], None]
    ) -> None:
        """``write_s``: how long the other side may take over one piece, before
        ``watched`` cuts it. ``on_sent`` is called when ``bytes`` has shrunk."""
        self._stream = stream
        self._watched = watched
        self._write_s = write_s
        self._on_sent = on_sent
        self._parts: deque[bytes] = deque()
        self.bytes = 0
        self.sending = False  # a piece has left in part: nothing may come in between
        self._finished = False
        self._parked = False
        self._work = trio.Event()

    def __repr__(self) -> str:
        state = "sending" if self.sending else "finished" if self._finished else "open"
        return f"<Outbox {state}, {self.bytes} bytes in {len(self._parts)} parts>"

    def put(self, data: bytes) -> None:
        """Send it, behind what is there."""
        self._parts.append(data)
        self.bytes += len(data)
        if self._parked:
            self._wake()

    def flush(self) -> None:
        """Send now what the kernel takes now. Raises OSError."""
        if self.sending or not self._parts:
            return
        data = self._gather()
        sent = self._stream.send_now(data)
        self.bytes -= sent
        if sent < len(data):
            self._parts.appendleft(data[sent:])
        if self._parts and self._parked:
            self._wake()

    def finish(self) -> None:
        """Nothing more will be put: ``run`` ends when all is sent."""
        self._finished = True
        if self._parked:
            self._wake()

    async def run(self) -> None:
        """The writer. Raises OSError."""
        while True:
            if self._parts:
                await self._send(self._gather())
                self._on_sent()
            elif self._finished:
                return
            else:
                self._work = trio.Event()
                self._parked = True
                await self._work.wait()

    def _wake(self) -> None:
        self._parked = False
        self._work.set()

    def _gather(self) -> bytes:
        parts = self._parts
        if len(parts) == 1:
            return parts.popleft()
        if self.bytes <= _GATHER_BYTES:
            data = b"".join(parts)
            parts.clear()
            return data
        taken: list[bytes] = []
        length = 0
        while parts and length < _GATHER_BYTES:
            length += len(parts[0])
            taken.append(parts.popleft())
        return b"".join(taken)

    async def _send(self, data: bytes) -> None:
        self.sending = True
        sent = self._stream.send_now(data)
        if sent < len(data):
            interrupted = self._watched.at
            self._watched.expect("write", self._write_s)
            await self._stream.send(data[sent:])
            self._watched.at = interrupted
        self.bytes -= len(data)
        self.sending = False
