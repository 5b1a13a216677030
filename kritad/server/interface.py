"""What the server asks of the database: the shapes of Service and Access.

Written as protocols so that a server can be tested over a dict (see
tests/server/service.py) and so that this floor's wishes stand in one place.
``kritad.service.Service`` and ``kritad.access.Access`` have these shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from krita.hello import Identity
from krita.operations import Operation
from kritad.access import Principal
from kritad.metrics import Metrics

Respond = Callable[[int, object], None]


class Health(Protocol):
    """How the node is: live (the loop turns), ready (it can serve), healthy (nothing
    is wrong with any of its shards); ``problems`` says what is."""

    @property
    def live(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def problems(self) -> list[str]: ...


class Database(Protocol):
    """The only door to the data. It checks what the principal may do."""

    @property
    def identity(self) -> Identity: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def timeout_ms(self) -> float: ...

    def submit(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        deadline_ms: float | None,
        flags: int,
        respond: Respond,
    ) -> None:
        """Do one request. Never blocks, never raises.

        ``respond(status, body)`` is called exactly once, at once or later, on the
        event loop's thread; a failure's body is that of ``krita.errors.to_wire``.
        ``deadline_ms`` is a duration; None means the node's default, ``timeout_ms``.
        """

    def admit_peer(self, identity: Identity) -> None:
        """Another node has proved that it holds the cluster's key and says who it is.
        Raises Foreign when it is not who the cluster knows under that name."""

    def deliver(self, principal: Principal, op: int, body: bytes) -> None:
        """Take a peer's one-way message. Never blocks, never raises."""

    def health(self) -> Health:
        """How the node is, at this moment, from memory."""


class Gatekeeper(Protocol):
    """Who somebody is, and what they may do."""

    @property
    def peer_key(self) -> bytes:
        """The key that both ends of a connection between nodes prove to each other."""

    def authenticate(self, token: bytes | None, remote_loopback: bool) -> Principal:
        """Who holds this token. Raises Unauthenticated."""

    def check(self, principal: Principal, operation: Operation) -> None:
        """Return if ``principal`` may do it. Raises Forbidden or Unauthenticated."""
