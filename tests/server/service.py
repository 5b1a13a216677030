"""A database in a dict, and what else the server's tests stand on.

``MemoryService`` has the shape of ``kritad.service.Service`` and does what it
does for get, put, delete and ping, at once by default. It can be told to hold its
replies (``hold``, ``release``), to fail (``fail_with``) or to have a bug (``bug``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from krita.codec import decode_body
from krita.errors import ConditionFailed, KritaError, Unsupported, to_wire
from krita.hello import Identity
from krita.operations import OPERATIONS, Op
from kritad.access import Access, Principal
from kritad.metrics import Metrics
from kritad.server.limits import ServerLimits
from kritad.server.listener import Server, bind

CLUSTER = bytes(range(16))
TOKEN = b"correct horse battery staple"


@attrs.define
class Health:
    live: bool = True
    ready: bool = True
    healthy: bool = True
    problems: list[str] = attrs.field(factory=list)


@attrs.define
class Stored:
    value: bytes
    revision: int
    content_type: str | None


class MemoryService:
    """One shard, one replica, one dict."""

    def __init__(self, access: Access | None = None) -> None:
        self.access = Access(TOKEN) if access is None else access
        self.identity = Identity(CLUSTER, 1, b"s" * 16, 1, "127.0.0.1:8080")
        self.metrics = Metrics()
        self.timeout_ms = 5000.0
        self.rows: dict[bytes, Stored] = {}
        self.revision = 0
        self.status = Health()
        self.delivered: list[tuple[Principal, int, bytes]] = []
        self.principals: list[Principal] = []
        self.submitted = 0
        self.options: tuple[float | None, int] = (None, 0)  # of the last request
        self.admitted: list[Identity] = []
        self.turn_away: KritaError | None = None
        self.fail_with: KritaError | None = None
        self.bug: Exception | None = None
        self.malformed_replies = False
        self.before_write: Callable[[], None] | None = None
        self._held: deque[Callable[[], None]] | None = None

    def health(self) -> Health:
        return self.status

    def admit_peer(self, identity: Identity) -> None:
        if self.turn_away is not None:
            raise self.turn_away
        self.admitted.append(identity)

    def deliver(self, principal: Principal, op: int, body: bytes) -> None:
        self.delivered.append((principal, op, body))

    def hold(self) -> None:
        """Answer nothing from now on, until ``release``."""
        if self._held is None:
            self._held = deque()

    def release(self) -> None:
        """Answer all that was held, and answer at once from now on."""
        held, self._held = self._held or deque(), None
        for answer in held:
            answer()

    def release_one(self) -> None:
        """Answer the oldest of what is held."""
        assert self._held
        self._held.popleft()()

    def take_held(self) -> list[Callable[[], None]]:
        """What was held, for the caller to answer; later requests are answered at once."""
        held, self._held = list(self._held or ()), None
        return held

    @property
    def held(self) -> int:
        return len(self._held or ())

    def submit(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        deadline_ms: float | None,
        flags: int,
        respond: Callable[[int, object], None],
    ) -> None:
        self.submitted += 1
        self.options = (deadline_ms, flags)
        if self.bug is not None:
            raise self.bug
        self.principals.append(principal)
        try:
            status, reply = 0, self._do(op, body, principal)
        except KritaError as error:
            status, reply = int(error.status), to_wire(error)
        if self._held is not None:
            self._held.append(lambda: respond(status, reply))
        else:
            respond(status, reply)

    def _do(self, op: int, body: bytes, principal: Principal) -> object:
        if op not in OPERATIONS:
            raise Unsupported(f"operation {op} is not known here")
        self.access.check(principal, OPERATIONS[op])
        if self.fail_with is not None:
            raise self.fail_with
        if self.malformed_replies:
            return ["nonsense"]
        fields = decode_body(op, body)
        match op:
            case Op.GET:
                return self._get(fields)
            case Op.PUT:
                return self._put(fields)
            case Op.DELETE:
                return self._delete(fields)
            case Op.PING:
                return [1, CLUSTER, "test", 0]
        raise Unsupported(f"{OPERATIONS[op].name} is not in this service")

    def _get(self, fields: list[object]) -> object:
        key, consistency, *_ = fields
        assert isinstance(key, bytes)
        staleness_ms = 7 if consistency else None
        row = self.rows.get(key)
        if row is None:
            return [None, 0, None, self.revision, staleness_ms]
        return [row.value, row.revision, row.content_type, self.revision, staleness_ms]

    def _check(self, key: bytes, if_revision: object) -> Stored | None:
        if self.before_write is not None:
            self.before_write()
        row = self.rows.get(key)
        at = 0 if row is None else row.revision
        if if_revision is not None and if_revision != at:
            raise ConditionFailed("the key has changed", detail={"revision": at})
        return row

    def _put(self, fields: list[object]) -> object:
        key, value, content_type, if_revision, *_ = fields[3:]
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        assert content_type is None or isinstance(content_type, str)
        existed = self._check(key, if_revision) is not None
        self.revision += 1
        self.rows[key] = Stored(value, self.revision, content_type)
        return [self.revision, existed]

    def _delete(self, fields: list[object]) -> object:
        key, if_revision, *_ = fields[3:]
        assert isinstance(key, bytes)
        existed = self._check(key, if_revision) is not None
        self.revision += 1
        self.rows.pop(key, None)
        return [self.revision, existed]


@attrs.define
class Running:
    """A server on a free port of the loopback interface."""

    service: MemoryService
    server: Server
    port: int

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def until_quiet(self) -> None:
        """Wait until the server has no connection left."""
        await until(lambda: self.server.connection_count == 0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, which it has to within 100 seconds."""
    for i in range(1000):
        if condition():
            return
        await trio.sleep(min(0.1, 0.001 * i))
    raise AssertionError("the condition did not come true")


@asynccontextmanager
async def running(
    limits: ServerLimits | None = None, service: MemoryService | None = None
) -> AsyncIterator[Running]:
    """A server that runs while the block does."""
    service = service or MemoryService()
    listening = bind("127.0.0.1", 0)
    server = Server(service, service.access, listening, limits or ServerLimits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield Running(service, server, listening[0].address[1])
        nursery.cancel_scope.cancel()
