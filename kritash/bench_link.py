"""One non-blocking socket of the load generator to one node.

Requests are queued by ``request`` and leave together at ``flush``: a system
call costs more than encoding ten requests.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket

from krita.address import parse
from krita.connection import Connection, Goodbye, Reply, SendData, State, Welcomed
from krita.errors import KritaError
from krita.hello import Hello
from kritash.bench_workload import Work

# Below the size from which malloc maps and unmaps memory for every call.
RECEIVE_BYTES = 64 << 10


class LinkClosed(Exception):
    """The connection is gone: refused, broken off, or of no more use.
    ``reason`` is set when the node itself said why."""

    def __init__(self, message: str, reason: KritaError | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Link:
    """States: connecting → handshake → open → closed. Every method that touches
    the socket raises LinkClosed, after which only ``close`` may be called."""

    def __init__(
        self, address: str, token: bytes | None, selector: selectors.BaseSelector, owner: object
    ) -> None:
        """Begins to connect; raises LinkClosed if even that is impossible."""
        self.address = address
        self.owner = owner
        self.node = 0  # known once open
        self.connection = Connection.client(Hello(token=token))
        # id: when it was issued, by perf_counter, and what it was.
        self.pending: dict[int, tuple[float, Work]] = {}
        self.waiting: list[tuple[float, Work, int]] = []  # until open: issued, work, flags
        self._out: list[bytes] = [self.connection.greeting()]
        self._selector = selector
        self._connected = False
        place = parse(address)
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM
            )[0]
            self.socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise LinkClosed(f"{address}: {error}") from error
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = self.socket.connect_ex(target)
        # EINPROGRESS is the normal answer; how it ends shows when it is writable.
        if failure not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise LinkClosed(f"{address}: {os.strerror(failure)}")
        self._interest = selectors.EVENT_READ | selectors.EVENT_WRITE
        selector.register(self.socket, self._interest, self)

    @property
    def is_open(self) -> bool:
        """Whether requests leave at once instead of waiting for the welcome."""
        return self.connection.state is State.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.socket.fileno() < 0

    def request(self, issued: float, work: Work, flags: int) -> None:
        """Queues a request; ``flush`` sends it."""
        if not self.is_open:
            self.waiting.append((issued, work, flags))
            return
        request_id, data = self.connection.request(work[1], work[2], None, flags)
        self.pending[request_id] = (issued, work)
        self._out.append(data)

    def flush(self) -> None:
        """Sends what is queued, as far as the socket takes it; the rest leaves
        when it is writable again."""
        if not self._connected or not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LinkClosed(f"{self.address}: {error}") from error
        if sent < len(data):
            self._out.append(data[sent:])
        self._watch(bool(self._out))

    def writable(self) -> None:
        """The socket can be written to: the first time, it has connected or failed."""
        if not self._connected:
            failure = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise LinkClosed(f"{self.address}: {os.strerror(failure)}")
            self._connected = True
        self.flush()
        self._watch(bool(self._out))

    def receive(self) -> list[Reply]:
        """Whatever replies have come; performs the handshake on the way."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkClosed(f"{self.address}: {error}") from error
        if not data:
            raise LinkClosed(f"{self.address} closed the connection")
        try:
            events = self.connection.receive_data(data)
        except KritaError as error:
            raise LinkClosed(f"{self.address}: {error}", error) from error
        # Open for long: nothing but replies, unless it says goodbye at the end.
        if self.node and events and type(events[-1]) is Reply:
            return events  # type: ignore[return-value]
        return [event for event in events if not self._handle(event)]  # type: ignore[misc]

    def _handle(self, event: object) -> bool:
        """Deals with what is no reply; False if it is one."""
        if isinstance(event, Reply):
            return False
        if isinstance(event, Goodbye):
            raise LinkClosed(f"{self.address}: {event.error}", event.error)
        if isinstance(event, SendData):
            self._out.append(event.data)
        elif isinstance(event, Welcomed):
            self._opened(event)
        return True

    def _opened(self, event: Welcomed) -> None:
        self.node = event.welcome.identity.node
        waiting, self.waiting = self.waiting, []
        for issued, work, flags in waiting:
            self.request(issued, work, flags)
        self.flush()

    def oldest(self) -> float | None:
        """When the oldest request that is still unanswered was issued."""
        # Dicts keep the order of insertion, and ids rise.
        for issued, _ in self.pending.values():
            return issued
        return self.waiting[0][0] if self.waiting else None

    def abandon(self) -> tuple[list[tuple[float, Work]], list[tuple[float, Work]]]:
        """Closes; returns the requests that may have been sent, and those that
        surely were not."""
        self.close()
        sent = list(self.pending.values())
        unsent = [(issued, work) for issued, work, _ in self.waiting]
        self.pending.clear()
        self.waiting.clear()
        return sent, unsent

    def close(self) -> None:
        """Idempotent."""
        if not self.is_closed:
            self._selector.unregister(self.socket)
            self.socket.close()

    def _watch(self, write: bool) -> None:
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if interest != self._interest:
            self._selector.modify(self.socket, interest, self)
            self._interest = interest

    def __repr__(self) -> str:
        state = self.connection.state.value
        return f"<Link {self.address} {state} pending={len(self.pending)} queued={len(self._out)}>"
