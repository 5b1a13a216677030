"""The database as a set of operations: the only door, for every server.

``submit`` never waits and never raises: it checks who asks, decodes what it has
to, and hands the request to the host; ``respond(status, body)`` comes exactly
once, now or later. That keeps a request at a few microseconds of our own; a
task or a scope for each would cost more than all the rest (design 14).

Rules:
* Limits are checked here, before anything is appended: what is in a log has a
  result on every replica (state/machine.py), whatever the limits are by then.
* A body is decoded for routing and forwarded, stored and replicated as the
  bytes that the client sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

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
    TooLarge,
    Unavailable,
    Unsupported,
    to_wire,
)
from krita.handshake import Identity
from krita.limits import KEY_BYTES_MAX
from krita.operations import OPERATIONS, Consistency, Op
from kritad import __version__
from kritad.access import PEER, Access, Principal
from kritad.admin.status import Status as ClusterStatus
from kritad.cluster.model import SHARDS_MAX, NodeState
from kritad.host.admission import lost_advice, same_place
from kritad.host.bootstrap import META_SHARD, parse_join
from kritad.host.host import Host
from kritad.host.nearest import nearest_voter
from kritad.host.request import Request, Respond
from kritad.host.snapshots import SnapshotReceiver
from kritad.metrics import Metrics, Series

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
        request_timeout_ms: int,
    ) -> None:
        self.metrics = metrics
        self.stopping = False
        self._host = host
        self._access = access
        self._value_bytes_max = value_bytes_max
        self._timeout_ms = float(request_timeout_ms)
        self._status = ClusterStatus(host, nursery)
        seconds = metrics.command_seconds
        self._series: dict[int, tuple[str, Series]] = {
            row.code: (row.name, seconds.labels(row.name)) for row in OPERATIONS.values()
        }
        self._unknown_series = ("unknown", seconds.labels("unknown"))
        self._handlers: dict[int, _Handler] = {
            Op.GET: self._get,
            Op.PUT: self._put,
            Op.DELETE: self._delete,
            Op.SESSION_OPEN: self._session,
            Op.SESSION_KEEPALIVE: self._session,
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
            wait_ms = self._timeout_ms if deadline_ms is None else deadline_ms
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

        def measured(status: int, body: object) -> None:
            series.observe((clock.monotonic_ms() - started_ms) / 1000.0)
            commands.inc(name, _STATUS_NAMES.get(status, "unknown"))
            respond(status, body)

        return measured

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

    # --- data --------------------------------------------------------------------------

    def _shard_of(self, key: Any) -> int:
        if type(key) is not bytes or not key:
            raise BadRequest("a key is a byte string of at least one byte")
        if len(key) > KEY_BYTES_MAX:
            raise TooLarge(f"the key has {len(key)} bytes, a key has at most {KEY_BYTES_MAX}")
        # Not by the map alone: it may lack a split that this node has been through.
        shard = self._host.shard_of(key)
        if shard is None:
            raise Unavailable("this node does not know the cluster's shards yet", hint="try again")
        return shard

    def _get(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        key, consistency = decode_body(op, body)
        request = Request(op, body, key, self._shard_of(key), respond, deadline_ms, forwarded)  # type: ignore[arg-type]
        if consistency == Consistency.STALE:
            replica = self._host.replicas.get(request.shard)
            staleness_ms = None if replica is None else replica.staleness_ms(self._host.clock)
            # One that is not filled yet, or was split, may not have the key.
            if replica is not None and staleness_ms is not None and replica.state.owns(request.key):
                replica.answer_read(request, staleness_ms)
                return
            if not forwarded:
                request.nearest = self._nearest(request.shard)
        elif consistency not in (None, Consistency.LINEARIZABLE):
            raise BadRequest(f"consistency {consistency!r} is not known; 0 linearizable, 1 stale")
        self._host.submit(request)

    def _nearest(self, shard: int) -> int:
        host = self._host
        leader, _ = host.leaders.of(shard)
        return nearest_voter(host.view, shard, host.node, host.transport.reachable(), leader)

    def _put(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        fields = decode_body(op, body)
        key, value = fields[3], fields[4]
        shard = self._shard_of(key)
        if type(value) is not bytes:
            raise BadRequest("a value is a byte string")
        if len(value) > self._value_bytes_max:
            raise TooLarge(
                f"the value has {len(value)} bytes, this cluster takes {self._value_bytes_max}",
                hint="raise value_bytes_max on every node",
            )
        self._write(op, body, key, shard, deadline_ms, forwarded, respond)

    def _delete(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        key = decode_body(op, body)[3]
        self._write(op, body, key, self._shard_of(key), deadline_ms, forwarded, respond)

    def _write(
        self,
        op: Op,
        body: bytes,
        key: Any,
        shard: int,
        deadline_ms: float,
        forwarded: bool,
        respond: Respond,
    ) -> None:
        self._host.submit(
            Request(op, body, key, shard, respond, deadline_ms, forwarded, write=True)
        )

    def _session(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        shard = decode_body(op, body)[0]
        if type(shard) is not int or not META_SHARD < shard <= SHARDS_MAX:
            raise BadRequest(f"there is no data shard {shard!r}")
        if shard not in self._host.view.shards and shard not in self._host.replicas:
            # Shards get their numbers in order and for ever, so this one may be new.
            raise Unavailable(f"this node knows no shard {shard} yet", hint="ask another node")
        self._write(op, body, b"", shard, deadline_ms, forwarded, respond)

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
            raise Unavailable("this node does not know the cluster's shards yet", hint="try again")
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
        self._write(op, body, b"", META_SHARD, deadline_ms, forwarded, respond)


_STATUS_NAMES = {int(status): status.name.lower() for status in Status}
