"""A steward on a bench: what it sees is set by hand, what it asks for is collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from krita.errors import Status
from kritad.cluster.model import NodeRecord, ReplicaRecord, Report, ReportedReplica, ShardRecord
from kritad.cluster.view import MetaView
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.steward import Steward
from kritad.host.vigil import Vigil
from kritad.raft.messages import AppendReply
from tests.host.lone import LoneNode

META, DATA = 0, 1
DEAD_AFTER_MS = 10_000.0


@attrs.define
class Bench:
    """A steward on node 1, which may lead the meta shard (replica 1 of shard "0",
    played by the lone node's shard 2) and data shard 1."""

    node: LoneNode
    leaders: LeaderTable
    routed: list[Request]
    steward: Steward
    replicas: dict[int, Replica]
    present: set[int]  # the nodes that answer
    unwilling: set[int]  # and of these those that take no leadership
    damaged: set[tuple[int, int]]  # (shard, replica), as nodes have said
    homes: dict[int, int]  # where a shard's requests come in

    def ops(self) -> Counter[int]:
        return Counter(request.op for request in self.routed)

    def answer_all(self, status: int = Status.OK) -> None:
        routed, self.routed[:] = list(self.routed), []
        for request in routed:
            request.answer(status, [])

    def lead_meta(self) -> None:
        self.node.lead(2)
        self.node.step(AppendReply(2, 2, 1, self.node.replicas[2].raft.term, True, 1, 0, 0, 0))
        self.node.settle()

    def lead_data(self) -> None:
        self.node.lead(DATA)
        for follower in (2, 3):
            term = self.node.raft.term
            self.node.step(AppendReply(DATA, follower, 1, term, True, 1, 0, 0, 0))
        self.node.settle()


@contextmanager
def open_bench(path: Path) -> Iterator[Bench]:
    """A bench whose disk is in that directory."""
    node = LoneNode(path, shards=2)
    leaders = LeaderTable()
    routed: list[Request] = []
    replicas = {META: node.replicas[2], DATA: node.replicas[DATA]}
    present = {1, 2, 3, 4, 5, 6}
    unwilling: set[int] = set()
    damaged: set[tuple[int, int]] = set()
    homes: dict[int, int] = {}
    steward = Steward(
        replicas,
        leaders,
        node.clock,
        routed.append,
        node.drive.mark,
        lambda: present,
        lambda: present - unwilling,
        vigil=Vigil(DEAD_AFTER_MS, node.clock, lambda: present),
        damaged=lambda: damaged,
        homes=lambda: homes,
    )
    try:
        yield Bench(node, leaders, routed, steward, replicas, present, unwilling, damaged, homes)
    finally:
        node.close()


def member(number: int) -> ReplicaRecord:
    return ReplicaRecord(number, number)


def view(
    *, nodes: int = 3, wanted: tuple[int, ...] = (1, 2, 3), reported_version: int = 1
) -> MetaView:
    report = Report(
        reported_version, 1, tuple(ReportedReplica(n, n, True) for n in (1, 2, 3))
    ) if reported_version else Report()  # fmt: skip
    meta = ShardRecord(META, 0, 0, 1, 1, tuple(map(member, (1, 2, 3))), report)
    data = ShardRecord(DATA, 0, 1 << 32, 1, 1, tuple(map(member, wanted)), report)
    records = {n: NodeRecord(n, bytes([n]) * 16, f"n{n}:8080", "", 1) for n in range(1, nodes + 1)}
    return MetaView(b"c" * 16, 3, 9, records, {META: meta, DATA: data})
