"""One HTTP connection: read, hand over, answer in order, until someone has enough.

Rules:
* Answers leave in the order of their requests. Pipelined requests that only read
  are served side by side, a writing one alone (RFC 9112 §9.3.2).
* Nothing more is read while requests wait for their answer: what a client may
  have outstanding is one 64 KiB read.
* One deadline at a time, absolute: for a head, a body, the next request, or for
  taking what was answered. While the database works there is none here: it has
  the request's own.
* What was complete is answered before a refusal; after a refusal nothing is read.
* What has to wait or to stream is done by the connection's task (``Exchange.work``); a
  client that goes away ends it.
* A client that finishes sending is answered all that it asked, and then closed. It may as
  well have gone, so it waits for nothing any more: a wait is over, and a watch, which would
  have no end, is given up.
* A write that is alone is answered by whoever brings its answer, while the task
  waits for the next request already: that saves a task switch of 15 µs. What the
  kernel does not take of it at once is left to the task, which can wait.
"""

from __future__ import annotations

import trio

from kritad.server.http_answers import (
    CONTINUE,
    JSON,
    NOT_APPLIED,
    NOT_NOW,
    answer_bytes,
    json_bytes,
    refusal_document,
)
from kritad.server.http_exchange import Exchange
from kritad.server.http_routes import Routes
from kritad.server.http_stream import Sink
from kritad.server.http_wire import Bodies, HttpRefusal, HttpRequest, HttpWire, Phase
from kritad.server.interface import Database, Gatekeeper
from kritad.server.limits import ServerLimits
from kritad.server.watchdog import Watched
from kritad.stream import Stream

# How many reads of one pipeline are served side by side, and how many bytes of
# answers are gathered before they are sent: each answer may be a whole value.
_SIDE_BY_SIDE_MAX = 32
_GATHER_BYTES = 256 << 10

# What a client may send while what it asked is still being worked on.
_BEHIND_BYTES = 64 << 10

_CLOSE = b"Connection: close\r\n"


class HttpServer:
    """What all HTTP connections of a node share."""

    def __init__(self, database: Database, gatekeeper: Gatekeeper, limits: ServerLimits) -> None:
        self.database = database
        self.gatekeeper = gatekeeper
        self.limits = limits
        self.bodies = Bodies(limits.bodies_bytes_max)
        self.routes = Routes(limits, database.metrics)

    def connection(self, stream: Stream, watched: Watched) -> HttpConnection:
        """A new connection, whose first head is already expected."""
        return HttpConnection(self, stream, watched)


class HttpConnection:
    """``run`` serves it; ``farewell`` is what to say if it was cut for being late."""

    def __init__(self, server: HttpServer, stream: Stream, watched: Watched) -> None:
        self._server = server
        self._stream = stream
        self._watched = watched
        self._wire = HttpWire(server.limits, server.bodies)
        self._expected = (1, Phase.HEAD)  # which head or body the deadline is for
        self._pending: list[Exchange] = []
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._answered = trio.Event()
        self._draining = False  # the next answer is the last
        self._closing = False  # the last answer has been given
        self._direct = False  # the task reads; _wake is to send the pending answer
        self._reading = trio.CancelScope()  # of the task, until there is something to be sent
        self._arrived = b""  # what it has read, and not looked at yet
        self._sink: Sink | None = None  # of the work that is being done
        self._behind = b""  # what came while it was
        self.idle = False  # between two requests: may be closed at any time

    def __repr__(self) -> str:
        return f"<HttpConnection {self._wire!r}, {len(self._pending)} pending, {self._stream!r}>"

    async def run(self, data: bytes) -> None:
        """Serve what came first and all that follows. Raises OSError when it breaks."""
        self._arrived = data
        try:
            while True:
                with trio.CancelScope() as self._reading:
                    await self._serve()
                if not self._output:
                    return
                await self._flush()  # what did not fit of an answer
                if self._closing:
                    return
        finally:
            self._wire.release()

    async def _serve(self) -> None:
        """Read and answer until the end, or until an answer that somebody else has sent did
        not fit. One scope for all of it: one for each request would cost as much as that saves."""
        wire = self._wire
        data, self._arrived = self._arrived, b""
        while True:
            wire.receive(data)  # nothing, once an answer that did not fit has been sent
            if wire.requests or wire.refusal is not None:
                self._watched.rest()
                await self._answer_all()
            if self._closing:
                return
            if wire.expects_continue:
                wire.expects_continue = False
                await self._send(CONTINUE)
            if self._pending:
                data = await self._receive_while_pending()
                if self._output:  # it did not fit, and the client has gone on meanwhile
                    self._arrived = data
                    return
            else:
                self._expect_more()
                data = await self._stream.receive()
            self.idle = False
            if self._closing or not data:
                return

    async def _receive_while_pending(self) -> bytes:
        """Read on while the answer to a write is still to come (see the rules)."""
        self._direct = True
        try:
            data = await self._stream.receive()
        finally:
            self._direct = False
        if self._pending:  # the client went on, or has finished sending
            await self._settle()
            await self._flush()
        return data

    def drain(self) -> None:
        """The server is stopping: what has begun is answered, nothing behind it is."""
        self._draining = True
        if self._pending:
            self._pending[-1].close = True
        if self._sink is not None:
            self._sink.stop()
        if self.idle:
            self._watched.scope.cancel()

    def farewell(self) -> bytes:
        """The last words to a client that is too slow; none in mid-answer."""
        late = self._watched.reason
        if not late or late == "write" or (self._wire.phase is Phase.IDLE and self._wire.started):
            return b""
        return self._refusal_bytes(
            HttpRefusal(408, f"the {late} did not arrive in time", "send it at once")
        )

    def _expect_more(self) -> None:
        wire = self._wire
        expected = (wire.started, wire.phase)
        if expected == self._expected or wire.started == 0:
            return  # still the same head or body: its deadline stands
        self._expected = expected
        limits = self._server.limits
        if wire.phase is Phase.IDLE:
            self.idle = True
            self._watched.expect("next request", limits.idle_s)
            if self._draining:  # which has begun while an answer was being taken
                self._watched.scope.cancel()
        elif wire.phase is Phase.BODY:
            self._watched.expect("body", limits.body_s)
        elif wire.started > 1:
            self._watched.expect("head", limits.head_s)

    async def _answer_all(self) -> None:
        """Answer every request that is whole, then the refusal if there is one."""
        wire = self._wire
        while wire.requests:
            while wire.requests:
                await self._start(wire.requests.popleft())
            if self._may_answer_directly():
                return
            await self._settle()  # to which more requests may have come
        await self._settle()
        if wire.refusal is not None and not self._closing:
            self._output.append(self._refusal_bytes(wire.refusal))
            self._closing = True
        await self._flush()

    async def _start(self, request: HttpRequest) -> None:
        if self._closing:
            return  # behind the answer that said close
        alone = not request.safe or self._draining
        if self._pending and (alone or len(self._pending) >= _SIDE_BY_SIDE_MAX):
            await self._settle()
        server = self._server
        exchange = Exchange(
            request, server.database, server.gatekeeper, self._stream.loopback, self._wake
        )
        exchange.close = exchange.close or self._draining
        self._pending.append(exchange)
        exchange.run(server.routes.handle)
        if alone and self._wire.requests:
            await self._settle()

    def _may_answer_directly(self) -> bool:
        """Whether all there is to do is to wait for the answer to one write."""
        if len(self._pending) != 1 or self._output or self._wire.refusal is not None:
            return False
        exchange = self._pending[0]
        waits = exchange.answer is None and not exchange.close and not exchange.request.safe
        waits = waits and exchange.work is None
        return waits and self._wire.phase is Phase.IDLE

    def _wake(self) -> None:
        if self._direct:
            self._answer_directly()
        else:
            self._answered.set()

    def _answer_directly(self) -> None:
        """Send the one pending answer from where it was made."""
        exchange = self._pending.pop()
        answer = exchange.answer
        assert answer is not None
        self._closing = exchange.close  # the server is stopping
        try:
            sent = self._stream.send_now(answer)
        except OSError:
            sent, self._closing = len(answer), True
        if sent < len(answer):
            self._output.append(answer[sent:])
        if self._output or self._closing:
            self._reading.cancel()  # the task sends the rest, or ends
        else:
            self._expect_more()

    async def _settle(self) -> None:
        """Wait until everything pending is answered; put the answers into the output."""
        for exchange in self._pending:
            if self._closing:
                break
            if exchange.work is not None and not await self._perform(exchange):
                continue
            while exchange.answer is None:
                self._answered = trio.Event()
                await self._answered.wait()
            self._output.append(exchange.answer)
            self._output_bytes += len(exchange.answer)
            if exchange.close:
                self._closing = True
            if self._output_bytes > _GATHER_BYTES:
                await self._flush()
        self._pending.clear()

    async def _perform(self, exchange: Exchange) -> bool:
        """Do the exchange's work, unless the client goes away. Returns whether there is an
        answer yet to be sent."""
        await self._flush()
        self._sink = sink = Sink(exchange, self._send)
        if self._draining:
            sink.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, sink, nursery.cancel_scope)
            try:
                await exchange.perform(sink)
            except OSError:
                self._closing = True  # the connection broke: nobody to write to
            nursery.cancel_scope.cancel()
        self._sink = None
        if exchange.answer is None:
            self._closing = self._closing or exchange.close or not sink.finished
        behind, self._behind = self._behind, b""
        if behind:
            self._wire.receive(behind)
        return exchange.answer is not None

    async def _listen(self, sink: Sink, work: trio.CancelScope) -> None:
        """Hear what the client does while its work is done: go away, finish sending, or ask
        more. What it asks more is kept, up to a bound; behind that nothing is heard."""
        try:
            while len(self._behind) < _BEHIND_BYTES:
                data = await self._stream.receive()
                if not data:
                    break
                self._behind += data
            else:
                return
        except OSError:
            work.cancel()
            return
        if sink.endless:
            work.cancel()
        else:
            sink.stop()  # it may read on; but it may have gone, so nothing is waited for

    async def _flush(self) -> None:
        output = self._output
        if output:
            data = output[0] if len(output) == 1 else b"".join(output)
            output.clear()
            self._output_bytes = 0
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        sent = self._stream.send_now(data)
        if sent < len(data):
            self._watched.expect("write", self._server.limits.write_s)
            await self._stream.send(data[sent:])
            self._watched.rest()

    def _refusal_bytes(self, refusal: HttpRefusal) -> bytes:
        self._server.database.metrics.http_requests.inc("invalid", str(refusal.code))
        return answer_bytes(
            refusal.code,
            JSON,
            json_bytes(refusal_document(refusal.message, refusal.hint, refusal.error)),
            NOT_NOW if refusal.code == 503 else NOT_APPLIED,
            connection=_CLOSE,
            head_only=self._wire.head_only,
        )
