"""An answer that is longer than memory, or lasts: its body, piece by piece.

Rules:
* A piece is sent before the next one is made: a client that reads slowly makes whoever
  writes wait, and one that does not read for ``write_s`` is cut.
* To HTTP/1.1 in chunks, after the last of which the connection goes on; to HTTP/1.0 up to
  the connection's end. An answer that breaks off does not look like one that is whole.
* When the server is stopping, or the client has finished sending, nothing is waited for any
  more (``stopped``); whoever writes then says its last words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from kritad.server.http_answers import stream_head
from kritad.server.http_exchange import REQUEST_ID, Exchange


class Sink:
    """The way out of one such answer: ``begin``, ``write``, ``finish``."""

    def __init__(self, exchange: Exchange, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._exchange = exchange
        self._send = send
        self._chunked = not exchange.request.http_1_0
        self.begun = False
        self.finished = False
        self.stopped = False
        # Set by whoever writes for as long as somebody listens: a client that has finished
        # sending is then taken for one that has gone.
        self.endless = False
        self.on_stop: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        state = "finished" if self.finished else "begun" if self.begun else "not begun"
        return f"<Sink of {self._exchange!r}: {state}>"

    def stop(self) -> None:
        """Nothing is to be waited for any more."""
        self.stopped = True
        self.on_stop()

    async def begin(self, content_type: bytes, headers: bytes = b"") -> None:
        """Send the head, with 200. Raises OSError, as the others do."""
        exchange = self._exchange
        self.begun = True
        exchange.close = exchange.close or not self._chunked
        name = exchange.request.headers.get(REQUEST_ID)
        if name is not None:
            headers += b"Krita-Request-Id: %b\r\n" % name
        exchange.count(200)
        await self._send(
            stream_head(
                200,
                content_type,
                headers + b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
                connection=exchange.connection_line(),
                chunked=self._chunked,
            )
        )

    async def write(self, data: bytes) -> None:
        """Send some of the body; not nothing, which would be the end."""
        assert data, "an empty chunk ends the body"
        await self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await trio.lowlevel.checkpoint()  # the kernel may take it all at once, time and again

    async def finish(self) -> None:
        """The body is whole."""
        self.finished = True
        if self._chunked:
            await self._send(b"0\r\n\r\n")
