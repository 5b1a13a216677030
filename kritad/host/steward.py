"""Brings the cluster to where the meta shard says it should be, a step at a time.

Every node has one; what it does depends on what the node leads:

* the meta shard's leader asks the planner which nodes should hold which shard
  and writes what may begin of it into the meta shard (compare-and-set on the
  placement's version), has damaged replicas made anew (cluster/healing.py), says who is
  dead (vigil.py), and evens out who leads how many shards;
* each shard's leader compares its own configuration with the placement, makes
  the next legal change, and reports the outcome to the meta shard; it carries out
  splits that were decided (splitting.py).

Rules:
* No copy is made where nobody answers, nor on a node that has no room on its disk or is
  about to stop. No copy that can be reached is given up unless
  every node that shall hold the shard afterwards can be reached (``is_safe``): while
  one of *them* is missing, the shard would be left with fewer copies than it has. A
  node that is missing elsewhere is nobody's business; one that was declared dead is not
  waited for, because the planner puts another in its place.
* Nothing is moved for the planner's sake, nor made anew, during an outage
  (cluster/liveness.py).
* What people have paused or held stays as it is, but for what a move that was taken
  back has left: learners that nobody wants are let go. The meta shard is never paused.
* A leader makes nobody a member before the meta shard has shown it a report of its own
  term: it knows then all that was wished before that, and what an earlier leader still says
  of older wishes does not count any more (cluster/meta_shards.py: ``report``). A node that
  nobody wants has LEFT on the word of the leader; the next one, whose view is older, would
  make a voter of it.
* A shard that is being copied keeps its leader: the next one would begin anew.
* Nothing is remembered between steps but what is in flight. The next step follows from
  the meta shard's state and the shard's own configuration alone, so a crash anywhere, of
  anybody, resumes at the same place (raft.md 4.5). A shard's own log decides its
  membership; the meta shard only ever holds the wish and the last report (raft.md 4.4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from krita.codec import encode_body
from krita.operations import Op
from kritad.buggify import buggify
from kritad.cluster.healing import rebuilds
from kritad.cluster.homes import Homing
from kritad.cluster.leaders import TRANSFERS_AT_ONCE, leader_transfers
from kritad.cluster.membership import wanted_members
from kritad.cluster.model import ShardRecord
from kritad.cluster.moves import admissible, moves
from kritad.cluster.planner import Placement, placements
from kritad.cluster.reconcile import next_change, successor
from kritad.cluster.view import MetaView
from kritad.host.bootstrap import META_SHARD
from kritad.host.clock import Clock
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.splitting import has_outgrown, propose_split, split_done_body
from kritad.host.vigil import Vigil
from kritad.raft.errors import ProposalRefused

log = logging.getLogger(__name__)

_TIMEOUT_MS = 5_000.0
# Leaders are moved for balance no more often than this: a transfer costs its
# shard a round trip without writes.
_SPREAD_INTERVAL_MS = 500.0
# A shard that is too large and may not be split now is asked about again.
_OUTGROWN_INTERVAL_MS = 60_000.0


def is_safe(view: MetaView, placement: Placement, present: Collection[int]) -> bool:
    """Whether a shard has, once it is placed so, no fewer copies within reach than now;
    see the module's rules. ``present`` are the nodes that can be counted on."""
    record = view.shards[placement.shard]
    after = set(placement.nodes)
    if any(node not in present for node in after - set(record.nodes)):
        return False
    holders = {*record.nodes, *record.report.voters}
    gives_up = any(node in present for node in holders - after)
    return not gives_up or all(node in present for node in after)


def may_add(record: ShardRecord, replica: Replica) -> bool:
    """Whether this leader may make others members; see the module's rules. Not asked of the
    meta shard: what is wished of that stands in its own log."""
    return record.shard == META_SHARD or record.report.term >= replica.raft.term


def lacks(record: ShardRecord, replica: Replica) -> bool:
    """Whether a replica is wanted that is no member, by this one's configuration."""
    members = replica.raft.configuration.members
    return any(wanted.replica not in members for wanted in record.replicas)


class Steward:
    """See the module's docstring. ``step`` is called a few times a second."""

    def __init__(
        self,
        replicas: Mapping[int, Replica],
        leaders: LeaderTable,
        clock: Clock,
        route: Callable[[Request], None],
        mark: Callable[[Replica], None],
        reachable: Callable[[], Collection[int]],
        leadable: Callable[[], Collection[int]],
        *,
        vigil: Vigil,
        damaged: Callable[[], Collection[tuple[int, int]]] = frozenset,
        homes: Callable[[], Mapping[int, int]] = dict,
        zones: Sequence[str] = (),
        shard_bytes_max: int = 0,
    ) -> None:
        self._replicas = replicas
        self._leaders = leaders
        self._clock = clock
        self._route = route
        self._mark = mark
        self._reachable = reachable
        self._leadable = leadable
        self._vigil = vigil
        self._damaged = damaged
        self._homes = homes
        self._zones = zones
        self._shard_bytes_max = shard_bytes_max
        self._split_asked_ms: dict[int, float] = {}  # by shard: of those that outgrow it
        self._in_flight: set[object] = set()
        self._spread_ms = 0.0
        self._homing = Homing()

    def step(self, view: MetaView) -> None:
        """Start whatever is next. Cost: a comparison a shard when all is well."""
        if not view.cluster_id or buggify("steward.idle"):
            return
        meta = self._replicas.get(META_SHARD)
        leads = meta is not None and meta.leads
        self._watch(view, leads)
        if leads:
            self._place(view)
            self._spread(view)
        for shard, replica in list(self._replicas.items()):
            record = view.shards.get(shard)
            if record is not None and replica.leads:
                self._reconcile(view, record, replica)
                self._report(record, replica)
                self._split(record, replica)

    def _watch(self, view: MetaView, leads: bool) -> None:
        for verdict in self._vigil.step(view, leads):
            body = encode_body(Op.META_NODE_DEAD, verdict.node, verdict.dead, verdict.boot_counter)
            self._propose(("dead", verdict.node), Op.META_NODE_DEAD, body)

    def _place(self, view: MetaView) -> None:
        if self._vigil.outage(view):
            return
        present = self._reachable()
        # Who takes no leadership is out of room on its disk, or about to stop.
        full = set(present) - set(self._leadable())
        for lost in rebuilds(view, self._damaged(), present, full):
            body = encode_body(Op.META_REBUILD, lost.shard, lost.expected_version, lost.replica)
            self._propose(("place", lost.shard), Op.META_REBUILD, body)
        wanted = [plan for plan in placements(view, full) if is_safe(view, plan, present)]
        for placement in admissible(view, wanted):
            body = encode_body(
                Op.META_PLACE,
                placement.shard,
                placement.expected_version,
                list(placement.nodes),
            )
            self._propose(("place", placement.shard), Op.META_PLACE, body)

    def _spread(self, view: MetaView) -> None:
        now = self._clock.monotonic_ms()
        if now - self._spread_ms < _SPREAD_INTERVAL_MS:
            return
        self._spread_ms = now
        leaders = {shard: node for shard, node, _ in self._leaders if node and shard in view.shards}
        copied = {move.shard for move in moves(view) if move.adding}
        homes = self._homing.look(self._homes(), leaders, now)
        transfers = leader_transfers(
            view,
            leaders,
            self._leadable(),
            zones=self._zones,
            limit=TRANSFERS_AT_ONCE + len(copied),
            damaged=self._damaged(),
            homes=homes,
        )
        may = [(shard, node) for shard, node in transfers if shard not in copied]
        for shard, node in may[:TRANSFERS_AT_ONCE]:
            if homes.get(shard) == node:
                log.info("shard %d: node %d is to lead it, where its requests come in", shard, node)
                self._homing.follow(shard, node, now)
            self._send(
                ("transfer", shard),
                Request(
                    op=Op.LEADER_TRANSFER,
                    body=encode_body(Op.LEADER_TRANSFER, shard, node),
                    key=str(node).encode(),
                    shard=shard,
                    respond=None,
                    deadline_ms=now + _SPREAD_INTERVAL_MS,
                ),
            )

    def _reconcile(self, view: MetaView, record: ShardRecord, replica: Replica) -> None:
        raft = replica.raft
        conf = raft.configuration
        if conf.joint or not raft.configuration_committed or raft.transferring:
            return
        wanted = wanted_members(view, record.shard)
        matches = {member: progress.match for member, progress in raft.progress.items()}
        reachable = self._sound(record, {**conf.nodes, **wanted.voters})
        heirs = {member: wanted.voters[member] for member in wanted.voters.keys() & reachable}
        heir = successor(heirs, conf, matches, replica.id)
        held = record.shard != META_SHARD and (view.paused or record.held)
        changes = next_change(
            wanted.voters,
            wanted.learners,
            conf,
            matches,
            raft.last_index,
            replica.id,
            reachable=reachable | {replica.id},
            held=held,
        )
        if any(change.replica not in conf.members for change in changes or ()):
            changes = changes if may_add(record, replica) else None
        if not changes and (not heir or held):
            return
        try:
            if heir and not held:
                raft.transfer(heir)
            elif changes:
                raft.propose_conf(changes, wanted.voters | wanted.learners, conf.version)
        except ProposalRefused:
            return  # not now; the next step will see the same difference
        self._mark(replica)

    def _sound(self, record: ShardRecord, members: Mapping[int, int]) -> set[int]:
        """Those of the members (replica -> node) whose nodes answer. One that is damaged
        neither leads nor counts, however well its node answers."""
        nodes = self._reachable()
        damaged = {replica for shard, replica in self._damaged() if shard == record.shard}
        return {member for member, node in members.items() if node in nodes} - damaged

    def _report(self, record: ShardRecord, replica: Replica) -> None:
        raft = replica.raft
        conf = raft.configuration
        if conf.joint or not raft.configuration_committed:
            return
        # Until then a later leader may yet bring back a configuration that this one lacks.
        if raft.log.commit < raft.term_start:
            return
        # Only a new configuration is news, or that an old wish will not be followed any
        # more, or that a new one will be; who leads in which term is told by other means
        # (host/leaders.py), without an entry in a log.
        awaited = lacks(record, replica) and not may_add(record, replica)
        if conf.version <= record.report.conf_version and not record.offered and not awaited:
            return
        members = [
            [member, conf.nodes[member], member in conf.voters] for member in sorted(conf.members)
        ]
        wish = record.placement_version
        body = encode_body(Op.META_REPORT, record.shard, conf.version, raft.term, members, wish)
        self._propose(("report", record.shard), Op.META_REPORT, body)

    def _split(self, record: ShardRecord, replica: Replica) -> None:
        """The next step of a split that was decided; and ask for one that is due."""
        if propose_split(replica, record, replica.stamp_ms(self._clock)):
            self._mark(replica)
        done = split_done_body(replica, record)
        if done is not None:
            self._propose(("split", record.shard), Op.META_SPLIT_DONE, done)
        now = self._clock.monotonic_ms()
        asked_ms = self._split_asked_ms.get(record.shard)
        if asked_ms is not None and now - asked_ms < _OUTGROWN_INTERVAL_MS:
            return
        if has_outgrown(replica, record, self._shard_bytes_max):
            self._split_asked_ms[record.shard] = now
            body = encode_body(Op.SHARD_SPLIT, record.shard)
            self._propose(("outgrown", record.shard), Op.SHARD_SPLIT, body)

    def _propose(self, tag: object, op: Op, body: bytes) -> None:
        self._send(
            tag,
            Request(
                op=op,
                body=body,
                key=b"",
                shard=META_SHARD,
                respond=None,
                deadline_ms=self._clock.monotonic_ms() + _TIMEOUT_MS,
                write=True,
            ),
        )

    def _send(self, tag: object, request: Request) -> None:
        """Route it unless the same is under way. Whatever comes of it shows in
        the state that the next step looks at, so the answer itself does not matter."""
        if tag in self._in_flight:
            return
        self._in_flight.add(tag)
        request.respond = lambda _status, _body: self._in_flight.discard(tag)
        self._route(request)
