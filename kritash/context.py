"""What an action needs to act: the connection, the user's ear, the output.

The client is made at first use, so that ``help`` works without a cluster and a
prompt opens at once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Protocol

import attrs

from krita.address import parse
from krita.client import Client
from krita.errors import ConnectionFailed
from kritash.recent import Recent
from kritash.settings import Settings

if TYPE_CHECKING:
    from kritash.reply import Reply

CONNECT_TIMEOUT_S = 1.0  # for each node, to say that none is there


class Display(Protocol):
    """Where an action shows what is no result; ``output`` has the real one."""

    @property
    def terminal(self) -> bool:
        """Whether results go to one."""

    @property
    def as_json(self) -> bool:
        """Whether results are to be JSON."""

    def progress(self, line: str, share: float | None = None, pace: str = "") -> None:
        """Shows one line in place of the one before, with a bar for a share from 0 to 1.
        ``pace``, behind the line, does not make it another line."""

    def progress_done(self) -> None:
        """Removes it."""

    def preview(self, reply: Reply) -> None:
        """Shows what somebody is about to be asked about."""

    def note(self, text: str) -> None:
        """A remark for people."""

    def result(self, text: str) -> None:
        """The first part of a result, ahead of the reply that ends the command."""

    def part(self, reply: Reply) -> None:
        """A piece of a long result in its dress, tables or plain lines; not with --json.
        Raises OSError."""

    def data(self, text: str) -> None:
        """A piece of a result that is too long for a reply, as it is. Raises OSError."""


def nobody(_question: str) -> bool | None:
    """The ear of a script: nobody can be asked."""
    return None


@attrs.define
class Context:
    """One run of kritash."""

    settings: Settings
    display: Display
    # What `-` reads a value from; None where stdin carries the commands.
    stdin: BinaryIO | None = None
    # Asks yes or no; None when there is nobody to ask.
    ask: Callable[[str], bool | None] = nobody
    assume_yes: bool = False
    recent: Recent = attrs.field(factory=Recent)
    # How time passes for whoever waits for something; tests have their own.
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    wall_s: Callable[[], float] = time.time
    _client: Client | None = None

    @property
    def client(self) -> Client:
        """The client, made at first use. Raises ConnectionFailed at once when no
        node listens."""
        if self._client is None:
            check_reachable(self.settings)
            self._client = open_client(self.settings)
        return self._client

    @property
    def connected(self) -> bool:
        """Whether there is a client, so that anything can have been sent."""
        return self._client is not None

    def close(self) -> None:
        """Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None


def check_reachable(settings: Settings) -> None:
    """Raises ConnectionFailed unless one of the nodes accepts a connection.

    The client itself goes on trying until its timeout, which is right for a
    program and no way to treat a person who mistyped a port.
    """
    reasons = []
    timeout_s = min(CONNECT_TIMEOUT_S, settings.timeout_ms / 1000)
    for node in settings.nodes:
        place = parse(node)
        try:
            socket.create_connection((place.host, place.port), timeout_s).close()
        except OSError as error:
            reasons.append(f"{node}: {error.strerror or error}")
        else:
            return
    raise ConnectionFailed(
        f"no node can be reached ({'; '.join(reasons)})",
        hint="is kritad running there? --nodes or KRITA_NODES says where to look",
    )


def open_client(settings: Settings) -> Client:
    """A client of its own for whoever needs one (the toolbar's thread)."""
    return Client(
        list(settings.nodes),
        timeout_ms=settings.timeout_ms,
        token=settings.token,
        zone=settings.zone,
    )
