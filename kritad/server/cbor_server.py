"""One CBOR connection, of a client or of another node.

Two tasks for a connection, none for a request: the reader hands every request to
the database with a callback, the writer sends all the replies there are at a
time in one piece. No cancel scope, no event and no checkpoint is spent on a
request; at tens of thousands a second each would be the largest cost there is.

Bounds (reliability C1-C4):
* In flight: with ``requests_in_flight_max`` unanswered, or ``polls_in_flight_max`` polls for
  changes, which are not counted among them, the reader stops reading, and TCP makes the
  client wait.
* Slow readers: above ``output_bytes_high`` unsent bytes the reader stops too; if
  the client takes nothing for ``write_s``, or replies to what was in flight
  already pass ``output_bytes_max``, it is closed with ``slow_consumer``.
* Strangers: the hello has ``hello_s``, in frames of ``FRAME_BYTES_MAX_HELLO``.
* A broken frame ends the connection with a goodbye that says why.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from functools import partial

import trio

from krita.connection import ServerConnection, State
from krita.errors import Busy, Foreign, KritaError, ProtocolError, Unavailable
from krita.events import Event, HelloReceived, OneWay, PeerProved, Request, SendData
from krita.hello import NONCE_BYTES, Hello, Identity, Role
from krita.limits import FRAME_BYTES_MAX_PEER, frame_bytes_max
from krita.operations import Op
from kritad.access import PEER, Principal
from kritad.server.interface import Database, Gatekeeper
from kritad.server.limits import ServerLimits
from kritad.server.outbox import Outbox
from kritad.server.watchdog import Watched
from kritad.stream import Stream

_log = logging.getLogger(__name__)

# Strangers whose coming was logged: each once, and not more of them than this. Anybody
# who reaches the port can be one.
_STRANGERS_MAX = 16
_STRANGER_HINT = (
    "one of the two was started with the wrong data directory; or with an empty one and without"
    " join_ip, and so began a cluster of its own: stop that one, and start it with an empty"
    " directory and --join_ip"
)


class CborServer:
    """What all CBOR connections of a node share."""

    def __init__(self, database: Database, gatekeeper: Gatekeeper, limits: ServerLimits) -> None:
        self.database = database
        self.gatekeeper = gatekeeper
        self.limits = limits
        self.frame_bytes_max = frame_bytes_max(limits.value_bytes_max)
        self._strangers: set[tuple[bytes, int]] = set()
        metrics = database.metrics
        self.refusals = metrics.counter(
            "krita_cbor_refusals_total", "CBOR connections ended by an error", ("code",)
        )

    def stranger(self, identity: Identity) -> Foreign:
        """The refusal of a node of another cluster, which takes this one for a member of
        its own; logged here as well: it is this node that may be in the wrong place."""
        own = self.database.identity
        who = identity.cluster_id, identity.node
        if who not in self._strangers and len(self._strangers) < _STRANGERS_MAX:
            self._strangers.add(who)
            _log.warning(
                "this node belongs to cluster %s, and %s takes it for one of its own (%s)",
                own.cluster_id.hex(), identity, _STRANGER_HINT,
            )  # fmt: skip
        return Foreign(
            f"this node belongs to cluster {own.cluster_id.hex()}, you are {identity}",
            hint=_STRANGER_HINT,
        )

    def connection(self, stream: Stream, watched: Watched, *, crowded: bool) -> CborConnection:
        """A new connection; ``crowded`` if only another node may still come in."""
        return CborConnection(self, stream, watched, crowded)


class CborConnection:
    """``run`` serves it; ``farewell`` is what to say if it was cut for being late."""

    def __init__(self, server: CborServer, stream: Stream, watched: Watched, crowded: bool) -> None:
        self._server = server
        self._stream = stream
        self._watched = watched
        self._crowded = crowded
        self._connection = ServerConnection()
        self._outbox = Outbox(stream, watched, server.limits.write_s, self._make_room)
        self._principal: Principal | None = None
        self._in_flight = 0  # polls among them
        self._polls = 0
        self._finished = False  # nobody is there any more to read a reply
        self._draining = False
        self._room: trio.Event | None = None  # the reader, while it waits
        self._finishing = False  # it waits for all that is in flight, polls too

    def __repr__(self) -> str:
        return (
            f"<CborConnection {self._connection!r} in_flight={self._in_flight}"
            f" {self._outbox!r} {self._stream!r}>"
        )

    async def run(self, data: bytes) -> None:
        """Serve what came first and all that follows, until the connection ends."""
        self._watched.expect("hello", self._server.limits.hello_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                await self._read(data)
            except KritaError as error:
                # Behind the replies that are ready; what is in flight gets none.
                self._refuse(error.status.name.lower())
                self._outbox.put(self._connection.goodbye(error))
            except OSError:
                nursery.cancel_scope.cancel()  # the connection broke: nobody to write to
            finally:
                self._finished = True
                self._outbox.finish()

    def drain(self) -> None:
        """The server is stopping: end when nothing is in flight."""
        self._draining = True
        if not self._in_flight:
            self._leave()

    def farewell(self) -> bytes:
        """The last frame to a client that is too slow; none in mid-reply."""
        late = self._watched.reason
        if late:
            self._refuse("slow_consumer" if late in ("write", "output") else "late")
        if not late or self._outbox.sending or self._connection.state is State.CLOSED:
            return b""
        return self._connection.goodbye(ProtocolError(f"the {late} did not come in time"))

    async def _read(self, data: bytes) -> None:
        while data:
            for event in self._connection.receive_data(data):
                if type(event) is Request:
                    if self._is_full():
                        await self._wait_for_room()
                    self._submit(event)
                else:
                    self._handle(event)
            self._outbox.flush()
            if self._is_full():
                await self._wait_for_room()
            data = await self._stream.receive()
        # The client has finished sending; it may still read its replies.
        self._finishing = True
        await self._wait_for_room()

    def _submit(self, request: Request) -> None:
        assert self._principal is not None, "requests come after the handshake"
        self._in_flight += 1
        respond = self._respond
        if request.op == Op.CHANGES:
            self._polls += 1
            respond = self._respond_to_poll
        self._server.database.submit(
            request.op,
            request.body,
            self._principal,
            request.deadline_ms,
            request.flags,
            partial(respond, request.id),
        )

    def _respond_to_poll(self, request_id: int, status: int, body: object) -> None:
        self._polls -= 1
        self._respond(request_id, status, body)

    def _respond(self, request_id: int, status: int, body: object) -> None:
        """The database's answer to one request; called from within it."""
        self._in_flight -= 1
        if self._finished:
            return
        outbox = self._outbox
        outbox.put(self._connection.reply(request_id, status, body))
        if outbox.bytes > self._server.limits.output_bytes_max:
            self._finished = True
            self._watched.cut("output")
        elif self._room is not None:
            self._make_room()
        elif self._draining and not self._in_flight:
            self._leave()

    def _handle(self, event: Event) -> None:
        match event:
            case OneWay(op, body):
                assert self._principal is not None
                self._server.database.deliver(self._principal, op, body)
            case HelloReceived(hello):
                self._outbox.put(self._judge(hello))
            case SendData(data):
                self._outbox.put(data)
            case PeerProved(hello):
                assert hello.identity is not None
                self._server.database.admit_peer(hello.identity)
                self._admit(Principal(PEER, hello.identity.node, self._stream.loopback))
            case _:
                raise AssertionError(f"{event!r} is no event of an acceptor")

    def _judge(self, hello: Hello) -> bytes:
        """The answer to a hello: the welcome. Raises KritaError to refuse it."""
        server = self._server
        identity = server.database.identity
        if hello.role is Role.PEER:
            assert hello.identity is not None
            if hello.identity.cluster_id not in (b"", identity.cluster_id):
                raise server.stranger(hello.identity)
            return self._connection.accept(
                identity,
                FRAME_BYTES_MAX_PEER,
                peer_key=server.gatekeeper.peer_key,
                nonce=secrets.token_bytes(NONCE_BYTES),
            )
        if self._crowded:
            raise Busy("this node has as many connections as it takes (connections_max)")
        principal = server.gatekeeper.authenticate(hello.token, self._stream.loopback)
        welcome = self._connection.accept(identity, server.frame_bytes_max)
        self._admit(principal)
        return welcome

    def _admit(self, principal: Principal) -> None:
        self._principal = principal
        self._watched.rest()

    def _refuse(self, code: str) -> None:
        self._server.refusals.inc(code)

    def _is_full(self) -> bool:
        limits = self._server.limits
        return (
            self._in_flight - self._polls >= limits.requests_in_flight_max
            or self._polls >= limits.polls_in_flight_max
            or self._outbox.bytes > limits.output_bytes_high
        )

    async def _wait_for_room(self) -> None:
        """Until half of what may be in flight is answered, or all of it when the client has
        finished, and the replies are taken. (Half of the bound, not one below it: a reader
        woken by every reply would cost a task switch for each.)"""
        self._outbox.flush()
        if not self._has_room():
            self._room = trio.Event()
            await self._room.wait()

    def _has_room(self) -> bool:
        limits = self._server.limits
        if self._outbox.bytes > limits.output_bytes_high:
            return False
        if self._finishing:
            return not self._in_flight
        requests = self._in_flight - self._polls
        return (
            requests <= limits.requests_in_flight_max // 2
            and self._polls <= limits.polls_in_flight_max // 2
        )

    def _make_room(self) -> None:
        if self._room is not None and self._has_room():
            self._room.set()
            self._room = None

    async def _write(self, connection_scope: trio.CancelScope) -> None:
        try:
            await self._outbox.run()
        except OSError:
            connection_scope.cancel()

    def _leave(self) -> None:
        """End at once, nothing being in flight."""
        if self._connection.state is State.OPEN and not self._outbox.sending:
            self._outbox.put(self._connection.goodbye(Unavailable("this node is stopping")))
            with contextlib.suppress(OSError):  # it ends in any case
                self._outbox.flush()
        self._watched.scope.cancel()
