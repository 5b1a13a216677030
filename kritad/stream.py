"""One connection, accepted or dialled, as a stream of bytes: a socket, and nothing around it.

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

from trio.lowlevel import notify_closing, wait_readable, wait_writable

_RECEIVE_BYTES = 64 << 10


class Stream:
    """One task may receive while another sends. Raises OSError when the connection breaks."""

    __slots__ = ("_socket", "loopback", "remote")

    def __init__(self, connected: socket.socket, remote: str) -> None:
        """``connected`` is non-blocking; ``remote`` is the other side's IP address."""
        self._socket = connected
        self.remote = remote
        self.loopback = _is_loopback(remote)

    def __repr__(self) -> str:
        return f"<Stream from {self.remote}, fd {self._socket.fileno()}>"

    async def receive(self) -> bytes:
        """What has arrived, 64 KiB at most; b"" when the other side has finished."""
        while True:
            await wait_readable(self._socket)
            try:
                return self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue  # epoll may wake without cause

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took, without waiting; 0 when its buffer is full."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: bytes) -> None:
        """Send everything. A checkpoint only if the kernel does not take it at once."""
        sent = self.send_now(data)
        if sent == len(data):
            return
        rest = memoryview(data)
        while True:
            rest = rest[sent:]
            if not rest:
                return
            await wait_writable(self._socket)
            sent = self.send_now(rest)

    def close_when_silent(self, silence_ms: int) -> None:
        """Have the kernel end the connection when bytes that were sent have not been
        acknowledged for so long."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)

    def finish(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it; a task that waits on it gets trio.ClosedResourceError. Idempotent."""
        if self._socket.fileno() >= 0:
            notify_closing(self._socket)
            self._socket.close()


def _is_loopback(remote: str) -> bool:
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])  # IPv6 zone
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
