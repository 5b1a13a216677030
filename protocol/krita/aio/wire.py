"""The bytes of an AsyncClient: one task for each connection.

Sockets of our own, tried first and waited for only when they are not ready. Measured
against anyio's SocketStream that spares a task switch per send.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from krita.address import parse
from krita.dial import tune
from krita.link import DIAL_TIMEOUT_S

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from krita.dispatch import Dispatcher
    from krita.link import Link

RECEIVE_BYTES = 1 << 16


class Wire:
    """A link's socket: one task that connects and reads, and sends that need none
    unless the socket is full."""

    def __init__(self, dispatcher: Dispatcher, link: Link, follow_up: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._link = link
        self._follow_up = follow_up
        self._sock: socket.socket | None = None
        self._ended = ""  # why the connection has ended; "": it has not
        self._unsent = bytearray()
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None

    def close(self) -> None:
        """Idempotent. The task ends at its next turn and closes the socket."""
        self._scope.cancel()

    async def run(self) -> None:
        """Connect and read until the connection ends, however it does."""
        with self._scope:
            try:
                reason = await self._live()
            except OSError as error:
                reason = error.strerror or str(error)
            self._dispatcher.closed(self._link, reason, time.monotonic())
            self._follow_up()

    async def _live(self) -> str:
        sock = await _connect(self._link.address)
        try:
            async with anyio.create_task_group() as tasks:
                self._sock, self._tasks = sock, tasks
                self._dispatcher.dialed(self._link)
                self._follow_up()
                reason = await self._read(sock)
                tasks.cancel_scope.cancel()
        finally:
            self._sock = None
            sock.close()
        return reason

    async def _read(self, sock: socket.socket) -> str:
        """Until the node ends it, or its death does; why it ended. An error is
        returned too: raised, the task group would wrap it."""
        while not self._ended:
            await anyio.wait_readable(sock)
            if not self._ended:  # else somebody has looked
                self._receive(sock)
        return self._ended

    def look(self) -> None:
        """Take all that has come, without waiting."""
        while not self._ended and self._sock is not None and self._receive(self._sock):
            pass

    def _receive(self, sock: socket.socket) -> bool:
        """Take what one receive brings; whether there was something."""
        try:
            data = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self._ended = error.strerror or str(error)
            return False
        if not data:
            self._ended = "the node closed the connection"
            return False
        self._dispatcher.received(self._link, data, time.monotonic())
        self._follow_up()
        return True

    def send(self, data: bytes) -> None:
        """Send now what the socket takes; a task sends the rest."""
        if self._sock is None:
            return
        if self._unsent:
            self._unsent += data
            self._wrote(0)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader finds out, and why
        if sent < len(data):
            self._unsent += data[sent:]
            self._wrote(sent)
            assert self._tasks is not None
            self._tasks.start_soon(self._send_rest)

    async def _send_rest(self) -> None:
        while self._unsent and (sock := self._sock) is not None:
            await anyio.wait_writable(sock)
            try:
                sent = sock.send(self._unsent)
            except BlockingIOError:
                continue
            except OSError:
                return  # the reader finds out, and why
            del self._unsent[:sent]
            self._wrote(sent)

    def _wrote(self, moved_bytes: int) -> None:
        """Tell the dispatcher, where the socket does not take at once what it is given."""
        left_bytes = len(self._unsent)
        self._dispatcher.wrote(self._link, moved_bytes, left_bytes, time.monotonic())
        self._follow_up()


async def _connect(address: str) -> socket.socket:
    """A connected non-blocking socket. Raises OSError, of the last place tried. One that does
    not answer leaves their shares of the time to those behind it, as in krita.dial."""
    place = parse(address)
    last: OSError = OSError(f"{place.host} has no address")
    found = await anyio.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, where in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine does not speak
            last = error
            continue
        try:
            sock.setblocking(False)
            tune(sock)
            with anyio.fail_after(DIAL_TIMEOUT_S / len(found)):
                await _connect_to(sock, where)
        except OSError as error:  # TimeoutError among them
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


async def _connect_to(sock: socket.socket, where: tuple[Any, ...]) -> None:
    try:
        sock.connect(where)
    except BlockingIOError:
        await anyio.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None
