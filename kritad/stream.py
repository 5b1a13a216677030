"""One connection, accepted or dialled, as a stream of bytes: a socket, and nothing around it.

``Stream`` and ``Listening`` are what the rest of the daemon knows of connections,
``SocketStream`` and ``SocketListening`` what they are on a machine.

Why not trio.SocketStream: its ``receive_some`` first tries a ``recv`` that, on a
connection that waits for its next request, always fails, and its ``send_all`` is
a checkpoint of 7 µs although the kernel nearly always takes an answer at once.
Here a receive waits first and a send tries first; together that is a sixth of
the server's cost of a request.

Fairness rests on ``receive``, which always goes through the scheduler.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Protocol

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

_RECEIVE_BYTES = 64 << 10


class Stream(Protocol):
    """A connection. One task may receive while another sends. Its methods raise
    OSError when the connection breaks."""

    remote: str  # the other side's IP address
    loopback: bool  # whether that is this machine

    async def receive(self) -> bytes:
        """What has arrived, 64 KiB at most; b"" when the other side has finished."""

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes were taken, without waiting; 0 when there is no room."""

    async def send(self, data: bytes) -> None:
        """Send everything. A checkpoint only if there is not room at once."""

    def close_when_silent(self, silence_ms: int) -> None:
        """Have the connection end when bytes that were sent have not been
        acknowledged for so long."""

    def finish(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""

    def close(self) -> None:
        """Close it; a task that waits on it, or is about to, gets trio.ClosedResourceError.
        Idempotent."""


class Listening(Protocol):
    """A place where connections arrive."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""

    async def wait(self) -> None:
        """Until a connection may be there. Always a checkpoint."""

    def accept(self) -> Stream:
        """The next connection. Raises BlockingIOError when there is none, or another
        OSError when it cannot be had."""

    def close(self) -> None:
        """Listen no more. Idempotent."""


class SocketStream:
    """A Stream that is a TCP connection."""

    __slots__ = ("_socket", "loopback", "remote")

    def __init__(self, connected: socket.socket, remote: str) -> None:
        """``connected`` is non-blocking; ``remote`` is the other side's IP address."""
        self._socket = connected
        self.remote = remote
        self.loopback = _is_loopback(remote)

    def __repr__(self) -> str:
        return f"<SocketStream from {self.remote}, fd {self._socket.fileno()}>"

    async def receive(self) -> bytes:
        """See Stream, as for all of these."""
        while True:
            self._check_open()
            await wait_readable(self._socket)
            try:
                return self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue  # epoll may wake without cause

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: bytes) -> None:
        sent = self.send_now(data)
        if sent == len(data):
            return
        rest = memoryview(data)
        while True:
            rest = rest[sent:]
            if not rest:
                return
            self._check_open()
            await wait_writable(self._socket)
            sent = self.send_now(rest)

    def _check_open(self) -> None:
        # Of what has no descriptor any more trio raises a ValueError.
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this stream was closed by another task")

    def close_when_silent(self, silence_ms: int) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            notify_closing(self._socket)
            self._socket.close()


class SocketListening:
    """A Listening that is a bound TCP socket, which it takes over."""

    def __init__(self, listening: socket.socket) -> None:
        """``listening`` is non-blocking."""
        self._socket = listening

    @property
    def address(self) -> tuple[str, int]:
        """See Listening, as for all of these."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def wait(self) -> None:
        await wait_readable(self._socket)

    def accept(self) -> SocketStream:
        connected, address = self._socket.accept()
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            connected.close()
            raise
        return SocketStream(connected, str(address[0]))

    def close(self) -> None:
        self._socket.close()


async def connect(host: str, port: int) -> Stream:
    """A TCP connection to the first of ``host``'s addresses that answers. Raises OSError."""
    try:
        connected = await trio.open_tcp_stream(host, port)
    except UnicodeError as error:  # what Python makes of a name that DNS cannot ask for
        raise OSError(f"{host!r:.80} is no host name: {error}") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain = socket.socket(fileno=connected.socket.detach())
    plain.setblocking(False)
    return SocketStream(plain, host)


def _is_loopback(remote: str) -> bool:
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])  # IPv6 zone
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
