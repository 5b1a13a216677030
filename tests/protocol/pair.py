"""Both ends of a connection in one hand, with fixed nonces."""

from __future__ import annotations

from krita.connection import Connection, Event, HelloReceived, SendData, ServerConnection
from krita.handshake import derive_peer_key
from krita.hello import FEATURES, Hello, Identity, Role
from krita.limits import FRAME_BYTES_MAX_PEER, frame_bytes_max

CLUSTER = bytes(range(16))
FRAME_BYTES_MAX = frame_bytes_max(1 << 20)
KEY = derive_peer_key(b"admin token of the tests")
DIALER_NONCE = bytes([1]) * 16
ACCEPTOR_NONCE = bytes([2]) * 16

ACCEPTOR = Identity(CLUSTER, 1, b"S" * 16, 3, "10.0.0.1:8080")
DIALER = Identity(CLUSTER, 2, b"T" * 16, 1, "10.0.0.2:8080")

CLIENT_HELLO = Hello(token=b"secret")
PEER_HELLO = Hello(
    features=FEATURES, role=Role.PEER, lane="urgent", identity=DIALER, nonce=DIALER_NONCE
)


def open_client_pair() -> tuple[Connection, ServerConnection]:
    """A client that has been welcomed, and its server."""
    client, server = Connection.client(CLIENT_HELLO), Connection.server()
    server.receive_data(client.greeting())
    client.receive_data(server.accept(ACCEPTOR, FRAME_BYTES_MAX))
    return client, server


def judged_peer_pair(
    *, dialer_key: bytes = KEY, acceptor_key: bytes = KEY
) -> tuple[Connection, ServerConnection, bytes]:
    """A dialling node, its acceptor, and the welcome that is on its way."""
    dialer, acceptor = Connection.client(PEER_HELLO, dialer_key), Connection.server()
    (event,) = acceptor.receive_data(dialer.greeting())
    assert isinstance(event, HelloReceived)
    welcome = acceptor.accept(
        ACCEPTOR, FRAME_BYTES_MAX_PEER, peer_key=acceptor_key, nonce=ACCEPTOR_NONCE
    )
    return dialer, acceptor, welcome


def open_peer_pair() -> tuple[Connection, ServerConnection]:
    """Two nodes that have proved themselves to each other."""
    dialer, acceptor, welcome = judged_peer_pair()
    proof = sent(dialer.receive_data(welcome)[0])
    dialer.receive_data(sent(acceptor.receive_data(proof)[0]))
    return dialer, acceptor


def sent(event: Event) -> bytes:
    """The bytes that the handshake wants sent."""
    assert isinstance(event, SendData), event
    return event.data
