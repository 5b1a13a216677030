"""What the tests of links and of the transport share."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from krita.codec import encode
from krita.errors import Unavailable, to_wire
from krita.framing import pack_frame
from krita.hello import Identity
from kritad.metrics import Metrics
from kritad.server.limits import ServerLimits
from kritad.server.listener import Server, bind
from tests.server.service import CLUSTER, MemoryService

US = Identity(CLUSTER, 2, b"u" * 16, 1, "127.0.0.1:1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.define
class Answers:
    """What became of requests."""

    all: list[tuple[int | None, object]] = attrs.field(factory=list)

    def __call__(self, status: int | None, body: object) -> None:
        self.all.append((status, body))


@asynccontextmanager
async def fixed_port(service: MemoryService, port: int) -> AsyncIterator[None]:
    service.metrics = Metrics()  # a server registers its own
    server = Server(service, service.access, bind("127.0.0.1", port), ServerLimits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield
        nursery.cancel_scope.cancel()


async def listen(handler: Callable[[trio.SocketStream], object], port: int) -> None:
    await trio.serve_tcp(handler, port, host="127.0.0.1")  # type: ignore[arg-type]


def goodbye() -> bytes:
    error = Unavailable("this node is stopping")
    return pack_frame(encode([0, int(error.status), to_wire(error)]))
