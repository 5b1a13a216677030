"""The protocol of one connection, without the connection: bytes in, events out.

``Connection`` is what a client or a dialling node holds, ``ServerConnection``
what an acceptor holds; ``Connection.client`` and ``Connection.server`` make
them. Neither reads a clock, a socket or a random number. In the manner of
sans-IO libraries, whatever ``receive_data`` returns has been checked; whatever
a method returns as bytes is for the caller to write, in that order.

    dialer:    send greeting();  receive_data -> [SendData ...] -> Welcomed;
               then request / one_way out and Reply in, until Goodbye or the end
    acceptor:  receive_data -> HelloReceived;  accept() or refuse();
               peers: -> SendData, PeerProved;  then Request / OneWay in, reply out

When ``receive_data`` raises, the other side broke the protocol (or failed its
proof): an acceptor sends ``goodbye(error)`` and closes, a dialer closes. What
had arrived together with the broken frame and in front of it is lost with it:
to the other side its outcome is unknown, as with any connection that ends.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from krita.codec import decode_each, encode, encode_head, encode_number
from krita.errors import KritaError, Outcome, ProtocolError, TooLarge, from_wire, to_wire
from krita.events import (
    Event,
    Goodbye,
    HelloReceived,
    OneWay,
    PeerProved,
    Reply,
    Request,
    SendData,
    Welcomed,
)
from krita.framing import FrameBuffer, pack_frame
from krita.handshake import ClientHandshake, ServerHandshake, refusal_to_wire
from krita.hello import MAGIC, Hello, Identity, Role
from krita.limits import FRAME_BYTES_MAX_HELLO

__all__ = [
    "FLAG_FORWARDED",
    "Connection",
    "Event",
    "Goodbye",
    "HelloReceived",
    "OneWay",
    "PeerProved",
    "Reply",
    "Request",
    "SendData",
    "ServerConnection",
    "State",
    "Welcomed",
]

FLAG_FORWARDED = 1  # a node passed this request on already; it is not passed on again

_GOODBYE_ID = 0
_U64_MAX = (1 << 64) - 1


class State(enum.Enum):
    HELLO = "hello"  # acceptor: before the hello. Dialer: before the handshake is over
    JUDGING = "judging"  # acceptor: the caller has the hello
    PROVING = "proving"  # acceptor: a peer was welcomed and has yet to prove itself
    OPEN = "open"
    CLOSED = "closed"  # by an error or a goodbye


class Connection:
    """The dialer's side, and what both have in common."""

    def __init__(self, hello: Hello, peer_key: bytes | None = None) -> None:
        self.state = State.HELLO
        self.role = hello.role
        self.frame_bytes_max = FRAME_BYTES_MAX_HELLO
        self._buffer = FrameBuffer(FRAME_BYTES_MAX_HELLO)
        self._handshake = ClientHandshake(hello, peer_key)
        self._next_id = 1
        self._in_flight: set[int] = set()

    def __repr__(self) -> str:
        return (
            f"<Connection {self.role.name.lower()} {self.state.value}"
            f" in_flight={len(self._in_flight)} next_id={self._next_id} {self._buffer!r}>"
        )

    @staticmethod
    def client(hello: Hello, peer_key: bytes | None = None) -> Connection:
        """The side that dials. ``peer_key`` belongs to a hello of role PEER."""
        return Connection(hello, peer_key)

    @staticmethod
    def server() -> ServerConnection:
        """The side that accepts."""
        return ServerConnection()

    @property
    def in_flight(self) -> int:
        """How many requests wait for their reply."""
        return len(self._in_flight)

    def greeting(self) -> bytes:
        """The first bytes to send: magic and hello."""
        return MAGIC + pack_frame(self._handshake.hello_payload)

    def request(
        self, op: int, body: bytes, deadline_ms: int | None = None, flags: int = 0
    ) -> tuple[int, bytes]:
        """A new request: its id, and the bytes to send. About 1 µs.

        Raises TooLarge, before anything is sent, when the acceptor would not take it.
        """
        assert self.state is State.OPEN, f"no requests while {self.state.value}"
        request_id = self._next_id
        data = self._pack(_request_payload(request_id, op, body, deadline_ms, flags))
        self._next_id = request_id + 1
        self._in_flight.add(request_id)
        return request_id, data

    def one_way(self, op: int, body: bytes) -> bytes:
        """The bytes of a message that has no reply. Raises TooLarge."""
        assert self.state is State.OPEN
        assert self.role is Role.PEER, "clients send requests only"
        return self._pack(_request_payload(0, op, body, None, 0))

    def receive_data(self, data: bytes) -> Sequence[Event]:
        """What the bytes mean. Raises ProtocolError, or Foreign when the acceptor
        is not who it must be; the connection is of no more use then."""
        if self.state is State.CLOSED:
            raise ProtocolError("the connection is closed")
        try:
            if self.state is State.OPEN:
                return self._receive_replies(data)
            return self._receive_handshake(data)
        except KritaError:
            self.state = State.CLOSED
            raise

    def _receive_handshake(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        while not self._handshake.done:
            payload = self._buffer.feed_one(data)
            data = b""
            if payload is None:
                return events
            answer = self._handshake.receive(payload)
            if self._handshake.refusal is not None:
                self.state = State.CLOSED
                return [*events, Goodbye(self._handshake.refusal)]
            if answer is not None:
                events.append(SendData(pack_frame(answer)))
        welcome = self._handshake.welcome
        assert welcome is not None
        self.state = State.OPEN
        self.frame_bytes_max = self._buffer.frame_bytes_max = welcome.frame_bytes_max
        events.append(Welcomed(welcome))
        events.extend(self._receive_replies(b""))
        return events

    def _receive_replies(self, data: bytes) -> list[Event]:
        # The client's hot path: one pass, no call per frame but the event.
        events: list[Event] = []
        in_flight = self._in_flight
        for item in decode_each(self._buffer.feed(data)):
            if type(item) is not list or len(item) < 3:
                raise ProtocolError("a reply is not [id, status, body]")
            reply_id, status = item[0], item[1]
            if type(reply_id) is not int or type(status) is not int or status < 0:
                raise ProtocolError("a reply's id or status is not a number")
            if reply_id in in_flight:
                in_flight.remove(reply_id)
                events.append(Reply(reply_id, status, item[2]))
            elif reply_id == _GOODBYE_ID and status:
                self.state = State.CLOSED
                events.append(Goodbye(from_wire(status, item[2])))
                break
            else:
                raise ProtocolError(f"a reply has the id {reply_id}, which no request waits for")
        return events

    def _pack(self, payload: bytes) -> bytes:
        if len(payload) > self.frame_bytes_max:
            raise TooLarge(
                f"a frame of {len(payload)} bytes is over the limit of {self.frame_bytes_max}",
                hint="the limit follows from the cluster's value_bytes_max",
            )
        return pack_frame(payload)


class ServerConnection:
    """The acceptor's side. Requests in flight are the caller's to count."""

    def __init__(self) -> None:
        self.state = State.HELLO
        self.frame_bytes_max = FRAME_BYTES_MAX_HELLO
        self.hello: Hello | None = None
        self._buffer = FrameBuffer(FRAME_BYTES_MAX_HELLO)
        self._handshake = ServerHandshake()
        self._magic_missing = MAGIC
        self._one_way_allowed = False

    def __repr__(self) -> str:
        role = "?" if self.hello is None else self.hello.role.name.lower()
        return f"<ServerConnection {role} {self.state.value} {self._buffer!r}>"

    def receive_data(self, data: bytes) -> Sequence[Event]:
        """What the bytes mean. Raises KritaError when they mean the end: send
        ``goodbye(error)`` and close."""
        if self.state is State.CLOSED:
            raise ProtocolError("the connection is closed")
        try:
            if self.state is State.OPEN:
                return self._receive_requests(data)
            return self._receive_handshake(data)
        except KritaError:
            self.state = State.CLOSED
            raise

    def accept(
        self,
        identity: Identity,
        frame_bytes_max: int,
        *,
        peer_key: bytes | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        """Let the dialer in: the bytes to send. For a peer with ``peer_key`` and 16
        fresh random bytes; it then has yet to prove itself (PeerProved)."""
        assert self.state is State.JUDGING
        payload = self._handshake.accept(identity, frame_bytes_max, peer_key=peer_key, nonce=nonce)
        self.frame_bytes_max = frame_bytes_max
        self.state = State.PROVING
        if self._handshake.done:
            self._open()
        return pack_frame(payload)

    def refuse(self, error: KritaError) -> bytes:
        """Turn the dialer away: the bytes to send before closing."""
        assert self.state is State.JUDGING
        return self.goodbye(error)

    def goodbye(self, error: KritaError) -> bytes:
        """The last frame, in whatever state: why the connection ends."""
        in_handshake = not self._handshake.done
        self.state = State.CLOSED
        if in_handshake:
            return pack_frame(encode(refusal_to_wire(error)))
        return pack_frame(encode([_GOODBYE_ID, int(error.status), to_wire(error)]))

    def reply(self, request_id: int, status: int, body: object) -> bytes:
        """The bytes that answer a request. About 0.8 µs for a small body.

        An answer that is over the limit of a frame becomes the error TooLarge, whose
        outcome is unknown to this layer.
        """
        payload = b"\x83" + encode_number(request_id) + encode_number(status) + encode(body)
        if len(payload) > self.frame_bytes_max:
            error = TooLarge(
                f"the answer of {len(payload)} bytes is over the frame limit of"
                f" {self.frame_bytes_max}",
                hint="ask for less, or raise the cluster's value_bytes_max",
                outcome=Outcome.UNKNOWN,
            )
            payload = encode([request_id, int(error.status), to_wire(error)])
        return pack_frame(payload)

    def _receive_handshake(self, data: bytes) -> list[Event]:
        data = self._strip_magic(data)
        if self._magic_missing:
            return []
        if self.state is State.JUDGING:
            if data:
                raise ProtocolError("the other side did not wait for the welcome")
            return []
        payload = self._buffer.feed_one(data)
        if payload is None:
            return []
        answer = self._handshake.receive(payload)
        if self.state is State.HELLO:
            if self._buffer.pending_bytes:
                raise ProtocolError("the other side did not wait for the welcome")
            self.state = State.JUDGING
            self.hello = self._handshake.hello
            assert self.hello is not None
            return [HelloReceived(self.hello)]
        assert answer is not None
        assert self.hello is not None
        self._open()
        events: list[Event] = [SendData(pack_frame(answer)), PeerProved(self.hello)]
        events.extend(self._receive_requests(b""))
        return events

    def _strip_magic(self, data: bytes) -> bytes:
        missing = self._magic_missing
        if not missing:
            return data
        count = min(len(missing), len(data))
        if data[:count] != missing[:count]:
            raise ProtocolError("the connection does not begin with Krita's magic")
        self._magic_missing = missing[count:]
        return data[count:]

    def _open(self) -> None:
        assert self.hello is not None
        self.state = State.OPEN
        self._buffer.frame_bytes_max = self.frame_bytes_max
        self._one_way_allowed = self.hello.role is Role.PEER

    def _receive_requests(self, data: bytes) -> list[Event]:
        # The server's hot path, tens of thousands of small frames a second: one
        # pass, no call per frame but the event. type() is twice as fast as
        # isinstance() here, and a bool is no id.
        events: list[Event] = []
        for item in decode_each(self._buffer.feed(data)):
            if type(item) is not list or len(item) < 3:
                raise ProtocolError("a request is not [id, op, body]")
            request_id, op, body = item[:3]
            if type(request_id) is not int or type(op) is not int or type(body) is not bytes:
                raise ProtocolError("a request's id or op is no number, or its body no bytes")
            if request_id > 0:
                if len(item) == 3:
                    events.append(Request(request_id, op, body, None, 0))
                else:
                    events.append(_request_with_options(request_id, op, body, item))
            elif request_id == 0 and self._one_way_allowed:
                events.append(OneWay(op, body))
            else:
                raise ProtocolError(f"a request has the id {request_id}")
        return events


def _request_payload(
    request_id: int, op: int, body: bytes, deadline_ms: int | None, flags: int
) -> bytes:
    """``encode([request_id, op, body, deadline_ms, flags])`` without what is null at the
    end, in half the time."""
    head = encode_number(request_id) + encode_number(op) + encode_head(len(body))
    if flags:
        deadline = b"\xf6" if deadline_ms is None else encode_number(deadline_ms)
        return b"\x85" + head + body + deadline + encode_number(flags)
    if deadline_ms is not None:
        return b"\x84" + head + body + encode_number(deadline_ms)
    return b"\x83" + head + body


def _request_with_options(request_id: int, op: int, body: bytes, item: list[object]) -> Request:
    deadline_ms = item[3]
    flags = item[4] if len(item) > 4 else 0
    if deadline_ms is not None and (type(deadline_ms) is not int or deadline_ms < 0):
        raise ProtocolError("a request's deadline is neither null nor milliseconds")
    if type(flags) is not int or not 0 <= flags <= _U64_MAX:
        raise ProtocolError("a request's flags are no number")
    return Request(request_id, op, body, deadline_ms, flags)
