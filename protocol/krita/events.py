"""What can happen on a connection, as ``krita.connection`` reports it.

``define`` rather than ``frozen``: a busy server makes tens of thousands a
second, and a frozen one costs twice as much to make.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from krita.errors import KritaError, from_wire
from krita.hello import Hello, Welcome


@attrs.define
class HelloReceived:
    """A dialer wants in: ``accept`` or ``refuse`` it before anything else."""

    hello: Hello


@attrs.define
class Welcomed:
    """The acceptor let us in; requests may be sent. For a peer, both have proved
    themselves. Whether ``welcome.identity`` is the one we wanted is for the caller."""

    welcome: Welcome


@attrs.define
class PeerProved:
    """The peer of an accepted hello has proved itself; its requests follow."""

    hello: Hello


@attrs.define
class SendData:
    """Bytes that the handshake wants written, before anything else is."""

    data: bytes


@attrs.define
class Request:
    """Something to do and to answer, once, with ``reply``."""

    id: int
    op: int  # perhaps unknown: answer Unsupported
    body: bytes  # unread
    deadline_ms: int | None  # how long the requester will wait from now on
    flags: int


@attrs.define
class OneWay:
    """Something that a peer says and wants no answer to."""

    op: int
    body: bytes  # unread


@attrs.define
class Reply:
    """The answer to the request of that id."""

    id: int
    status: int
    body: object

    def error(self) -> KritaError | None:
        """The error that it means, or None."""
        return from_wire(self.status, self.body) if self.status else None


@attrs.define
class Goodbye:
    """The acceptor's last words: it refused us, or closes for this reason."""

    error: KritaError


Event: TypeAlias = (
    HelloReceived | Welcomed | PeerProved | SendData | Request | OneWay | Reply | Goodbye
)
