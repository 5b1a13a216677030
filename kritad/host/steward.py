"""Brings the cluster to where the meta shard says it should be, a step at a time.

Every node has one; what it does depends on what the node leads:

* the meta shard's leader asks the planner which nodes should hold which shard
  and writes that into the meta shard (compare-and-set on the placement's
  version), and evens out who leads how many shards;
* each shard's leader compares its own configuration with the placement, makes
  the next legal change, and reports the outcome to the meta shard.

Rules: no copy is made where nobody answers, and no copy that can be reached is given
up while a member of the cluster cannot be: what looks like balance would make the
data less safe. And nothing is remembered between steps but what is in flight. The next step
follows from the meta shard's state and the shard's own configuration alone, so
a crash anywhere, of anybody, resumes at the same place (raft.md 4.5). A shard's
own log decides its membership; the meta shard only ever holds the wish and the
last report (raft.md 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from krita.codec import encode_body
from krita.operations import Op
from kritad.buggify import buggify
from kritad.cluster.leaders import leader_transfers
from kritad.cluster.membership import wanted_members
from kritad.cluster.model import ShardRecord
from kritad.cluster.planner import placements
from kritad.cluster.reconcile import next_change, successor
from kritad.cluster.view import MetaView
from kritad.host.bootstrap import META_SHARD
from kritad.host.clock import Clock
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.errors import ProposalRefused

_TIMEOUT_MS = 5_000.0
# Leaders are moved for balance no more often than this: a transfer costs its
# shard a round trip without writes.
_SPREAD_INTERVAL_MS = 500.0


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
    ) -> None:
        self._replicas = replicas
        self._leaders = leaders
        self._clock = clock
        self._route = route
        self._mark = mark
        self._reachable = reachable
        self._leadable = leadable
        self._in_flight: set[object] = set()
        self._spread_ms = 0.0

    def step(self, view: MetaView) -> None:
        """Start whatever is next. Cost: a comparison a shard when all is well."""
        if not view.cluster_id or buggify("steward.idle"):
            return
        meta = self._replicas.get(META_SHARD)
        if meta is not None and meta.leads:
            self._place(view)
            self._spread(view)
        for shard, replica in self._replicas.items():
            record = view.shards.get(shard)
            if record is not None and replica.leads:
                self._reconcile(view, shard, replica)
                self._report(record, replica)

    def _place(self, view: MetaView) -> None:
        reachable = set(self._reachable())
        missing = view.nodes.keys() - reachable
        for placement in placements(view):
            before, after = set(view.shards[placement.shard].nodes), set(placement.nodes)
            if after - before - reachable or (missing and (before - after) & reachable):
                continue
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
        for shard, node in leader_transfers(view, leaders, self._leadable()):
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

    def _reconcile(self, view: MetaView, shard: int, replica: Replica) -> None:
        raft = replica.raft
        conf = raft.configuration
        if conf.joint or not raft.configuration_committed or raft.transferring:
            return
        wanted = wanted_members(view, shard)
        matches = {member: progress.match for member, progress in raft.progress.items()}
        reachable = self._reachable()
        heirs = {member: node for member, node in wanted.voters.items() if node in reachable}
        heir = successor(heirs, conf, matches, replica.id)
        changes = next_change(
            wanted.voters, wanted.learners, conf, matches, raft.last_index, replica.id
        )
        if not changes and not heir:
            return
        try:
            if heir:
                raft.transfer(heir)
            elif changes:
                raft.propose_conf(changes, wanted.voters | wanted.learners, conf.version)
        except ProposalRefused:
            return  # not now; the next step will see the same difference
        self._mark(replica)

    def _report(self, record: ShardRecord, replica: Replica) -> None:
        raft = replica.raft
        conf = raft.configuration
        if conf.joint or not raft.configuration_committed:
            return
        # Only a new configuration is news; who leads in which term is told by
        # other means (host/leaders.py), without an entry in a log.
        if conf.version <= record.report.conf_version:
            return
        members = [
            [member, conf.nodes[member], member in conf.voters] for member in sorted(conf.members)
        ]
        body = encode_body(Op.META_REPORT, record.shard, conf.version, raft.term, members)
        self._propose(("report", record.shard), Op.META_REPORT, body)

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
