"""A database of one shard that is the real thing from its door to its rows.

``StateService`` has kritad's own handlers, replica and state over a data.db in a folder of
its own; there is no log and no other node: what is proposed is applied at once. Its clock is
trio's, so a test with a MockClock turns it. ``before_write`` is called before each write.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import attrs
import trio

from krita.codec import encode_body
from krita.errors import KritaError, Status, to_wire
from krita.operations import OPERATIONS, Op
from krita.ring import ShardInfo, ShardMap
from kritad.access import Principal
from kritad.data_service import DataService
from kritad.gather import Gather
from kritad.host.replica import Replica
from kritad.host.request import Deadlines, Request
from kritad.raft.types import Entry, EntryKind, Role
from kritad.server.limits import ServerLimits
from tests.server.service import MemoryService, Running, running
from tests.state.shard import SHARD, Shard

VALUE_BYTES_MAX = 1 << 20
_BEGAN_MS = 1_795_000_000_000
_TICK_S = 0.05


class Clock:
    """Trio's clock, as the host has its own."""

    def monotonic_ms(self) -> float:
        return trio.current_time() * 1000

    def wall_ms(self) -> int:
        return _BEGAN_MS + int(trio.current_time() * 1000) % 1_000_000_000


@attrs.define
class Log:
    """What a replica asks of consensus: here it is always of one mind."""

    shard: int = SHARD
    replica: int = 7
    role: Role = Role.LEADER
    term: int = 1
    poisoned: str = ""
    told: int = 0
    told_commit: int = 0
    proposed: list[Entry] = attrs.field(factory=list)
    last_index: int = 0
    configuration: object = attrs.field(factory=lambda: SimpleNamespace(voters={7}))

    def propose(self, data: bytes) -> tuple[int, int]:
        self.last_index += 1
        self.proposed.append(Entry(self.last_index, 1, EntryKind.COMMAND, data))
        return self.last_index, 1

    def applied(self, index: int) -> None:
        assert index == self.last_index


class Host:
    """What the handlers ask of the host."""

    def __init__(self, shard: Shard) -> None:
        self.clock = Clock()
        self.chance = random.Random(1)
        self.deadlines = Deadlines()  # none is ever expired: all is answered at once
        self.log = Log()
        self.before_write: Callable[[], None] | None = None
        nothing = lambda *_: None  # noqa: E731
        self.replica = Replica(
            self.log,  # type: ignore[arg-type]
            shard.state,
            on_role=nothing,
            requeue=nothing,
            misplaced=nothing,
            on_split=nothing,
            on_damage=nothing,
            has_room=lambda: True,
            look_bytes=1 << 30,
        )
        self.replica.fresh_ms = None
        self.replicas = {SHARD: self.replica}
        self.view = SimpleNamespace(
            shards={SHARD: None}, data_shards=[SimpleNamespace(shard=SHARD)]
        )

    def shard_of(self, _key: bytes) -> int:
        return SHARD

    owner = shard_of

    def submit(self, request: Request) -> None:
        """As the router does, on the node that leads."""
        if request.write:
            if self.before_write is not None:
                self.before_write()
            self.replica.propose(request, self.clock.wall_ms())
            entry = self.log.proposed.pop()
            self.replica.apply([entry])
        elif request.op == Op.CHANGES and request.fields[0] is not None:
            self.replica.poll(request, self.clock.monotonic_ms())
        else:
            self.replica.answer_read(request, None)

    def tick(self) -> None:
        """Time has passed."""
        self.replica.end_polls(self.clock.monotonic_ms())
        if self.replica.state.keys.is_due(self.clock.wall_ms()):
            body = encode_body(Op.EXPIRE, SHARD)
            self.submit(Request(Op.EXPIRE, body, b"", SHARD, None, 0.0, write=True))


class StateService(MemoryService):
    """See the module's docstring."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.shard = Shard(path)
        self.host = Host(self.shard)
        host = self.host
        self._handlers = {
            **DataService(host, VALUE_BYTES_MAX).handlers,  # type: ignore[arg-type]
            **Gather(host, VALUE_BYTES_MAX).handlers,  # type: ignore[arg-type]
        }

    @property
    def index(self) -> int:
        return self.shard.state.index

    @property
    def polls(self) -> int:
        """How many wait for a change."""
        return self.host.replica.polls.count

    def submit(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        deadline_ms: float | None,
        flags: int,
        respond: Callable[[int, object], None],
    ) -> None:
        self.options = (deadline_ms, flags)
        try:
            if self.fail_with is not None:
                raise self.fail_with
            self.access.check(principal, OPERATIONS[op])
            if op == Op.SHARD_MAP:
                info = ShardInfo(SHARD, 0, 1 << 32, 1, 1, (1,))
                respond(Status.OK, ShardMap(1, (info,), {1: "127.0.0.1:8080"}).to_wire())
                return
            wait_ms = 5000.0 if deadline_ms is None else deadline_ms
            deadline = self.host.clock.monotonic_ms() + wait_ms
            self._handlers[op](Op(op), body, deadline, False, respond)
        except KritaError as error:
            respond(error.status, to_wire(error))


@asynccontextmanager
async def serving(
    folder: Path, limits: ServerLimits | None = None
) -> AsyncIterator[tuple[Running, StateService]]:
    """A server over such a database, whose time passes, while the block runs."""
    service = StateService(folder / "data.db")
    try:
        async with running(limits, service) as node, trio.open_nursery() as nursery:
            nursery.start_soon(_tick, service)
            yield node, service
            nursery.cancel_scope.cancel()
    finally:
        service.shard.close()


async def _tick(service: StateService) -> None:
    while True:
        await trio.sleep(_TICK_S)
        service.host.tick()
