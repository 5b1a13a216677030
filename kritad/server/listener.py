"""The one port: accept connections, tell the two protocols apart, survive them.

The first byte decides: 0x00 begins Krita's binary hello, 0x16 a TLS handshake
(closed: this port speaks no TLS), anything else is taken for HTTP.

Rules:
* Nothing that one connection does ends the server. An exception out of a handler
  is a bug: logged under a trace id, counted, and that connection is closed.
* Running out of descriptors (EMFILE) is survived: wait and go on accepting.
* There are at most ``connections_max`` clients; ``connections_reserved`` more are
  let in for as long as it takes to see whether they are nodes.
* A connection has ``first_head_s`` to say enough to be answered.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
from collections.abc import Sequence
from typing import Protocol

import trio

from kritad.server.cbor_server import CborConnection, CborServer
from kritad.server.http_answers import overloaded
from kritad.server.http_server import HttpServer
from kritad.server.interface import Database, Gatekeeper
from kritad.server.limits import ServerLimits
from kritad.server.watchdog import Watchdog, Watched
from kritad.stream import Listening, SocketListening, Stream

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPTS_MAX = 64  # in a row, before others get their turn
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S = 0.1
_LINGER_BYTES_MAX = 4 << 20

_FIRST_CBOR = b"\x00"
_FIRST_TLS = b"\x16"


def bind(host: str, port: int) -> list[SocketListening]:
    """Listening sockets for every address that ``host`` means; port 0 picks a free
    one, the same for all. Raises OSError, with the address in its message."""
    sockets: list[SocketListening] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            if port == 0 and sockets:
                address = (address[0], sockets[0].address[1], *address[2:])
            sockets.append(SocketListening(_bind_one(family, kind, protocol, address)))
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _bind_one(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        hint = _BIND_HINTS.get(error.errno or 0, "")
        raise OSError(
            error.errno, f"cannot listen on {address[0]} port {address[1]}: {error.strerror}{hint}"
        ) from error
    return listening


_BIND_HINTS = {
    errno.EADDRINUSE: "; is another kritad running there? choose another with --port",
    errno.EADDRNOTAVAIL: "; --listen_ip must be an address of this machine",
    errno.EACCES: "; ports below 1024 need privileges, choose another with --port",
}


class _Handler(Protocol):
    """What HttpConnection and CborConnection have in common."""

    async def run(self, data: bytes) -> None: ...
    def drain(self) -> None: ...
    def farewell(self) -> bytes: ...


class Server:
    """All connections of one node. ``run`` it; ``drain`` it before it is cancelled."""

    def __init__(
        self,
        database: Database,
        gatekeeper: Gatekeeper,
        listening: Sequence[Listening],
        limits: ServerLimits,
    ) -> None:
        """Takes over what ``bind`` gave: ``run`` closes it."""
        self.limits = limits
        self._listening = list(listening)
        self._http = HttpServer(database, gatekeeper, limits)
        self._cbor = CborServer(database, gatekeeper, limits)
        metrics = database.metrics
        self._watchdog = Watchdog(metrics.loop_lag_seconds.labels())
        self._handlers: dict[Stream, _Handler | None] = {}  # None: no byte has come yet
        self._draining = False
        self._accepting = trio.CancelScope()
        self._empty = trio.Event()
        self._accepted = metrics.counter("krita_connections_accepted_total", "Connections accepted")
        self._turned_away = metrics.counter(
            "krita_connections_refused_total", "Connections turned away", ("reason",)
        )
        self._failures = metrics.counter(
            "krita_connection_failures_total", "Connections ended by a bug; the log has a trace"
        )
        metrics.gauge("krita_connections", "Open connections", self._count, ("protocol",))

    def __repr__(self) -> str:
        return f"<Server on {self.addresses}, {len(self._handlers)} connections>"

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port."""
        return [listening.address for listening in self._listening]

    @property
    def bodies_left(self) -> int:
        """How many bytes more of large HTTP bodies are taken, before some of them are whole."""
        return self._http.bodies.left

    @property
    def connection_count(self) -> int:
        """How many connections are open, of any kind."""
        return len(self._handlers)

    async def run(self) -> None:
        """Serve until cancelled, or drained."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watchdog.run)
            async with trio.open_nursery() as connections:
                try:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for listening in self._listening:
                                accepting.start_soon(self._accept, listening, connections)
                finally:
                    # Also before the last connection has gone: who comes is to go elsewhere
                    # at once, and not to wait in a queue that nobody serves.
                    for listening in self._listening:
                        listening.close()
            nursery.cancel_scope.cancel()  # drained: nobody is left to watch

    async def drain(self, grace_s: float) -> None:
        """Accept no more, let every connection finish what it is at, and return when
        all have gone, or after ``grace_s``. ``run`` then returns by itself, or is to
        be cancelled."""
        self._draining = True
        self._accepting.cancel()
        for stream, handler in list(self._handlers.items()):
            if handler is None:
                stream.finish()
            else:
                handler.drain()
        with trio.move_on_after(grace_s):
            while self._handlers:
                self._empty = trio.Event()
                await self._empty.wait()

    async def _accept(self, listening: Listening, connections: trio.Nursery) -> None:
        while True:
            await listening.wait()
            try:
                for _ in range(_ACCEPTS_MAX):
                    self._admit(listening.accept(), connections)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # ECONNABORTED and its like: that client has gone again
                self._turned_away.inc("descriptors")
                _log.warning("cannot accept a connection: %s; trying again", error)
                await trio.sleep(_EXHAUSTED_PAUSE_S)

    def _admit(self, stream: Stream, connections: trio.Nursery) -> None:
        if len(self._handlers) >= self.limits.connections_all_max:
            self._turned_away.inc("connections_max")
            stream.close()
            return
        self._handlers[stream] = None
        self._accepted.inc()
        connections.start_soon(self._serve, stream)

    async def _serve(self, stream: Stream) -> None:
        """One connection from beginning to end. Raises nothing but Cancelled."""
        watched = self._watchdog.watch()
        watched.expect("head", self.limits.first_head_s)
        try:
            with watched.scope:
                await self._converse(stream, watched)
            await self._part(stream, watched)
        except OSError:
            pass  # the connection broke, which is the other side's right
        except Exception as error:
            self._failures.inc()
            trace = secrets.token_hex(4)
            _log.error("a connection ended by a bug (trace %s): %r", trace, stream, exc_info=error)
        finally:
            self._watchdog.forget(watched)
            del self._handlers[stream]
            stream.close()
            if not self._handlers:
                self._empty.set()

    async def _converse(self, stream: Stream, watched: Watched) -> None:
        data = await stream.receive()
        if not data:
            return
        crowded = len(self._handlers) > self.limits.connections_max
        handler: _Handler
        if data.startswith(_FIRST_CBOR):
            handler = self._cbor.connection(stream, watched, crowded=crowded)
        elif data.startswith(_FIRST_TLS):
            self._turned_away.inc("tls")
            return
        elif crowded:
            self._turned_away.inc("connections_max")
            stream.send_now(overloaded())
            return
        else:
            handler = self._http.connection(stream, watched)
        self._handlers[stream] = handler
        if self._draining:
            handler.drain()
        await handler.run(data)

    async def _part(self, stream: Stream, watched: Watched) -> None:
        """Say why, if there is a reason, and close so that the last words arrive: a
        socket closed with unread bytes in it resets the connection, and the reset
        may overtake them."""
        handler = self._handlers[stream]
        words = handler.farewell() if handler is not None else b""
        if words:
            stream.send_now(words)
        stream.finish()
        if watched.reason and not words:
            return  # late, and nothing to be read by it
        watched.scope = trio.CancelScope()
        watched.expect("end", self.limits.linger_s)
        with watched.scope:
            for _ in range(_LINGER_BYTES_MAX >> 16):
                if not await stream.receive():
                    return

    def _count(self) -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {("cbor",): 0.0, ("http",): 0.0, ("none",): 0.0}
        for handler in self._handlers.values():
            protocol = "none"
            if handler is not None:
                protocol = "cbor" if isinstance(handler, CborConnection) else "http"
            counts[(protocol,)] += 1
        return counts
