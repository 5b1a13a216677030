"""Somebody who says to be a node: the first frames of a peer connection, by hand."""

from __future__ import annotations

import secrets
import socket

from krita.codec import encode_body
from krita.connection import Connection
from krita.errors import KritaError
from krita.events import Goodbye, Reply, SendData, Welcomed
from krita.handshake import derive_peer_key
from krita.hello import FEATURES, Hello, Identity, Role
from krita.operations import Op
from tests.system.node import TIMEOUT_S, Node


def shake_hands(node: Node, identity: Identity, token: bytes = b"") -> KritaError | None:
    """Say to ``node`` that we are the node of ``identity``; what it refuses that with,
    None when it believes us (and answers a request as proof of that)."""
    nonce = secrets.token_bytes(16)
    hello = Hello(features=FEATURES, role=Role.PEER, lane="urgent", identity=identity, nonce=nonce)
    connection = Connection.client(hello, derive_peer_key(token))
    with socket.create_connection(("127.0.0.1", node.port), TIMEOUT_S) as sock:
        sock.sendall(connection.greeting())
        while data := sock.recv(65536):
            events = connection.receive_data(data)
            for event in events:
                if isinstance(event, Goodbye):  # perhaps right behind the welcome
                    return event.error
                if isinstance(event, Reply):
                    return None
                if isinstance(event, SendData):
                    sock.sendall(event.data)
            if any(isinstance(event, Welcomed) for event in events):
                sock.sendall(connection.request(Op.PING, encode_body(Op.PING))[1])
    raise AssertionError("the node closed the connection without a word")
