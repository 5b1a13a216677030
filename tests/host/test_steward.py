"""Steering towards what the meta shard wants: each wish once at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.codec import decode_body
from krita.errors import Status
from krita.operations import Op
from kritad.cluster.model import NodeRecord, ReplicaRecord, Report, ReportedReplica, ShardRecord
from kritad.cluster.view import MetaView
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.steward import Steward
from kritad.raft.messages import AppendReply
from tests.host.lone import LoneNode

META, DATA = 0, 1


@attrs.define
class Bench:
    """A steward on node 1, which may lead the meta shard (replica 1 of shard "0",
    played by the lone node's shard 2) and data shard 1."""

    node: LoneNode
    leaders: LeaderTable
    routed: list[Request]
    steward: Steward
    replicas: dict[int, Replica]

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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    node = LoneNode(tmp_path, shards=2)
    leaders = LeaderTable()
    routed: list[Request] = []
    replicas = {META: node.replicas[2], DATA: node.replicas[DATA]}
    steward = Steward(
        replicas,
        leaders,
        node.clock,
        routed.append,
        node.drive.mark,
        lambda: {1, 2, 3},
        lambda: {1, 2, 3},
    )
    yield Bench(node, leaders, routed, steward, replicas)
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


def test_nothing_is_proposed_before_the_cluster_is_founded(bench: Bench) -> None:
    bench.lead_meta()
    bench.lead_data()
    bench.steward.step(MetaView())
    assert bench.routed == []


def test_who_leads_nothing_proposes_nothing(bench: Bench) -> None:
    bench.steward.step(view(wanted=(1,), reported_version=0))
    assert bench.routed == []


def test_the_meta_leader_asks_for_missing_replicas_once_until_it_is_answered(bench: Bench) -> None:
    bench.lead_meta()
    for _ in range(5):
        bench.steward.step(view(wanted=(1,)))
    assert bench.ops()[Op.META_PLACE] == 1
    (place,) = [r for r in bench.routed if r.op == Op.META_PLACE]
    shard, expected_version, nodes = decode_body(Op.META_PLACE, place.body)
    assert (shard, expected_version) == (DATA, 1)
    assert isinstance(nodes, list)
    assert sorted(nodes) == [1, 2, 3]
    bench.answer_all(Status.CONDITION_FAILED)
    bench.steward.step(view(wanted=(1,)))
    assert bench.ops()[Op.META_PLACE] == 1, "it is asked again when the answer was no"


def test_a_placement_that_stands_is_not_asked_for_again(bench: Bench) -> None:
    bench.lead_meta()
    bench.answer_all()
    bench.steward.step(view())
    assert bench.ops()[Op.META_PLACE] == 0


def test_a_shards_leader_reports_its_configuration_once_until_it_is_answered(bench: Bench) -> None:
    bench.lead_data()
    for _ in range(5):
        bench.steward.step(view(reported_version=0))
    assert bench.ops() == {Op.META_REPORT: 1}
    shard, version, term, members = decode_body(Op.META_REPORT, bench.routed[0].body)
    assert (shard, version, term) == (DATA, 1, bench.node.raft.term)
    assert members == [[1, 1, True], [2, 2, True], [3, 3, True]]


def test_what_the_meta_shard_knows_already_is_not_reported(bench: Bench) -> None:
    bench.lead_data()
    bench.steward.step(view(reported_version=1))
    assert bench.routed == []


def test_a_new_term_alone_is_no_news_for_the_meta_shard(bench: Bench) -> None:
    bench.lead_data()
    bench.steward.step(view(reported_version=1))
    bench.node.lead_again()
    bench.steward.step(view(reported_version=1))
    assert bench.ops()[Op.META_REPORT] == 0


def test_a_shards_leader_changes_its_configuration_towards_what_is_wanted(bench: Bench) -> None:
    bench.lead_data()
    before = bench.node.raft.configuration
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    after = bench.node.raft.configuration
    assert after.version == before.version + 1
    assert after.learners == {4}
    assert after.nodes[4] == 4
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    assert bench.node.raft.configuration == after, "one change at a time"


def test_a_change_is_left_for_later_while_leadership_is_handed_over(bench: Bench) -> None:
    bench.lead_data()
    before = bench.node.raft.configuration
    bench.node.raft.transferring = 2
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    assert bench.node.raft.configuration == before


def test_leaders_are_evened_out_no_more_often_than_twice_a_second(bench: Bench) -> None:
    bench.lead_meta()
    bench.node.clock.advance(1000)
    bench.leaders.learn(DATA, 1, 1)
    more = view()
    shards = dict(more.shards)
    for extra in (5, 6):
        shards[extra] = attrs.evolve(shards[DATA], shard=extra)
        bench.leaders.learn(extra, 1, 1)
    more = attrs.evolve(more, shards=shards)
    for _ in range(5):
        bench.steward.step(more)
    transfers = bench.ops()[Op.LEADER_TRANSFER]
    assert 1 <= transfers <= 2
    bench.answer_all()
    bench.node.clock.advance(600)
    bench.steward.step(more)
    assert bench.ops()[Op.LEADER_TRANSFER] >= 1
