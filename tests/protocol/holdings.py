"""What the nodes of the tests' cluster hold: real states of shards, behind the real door.

No log and no replicas: what is written is applied at once, to a state that all nodes share. So
what a client is answered is what kritad answers, and nothing of it is written twice. The
shards' clock stands still unless a test moves it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from krita.codec import decode, encode_body
from krita.errors import Unsupported, WrongShard
from krita.operations import Op
from krita.request import IN_SESSION
from kritad.data_service import DataService
from kritad.gather import Gather
from kritad.host.host import Host
from kritad.host.polls import Polls
from kritad.host.replica import Replica
from kritad.host.request import Deadlines, Request, Respond
from kritad.raft.configuration import decode_configuration
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.feed import Feed
from kritad.state.machine import ShardState
from kritad.state.results import Result
from kritad.state.sessions import SESSION_TTL_MS
from tests.state.shard import Shard

Arc = tuple[int, int]
START_MS = 1_700_000_000_000
DEADLINE_MS = 5_000.0  # of requests that bring none
_POLL_S = 0.005  # how late a poll may be answered
VALUE_BYTES_MAX = 1 << 20


class Held(Replica):
    """A replica without a log: it leads, and has applied all that there is."""

    def __init__(self, state: ShardState) -> None:
        self.state = state
        self.shard = state.shard
        self.polls = Polls()
        self._misplaced = lambda request: request.fail(WrongShard("it was split"))

    def __repr__(self) -> str:
        return f"<Held {self.state!r}>"

    @property
    def leads(self) -> bool:
        return True

    def staleness_ms(self, clock: object) -> int | None:  # noqa: ARG002 - it is never stale
        return 0

    def command(self, clock_ms: int, op: int, body: bytes) -> Result:
        """Apply it, and wake whoever waits for what it changes."""
        before = self.state.index
        data = pack_command(clock_ms, op, body)
        result = self.state.apply(Entry(before + 1, 1, EntryKind.COMMAND, data))
        if self.polls.count:
            self._wake_polls(before)
        return result


class Holdings:
    """See the module. Used on the cluster's thread alone.

    ``lead_check`` (node, shard, forwarded) raises NotLeader; ``executed`` counts writes by
    shard, session and sequence.
    """

    def __init__(
        self,
        arcs: Sequence[Arc],
        lead_check: Callable[[int, int, bool], None],
        executed: Counter[tuple[int, int, int]],
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="krita-test-"))
        self._shards = [
            Shard(self._folder / f"{number}.db", number, arc=arc)
            for number, arc in enumerate(arcs, 1)
        ]
        self.replicas = {shard.shard: Held(shard.state) for shard in self._shards}
        self._lead_check, self._executed = lead_check, executed
        self._asked = 0  # the node that is asked just now
        self._clock_ms = START_MS
        # What the door asks of a host.
        self.node = 0
        self.clock = self
        self.deadlines = Deadlines()
        self.chance = random.Random(1)
        host = cast("Host", self)
        self._handlers = {
            **DataService(host, VALUE_BYTES_MAX).handlers,
            **Gather(host, VALUE_BYTES_MAX).handlers,
        }

    def close(self) -> None:
        """Idempotent."""
        for shard in self._shards:
            shard.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def arcs(self) -> dict[int, Arc]:
        """Of each shard."""
        found = {n: held.state.extent.arc for n, held in self.replicas.items()}
        return dict(sorted(found.items()))

    # What a test does

    def advance(self, milliseconds: int) -> None:
        """Let the shards' clock go on; what is due ends."""
        self._clock_ms += milliseconds
        for held in self.replicas.values():
            held.command(self._clock_ms, Op.EXPIRE, encode_body(Op.EXPIRE, held.shard))

    def expire_sessions(self) -> None:
        """All of them, with the next write."""
        self._clock_ms += SESSION_TTL_MS + 1

    def split(self, shard: int, shard_new: int) -> None:
        """Cut a shard in the middle of its arc."""
        held = self.replicas[shard]
        lo, hi = held.state.extent.arc
        group = decode_configuration(held.state._configuration)
        replicas = [[old, 10 * shard_new + node, node] for old, node in group.nodes.items()]
        version = group.version or 1
        body = encode_body(Op.SPLIT, shard, shard_new, (lo + hi) // 2, version, replicas)
        result = held.command(self._clock_ms, Op.SPLIT, body)
        assert result.ok, result
        offspring = held.state.take_offspring()
        assert offspring is not None
        self.replicas[shard_new] = Held(offspring.state)

    def forget_changes(self) -> None:
        """Let the feeds begin anew."""
        for held in self.replicas.values():
            held.state._keyspace.feed = Feed(held.state.index)

    # What the cluster does

    def wait_s(self) -> float | None:
        """How long it may sleep."""
        return _POLL_S if any(held.polls.count for held in self.replicas.values()) else None

    def end_polls(self) -> None:
        """Answer those that have waited for their time."""
        for held in self.replicas.values():
            held.end_polls(self.monotonic_ms())

    def submit_at(
        self,
        node: int,
        op: int,
        body: bytes,
        deadline_ms: float | None,
        forwarded: bool,
        respond: Respond,
    ) -> None:
        """A request that a node has got. Raises KritaError."""
        handler = self._handlers.get(op)
        if handler is None:
            raise Unsupported(f"the test cluster does not know {op}")
        self._asked = node
        wait_ms = DEADLINE_MS if deadline_ms is None else deadline_ms
        handler(Op(op), body, self.monotonic_ms() + wait_ms, forwarded, respond)

    # What the door asks of a host

    @property
    def view(self) -> Any:
        """The shards, as the meta shard would tell them."""
        records = [SimpleNamespace(shard=number) for number in self.replicas]
        return SimpleNamespace(shards=self.replicas, data_shards=records)

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000.0

    def wall_ms(self) -> int:
        return self._clock_ms

    def shard_of(self, key: bytes) -> int:
        return next(n for n, held in self.replicas.items() if held.state.owns(key))

    owner = shard_of  # the shards are always known here

    def submit(self, request: Request) -> None:
        """Serve it now. Raises NotLeader."""
        self._lead_check(self._asked, request.shard, request.forwarded)
        held = self.replicas[request.shard]
        if request.write:
            self._write(held, request)
        elif request.op == Op.CHANGES and request.fields[0] is not None:
            held.poll(request, self.monotonic_ms())
        else:
            held.answer_read(request, None)

    def _write(self, held: Held, request: Request) -> None:
        fields = cast("list[Any]", decode(request.body))
        new = request.op in IN_SESSION and _is_new(held.state, fields)
        result = held.command(self._clock_ms, request.op, request.body)
        if new:
            session, sequence = fields[:2]
            self._executed[request.shard, session, sequence] += 1
        request.answer(result.status, result.body)


def _is_new(state: ShardState, fields: list[Any]) -> bool:
    """Whether a write will be executed, and not answered as it was before."""
    session, sequence = fields[:2]
    if not session:
        return True
    known = state._sessions._sessions.get(session)
    return known is not None and sequence > known.acked_to and sequence not in known.replies
