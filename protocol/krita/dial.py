"""Connecting to a node without waiting for it: the addresses of its name, one after the other.

Rules:
* One that does not answer leaves its share of the time to those behind it: a name may have
  an address that packets never reach, in front of one that works.
* Nothing waits here but the resolver. Whoever uses it waits until the socket can be written
  to, and asks then.
"""

from __future__ import annotations

import errno
import os
import socket

from krita.address import parse

_UNDER_WAY = (0, errno.EINPROGRESS)

# What a socket takes beyond what is on its way. Without it the kernel takes megabytes at
# once, and a slow line looks like a node that does not answer.
_NOT_SENT_BYTES_MAX = 128 << 10


def tune(sock: socket.socket) -> None:
    """Make a connected socket what a link needs."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES_MAX)


class Dial:
    """One connection that is being made."""

    def __init__(self, address: str, now: float, due: float) -> None:
        """By ``due`` it has to stand. Raises OSError for a name that cannot be resolved."""
        place = parse(address)
        self._left = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        self._share_s = max(0.0, due - now) / len(self._left)
        self.socket: socket.socket | None = None  # the present attempt
        self.until = now  # when the next address is tried, if there is one
        self.problem = OSError(f"{place.host} has no address")  # of the last attempt

    def __repr__(self) -> str:
        return f"<Dial {self.socket!r}, {len(self._left)} addresses left>"

    @property
    def has_more(self) -> bool:
        """Whether there is another address to try."""
        return bool(self._left)

    def go_on(self, now: float) -> bool:
        """Try the next address, in place of the present one, which is closed. False: there is
        none, and ``problem`` is why."""
        self.close()
        while self._left:
            family, kind, protocol, _, where = self._left.pop(0)
            try:
                attempt = socket.socket(family, kind, protocol)
            except OSError as problem:  # a family that this machine does not speak
                self.problem = problem
                continue
            attempt.setblocking(False)
            code = attempt.connect_ex(where)
            if code in _UNDER_WAY:
                self.socket, self.until = attempt, now + self._share_s
                self.problem = TimeoutError("no connection in time")
                return True
            attempt.close()
            self.problem = OSError(code, os.strerror(code))
        return False

    def succeeded(self) -> bool:
        """Whether the attempt has, when its socket can be written to; then the socket is the
        caller's."""
        assert self.socket is not None
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.problem = OSError(code, os.strerror(code))
            return False
        tune(self.socket)
        return True

    def close(self) -> None:
        """Give the present attempt up."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
