"""The database as a set of operations: the only door, for every server.

``submit`` never waits and never raises: it checks who asks, decodes what it has
to, and hands the request to the host; ``respond(status, body)`` comes exactly
once, now or later. That keeps a request at a few microseconds of our own; a
task or a scope for each would cost more than all the rest (design 14).

Rules:
* What is about keys is in data_service.py and gather.py, what is about the cluster here.
* A body is decoded for routing and forwarded, stored and replicated as the
  bytes that the client sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from krita.codec import decode_body, encode_body
from krita.connection import FLAG_FORWARDED
from krita.errors import (
    BadRequest,
    InternalError,
    KritaError,
    ProtocolError,
    Status,
    Unavailable,
    Unsupported,
    to_wire,
)
from krita.hello import Identity
from krita.limits import TXN_OPERATIONS_MAX
from krita.operations import OPERATIONS, Op
from kritad import __version__
from kritad.access import PEER, Access, Principal
from kritad.admin.status import Status as ClusterStatus
from kritad.cluster.model import NodeState
from kritad.data_service import DataService
from kritad.gather import Gather
from kritad.host.admission import lost_advice, same_place
from kritad.host.bootstrap import META_SHARD, parse_join
from kritad.host.host import Host
from kritad.host.ownership import no_map_yet
from kritad.host.request import Request, Respond
from kritad.host.snapshots import SnapshotReceiver
from kritad.metrics import Metrics, Series
from kritad.state.reading import SCAN_ROWS_MAX
from kritad.trail import Trail

log = logging.getLogger(__name__)

# No request is remembered for longer, whatever its client asks for.
_DEADLINE_MS_MAX = 60_000.0

_Handler = Callable[[Op, bytes, float, bool, Respond], None]


@attrs.frozen
class Health:
    """What /health, /livez and /readyz answer from."""

    healthy: bool
    ready: bool
    live: bool
    problems: list[str]
    # Whether it does its part; one that is being drained does, and yet is not ready for
    # more. Who has started it needs to know only this.
    serving: bool = False


class Service:
    """See the module's docstring."""

    def __init__(
        self,
        host: Host,
        access: Access,
        metrics: Metrics,
        nursery: trio.Nursery,
        *,
        receiver: SnapshotReceiver,
        value_bytes_max: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
        txn_operations_max: int = TXN_OPERATIONS_MAX,
        request_timeout_ms: int,
    ) -> None:
        self.metrics = metrics
        self.stopping = False
        self._host = host
        self._access = access
        self.timeout_ms = float(request_timeout_ms)
        self._status = ClusterStatus(host, nursery)
        seconds = metrics.command_seconds
        self._series: dict[int, tuple[str, Series]] = {
            row.code: (row.name, seconds.labels(row.name)) for row in OPERATIONS.values()
        }
        self._unknown_series = ("unknown", seconds.labels("unknown"))
        self._handlers: dict[int, _Handler] = {
            **DataService(host, value_bytes_max, txn_operations_max).handlers,
            **Gather(host, value_bytes_max, scan_rows_max).handlers,
            Op.PING: self._ping,
            Op.SHARD_MAP: self._shard_map,
            Op.CLUSTER_STATUS: self._report,
            Op.NODE_STATUS: self._report,
            Op.NODE_LIST: self._report,
            Op.SHARD_LIST: self._report,
            Op.MOVE_LIST: self._report,
            Op.NODE_PLAN: self._report,
            Op.LEADER_TRANSFER: self._transfer,
            Op.NODE_JOIN: self._join,
            Op.NODE_ANNOUNCE: self._announce,
            Op.SNAPSHOT_OPEN: lambda _op, body, _ms, _fwd, respond: receiver.open(body, respond),
            Op.SNAPSHOT_CHUNK: lambda _op, body, _ms, _fwd, respond: receiver.chunk(body, respond),
            Op.META_NODE_ADD: self._meta,
            Op.META_NODE_ANNOUNCE: self._meta,
            Op.META_PLACE: self._meta,
            Op.META_REPORT: self._meta,
            Op.META_NODE_DEAD: self._meta,
            Op.META_SPLIT_DONE: self._meta,
            Op.META_REBUILD: self._meta,
            Op.NODE_SET: self._meta,
            Op.NODE_LABEL: self._meta,
            Op.SHARD_SPLIT: self._meta,
            Op.SHARD_MOVE: self._meta,
            Op.SHARD_HOLD: self._meta,
            Op.MOVE_CANCEL: self._meta,
        }

    @property
    def identity(self) -> Identity:
        """Who this node is, for a connection's welcome."""
        return self._host.identity

    def submit(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        deadline_ms: float | None,
        flags: int,
        respond: Respond,
    ) -> None:
        """Do one request; see the module's docstring and ``server/interface.py``."""
        started_ms = self._host.clock.monotonic_ms()
        if principal.kind != PEER:  # what a node forwards, it has counted itself
            respond = self._measured(op, started_ms, respond)
        try:
            handler = self._handlers.get(op)
            if handler is None:
                raise Unsupported(f"operation {op} is not known to this version of Krita")
            operation = OPERATIONS[op]
            self._access.check(principal, operation)
            if self.stopping:
                raise Unavailable("this node is stopping", hint="ask another node")
            wait_ms = self.timeout_ms if deadline_ms is None else deadline_ms
            deadline = started_ms + min(wait_ms, _DEADLINE_MS_MAX)
            handler(operation.code, body, deadline, bool(flags & FLAG_FORWARDED), respond)
        except KritaError as error:
            respond(error.status, to_wire(error))
        except Exception as bug:
            # One request must not end the server for all others. Where it
            # failed is known to the log only: it may hold a client's data.
            log.exception("operation %d failed: please report this", op)
            internal = InternalError(f"a bug in Krita: {type(bug).__name__}", hint="see the log")
            respond(internal.status, to_wire(internal))

    def _measured(self, op: int, started_ms: float, respond: Respond) -> Respond:
        clock, commands = self._host.clock, self.metrics.commands
        name, series = self._series.get(op) or self._unknown_series

        trail = respond if isinstance(respond, Trail) else None
        answer = respond if trail is None else trail.respond

        def measured(status: int, body: object) -> None:
            series.observe((clock.monotonic_ms() - started_ms) / 1000.0)
            commands.inc(name, _STATUS_NAMES.get(status, "unknown"))
            answer(status, body)

        if trail is None:
            return measured
        trail.respond = measured  # the host looks for the trail itself
        return trail

    async def call(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        deadline_ms: float | None = None,
        flags: int = 0,
    ) -> tuple[int, object]:
        """``submit`` for callers that wait. Cost: an event, some 20 µs."""
        done = trio.Event()
        answer: list[tuple[int, object]] = []

        def respond(status: int, reply: object) -> None:
            answer.append((status, reply))
            done.set()

        self.submit(op, body, principal, deadline_ms, flags, respond)
        await done.wait()
        return answer[0]

    def admit_peer(self, identity: Identity) -> None:
        """Another node has connected. Raises Foreign for another cluster, a known
        node on another disk, or a disk that was rolled back (design 4)."""
        self._host.admit_peer(identity)

    def deliver(self, principal: Principal, op: int, body: bytes) -> None:
        """A one-way frame from another node."""
        if principal.kind != PEER:
            raise ProtocolError("one-way frames are for the cluster's own nodes")
        self._host.deliver(principal.node, op, body)

    def health(self) -> Health:
        """From memory, cheap enough to be asked every second by everybody."""
        problems = self._status.own_problems()
        live = self._host.failure is None
        if not live:
            problems.insert(0, f"the node has failed: {self._host.failure}")
        if self.stopping:
            problems.insert(0, "the node is stopping")
        healthy = not problems
        serving = live and not self.stopping and self._status.serves()
        leaving = self._status.leaving()
        if leaving:  # that is as people want it, so no illness
            problems.insert(0, leaving)
        return Health(healthy, serving and not leaving, live, problems, serving)

    # --- the cluster -------------------------------------------------------------------

    def _ping(self, _op: Op, _body: bytes, _deadline: float, _fwd: bool, respond: Respond) -> None:
        identity = self._host.identity
        clock_ms = self._host.clock.wall_ms()
        respond(Status.OK, [identity.node, identity.cluster_id, __version__, clock_ms])

    def _shard_map(
        self, _op: Op, _body: bytes, _deadline: float, _fwd: bool, respond: Respond
    ) -> None:
        shard_map = self._host.build_shard_map()
        if shard_map is None:
            raise no_map_yet()
        respond(Status.OK, shard_map.to_wire())

    def _report(self, op: Op, body: bytes, _deadline: float, _fwd: bool, respond: Respond) -> None:
        self._status.answer(op, body, respond)

    def _transfer(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        shard, node = decode_body(op, body)
        if type(shard) is not int or shard not in self._host.view.shards:
            raise BadRequest(f"there is no shard {shard!r}", hint="see `kritash shard list`")
        if type(node) is not int or node not in self._host.view.nodes:
            raise BadRequest(f"there is no node {node!r}", hint="see `kritash node list`")
        key = str(node).encode()
        self._host.submit(Request(op, body, key, shard, respond, deadline_ms, forwarded))

    def _join(
        self, _op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        store_uuid, address, zone = parse_join(body)

        def added(status: int, reply: object) -> None:
            match reply:
                case [int(node), int(meta_replica), *_] if status == Status.OK:
                    host = self._host
                    lost = same_place(host.view, address, host.transport.reachable(), node)
                    if lost:
                        log.warning("node %d joins: %s", node, lost_advice(lost, address))
                    nodes = host.view.nodes.values()
                    members = [[n.node, n.address] for n in nodes if n.state is not NodeState.LEFT]
                    respond(Status.OK, [host.identity.cluster_id, node, meta_replica, members])
                case _:
                    respond(status, reply)

        self._propose_meta(
            Op.META_NODE_ADD,
            encode_body(Op.META_NODE_ADD, store_uuid, address, zone),
            deadline_ms,
            False,
            added,
        )

    def _announce(
        self, _op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        self._propose_meta(Op.META_NODE_ANNOUNCE, body, deadline_ms, forwarded, respond)

    def _meta(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        self._propose_meta(op, body, deadline_ms, forwarded, respond)

    def _propose_meta(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        self._host.submit(
            Request(op, body, b"", META_SHARD, respond, deadline_ms, forwarded, write=True)
        )


_STATUS_NAMES = {int(status): status.name.lower() for status in Status}
