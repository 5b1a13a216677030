"""One dialled connection to one other node, for one kind of traffic (a *lane*).

Rules:
* Whoever has something to send never waits: it goes into a bounded queue, or,
  when the queue is full or the link is down, it is refused at once. Raft sends
  again what matters; a request that was refused was surely not sent.
* A turn's messages leave at once, without waiting for a task to be scheduled,
  when nothing waits in front of them; requests, which come one by one, are
  gathered until the writer comes round, and leave in one send.
* A connection that ends answers every request in flight on it as *lost*.
* Reconnecting backs off from 50 ms to 1 s with jitter: a restarted node is found
  quickly, and a dead one costs next to nothing. Only a connection that has
  lasted begins that anew: some are let in and then shown the door.
* A peer that lets us in and then says that we are not the node we say to be (a
  wiped disk, or an old copy of one) knows better: that ends this node.
* A peer that hangs without closing is noticed by the kernel
  (TCP_USER_TIMEOUT): bytes unacknowledged for that long end the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from krita.address import Address
from krita.codec import encode
from krita.connection import Connection, State
from krita.errors import Foreign, KritaError, ProtocolError
from krita.events import Goodbye, Reply, SendData, Welcomed
from krita.framing import pack_frame
from krita.hello import FEATURES, NONCE_BYTES, Hello, Identity, Role
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.stream import Stream

log = logging.getLogger(__name__)

_BACKOFF_MIN_S, _BACKOFF_MAX_S = 0.05, 1.0
_HANDSHAKE_TIMEOUT_S = 5.0

# (status, body); status None: the connection was lost and nobody knows.
OnReply = Callable[[int | None, object], None]


class Expelled(Foreign):
    """A node of our own cluster says that we are not who we say. Contrast its parent,
    which is also what somebody else's cluster says of us."""


def after_welcome(error: KritaError) -> KritaError:
    """What a goodbye means that follows the welcome: the clusters' ids agree."""
    if not isinstance(error, Foreign):
        return error
    return Expelled(error.message, hint=error.hint, outcome=error.outcome, detail=error.detail)


async def dial(
    address: Address, hello: Hello, peer_key: bytes, surroundings: Surroundings = MACHINE
) -> tuple[Stream, Connection, Welcomed]:
    """Connect and shake hands. Raises OSError, trio.TooSlowError or KritaError."""
    with trio.fail_after(_HANDSHAKE_TIMEOUT_S):
        stream = await surroundings.connect(address.host, address.port)
        try:
            connection = Connection.client(hello, peer_key)
            await stream.send(connection.greeting())
            while True:
                data = await stream.receive()
                if not data:
                    raise ProtocolError(f"{address} closed the connection during the handshake")
                welcomed: Welcomed | None = None
                for event in connection.receive_data(data):
                    if isinstance(event, SendData):
                        await stream.send(event.data)
                    elif isinstance(event, Goodbye):
                        # Also one right behind the welcome.
                        raise event.error if welcomed is None else after_welcome(event.error)
                    elif isinstance(event, Welcomed):
                        welcomed = event
                if welcomed is not None:
                    return stream, connection, welcomed
        except BaseException:
            stream.close()
            raise


def peer_hello(identity: Identity, lane: str, surroundings: Surroundings = MACHINE) -> Hello:
    """A peer's hello with a fresh nonce."""
    nonce = surroundings.chance.randbytes(NONCE_BYTES)
    return Hello(features=FEATURES, role=Role.PEER, lane=lane, identity=identity, nonce=nonce)


class Link:
    """See the module's docstring. ``run`` is a task; the rest never waits."""

    def __init__(
        self,
        node: int,
        lane: str,
        address: Address,
        *,
        identity: Identity,
        peer_key: bytes,
        queue_bytes_max: int,
        silence_max_ms: int,
        on_expelled: Callable[[Expelled], None],
        surroundings: Surroundings = MACHINE,
    ) -> None:
        self.node = node
        self.lane = lane
        self.address = address
        self.connected = False
        self.other: Identity | None = None  # who answered, while it is connected
        self.attempts = 0  # to connect, that have ended well or badly
        self._identity = identity
        self._peer_key = peer_key
        self._queue_bytes_max = queue_bytes_max
        self._silence_max_ms = silence_max_ms
        self._on_expelled = on_expelled
        self._surroundings = surroundings
        self._connection: Connection | None = None
        self._stream: Stream | None = None
        self._writing = False
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._in_flight: dict[int, OnReply] = {}
        self._problem = ""  # the last one that was logged, so that it is logged once

    def __repr__(self) -> str:
        state = "up" if self.connected else f"down ({self._problem or 'not tried'})"
        return (
            f"<Link to node {self.node} at {self.address}, {self.lane}: {state},"
            f" {self._queued_bytes} bytes queued, {len(self._in_flight)} in flight>"
        )

    def send(self, op: int, body: bytes) -> bool:
        """Send a one-way frame, or queue it. False: refused, not sent."""
        if not self.connected or self._queued_bytes > self._queue_bytes_max:
            return False
        data = pack_frame(encode([0, op, body]))
        if self.idle:
            data = self._send_now(data)
        if data:
            self._put(data)
        return True

    @property
    def idle(self) -> bool:
        """Whether it is up and nothing waits in front of what would be sent now."""
        return self.connected and not self._queue and not self._writing

    def _send_now(self, data: bytes) -> bytes:
        """What the kernel did not take. A broken connection takes nothing; the
        writer will find out as well."""
        assert self._stream is not None
        try:
            return data[self._stream.send_now(data) :]
        except OSError:
            return data

    def request(
        self, op: int, body: bytes, deadline_ms: int, flags: int, on_reply: OnReply
    ) -> bool:
        """Queue a request. False: refused, surely not sent; else ``on_reply`` is
        called exactly once."""
        if not self.connected or self._queued_bytes > self._queue_bytes_max:
            return False
        assert self._connection is not None
        if self._connection.state is not State.OPEN:
            return False  # it has just ended, and the task that reads is about to find out
        request_id, data = self._connection.request(op, body, deadline_ms, flags)
        self._in_flight[request_id] = on_reply
        self._put(data)
        return True

    def _put(self, data: bytes) -> None:
        if not self._queue:
            self._wake.set()
        self._queue.append(data)
        self._queued_bytes += len(data)

    def redial(self) -> None:
        """End the connection, if there is one, to find out who answers now."""
        if self._stream is not None:
            self._stream.close()

    async def run(self) -> None:
        """Keep the connection for as long as this task lives."""
        backoff_s = _BACKOFF_MIN_S
        while True:
            try:
                stream = await self._connect()
            except (OSError, trio.TooSlowError, KritaError) as problem:
                self.attempts += 1
                self._note(problem)
            else:
                self.attempts += 1
                began_s = trio.current_time()
                await self._serve(stream)
                if trio.current_time() - began_s >= _BACKOFF_MAX_S:
                    backoff_s, self._problem = _BACKOFF_MIN_S, ""
            await trio.sleep(backoff_s * (0.5 + self._surroundings.chance.random()))
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    def _note(self, problem: BaseException) -> None:
        if isinstance(problem, Expelled):
            self._on_expelled(problem)
        text = str(problem) or type(problem).__name__
        if text == self._problem:
            return
        self._problem = text
        level = logging.WARNING if isinstance(problem, KritaError) else logging.INFO
        log.log(level, "node %d at %s (%s): %s", self.node, self.address, self.lane, text)

    async def _connect(self) -> Stream:
        around = self._surroundings
        hello = peer_hello(self._identity, self.lane, around)
        stream, connection, event = await dial(self.address, hello, self._peer_key, around)
        other = event.welcome.identity
        try:
            if (other.cluster_id, other.node) != (self._identity.cluster_id, self.node):
                raise Foreign(f"node {self.node} was expected at {self.address}, not {other}")
            stream.close_when_silent(self._silence_max_ms)
        except (OSError, KritaError):
            stream.close()
            raise
        self._connection = connection
        self._stream = stream
        self.other = other
        self.connected = True
        return stream

    async def _serve(self, stream: Stream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream, nursery.cancel_scope)
                nursery.start_soon(self._read, stream, nursery.cancel_scope)
        finally:
            self.connected = False
            self._connection = self._stream = self.other = None
            self._writing = False
            self._queue.clear()
            self._queued_bytes = 0
            stream.close()
            lost, self._in_flight = self._in_flight, {}
            for on_reply in lost.values():
                on_reply(None, None)

    async def _write(self, stream: Stream, scope: trio.CancelScope) -> None:
        try:
            while True:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                queue, self._queue = self._queue, []
                data = queue[0] if len(queue) == 1 else b"".join(queue)
                self._writing = True
                await stream.send(data)
                self._writing = False
                self._queued_bytes -= len(data)
        except (OSError, trio.ClosedResourceError) as problem:
            self._note(problem)
            self.connected = False
            scope.cancel()

    async def _read(self, stream: Stream, scope: trio.CancelScope) -> None:
        assert self._connection is not None
        try:
            while data := await stream.receive():
                for event in self._connection.receive_data(data):
                    if isinstance(event, Reply):
                        self._in_flight.pop(event.id)(event.status, event.body)
                    elif isinstance(event, Goodbye):
                        raise after_welcome(event.error)
        except (OSError, trio.ClosedResourceError, KritaError) as problem:
            self._note(problem)
        self.connected = False
        scope.cancel()
