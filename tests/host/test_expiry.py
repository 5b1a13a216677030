"""Time passes in a shard in which nobody writes: whoever leads sees to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import LeaseChange, Op
from kritad.host.expiry import Reaper
from kritad.raft.errors import ProposalRefused, Refusal
from kritad.state import user_keys
from kritad.state.reading import lease_state, read_key
from tests.host.cluster import Cluster, grown_cluster, key_in
from tests.host.lone import SHARD, LoneNode, Replies


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    grown = grown_cluster(tmp_path, 3, shards=1)
    grown.run(1_000)
    yield grown
    grown.close()


def put_for(cluster: Cluster, key: bytes, ttl_ms: int) -> None:
    node = cluster.alive[0]
    body = encode_body(Op.PUT, 0, 0, 0, key, b"v", None, None, ttl_ms)
    replies = cluster.submit(node, Op.PUT, body, cluster.shard_of(node, key), key=key)
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK


def rows(cluster: Cluster) -> set[int]:
    return {node.replica(SHARD).state.extent.keys for node in cluster.alive}


def test_a_key_ends_on_every_replica_though_nobody_writes(cluster: Cluster) -> None:
    put_for(cluster, b"k", 500)
    cluster.run(400)
    assert rows(cluster) == {1}
    cluster.run(300)
    assert rows(cluster) == {0}
    assert cluster.converged()


def test_no_key_ends_while_the_disk_is_nearly_full(cluster: Cluster) -> None:
    put_for(cluster, b"k", 500)
    cluster.run(200)
    for node in cluster.alive:
        node.host.note_space(5, True, nearly_full=True)
    cluster.run(1_000)
    assert rows(cluster) == {1}
    for node in cluster.alive:
        node.host.note_space(1 << 40, False)
    cluster.run(300)
    assert rows(cluster) == {0}


def left_ms(cluster: Cluster, node: int, op: Op, *fields: object) -> int:
    """What a reader at the node is told of how long it lasts yet."""
    state = cluster.nodes[node].replica(SHARD).state
    answer = read_key(state, b"k", None)[5] if op == Op.GET else lease_state(state, fields)[1]
    assert isinstance(answer, int)
    return answer


def test_readers_see_the_time_pass_though_nobody_writes(cluster: Cluster) -> None:
    put_for(cluster, b"k", 60_000)
    body = encode_body(Op.LEASE_CHANGE, SHARD, 7, int(LeaseChange.GRANT), 60_000)
    replies = cluster.submit(cluster.alive[0], Op.LEASE_CHANGE, body, SHARD)
    cluster.run_until(lambda: bool(replies.all))
    cluster.run(1_000)
    for op in (Op.GET, Op.LEASE_STATE):
        before = [left_ms(cluster, node, op, 7, None) for node in range(3)]
        cluster.run(10_000)
        after = [left_ms(cluster, node, op, 7, None) for node in range(3)]
        passed = [b - a for b, a in zip(before, after, strict=True)]
        assert all(9_900 <= each <= 10_100 for each in passed), "a tick may lie between"
    clocks = {node.replica(SHARD).state.clock_ms for node in cluster.alive}
    assert max(clocks) < cluster.alive[0].host.clock.wall_ms() - 10_000, "it was an idle shard"


def test_what_is_over_by_the_nodes_own_clock_alone_has_nothing_left(cluster: Cluster) -> None:
    put_for(cluster, b"k", 60_000)
    state = cluster.nodes[0].replica(SHARD).state
    state.wall_ms = state.clock_ms + 60_001
    assert left_ms(cluster, 0, Op.GET) == 0


def test_whoever_leads_next_ends_what_its_predecessor_has_not(cluster: Cluster) -> None:
    put_for(cluster, b"k", 1_000)
    leader = cluster.leader(SHARD)
    assert leader is not None
    cluster.crash(leader)
    cluster.run(6_000)
    assert cluster.leader(SHARD) is not None
    assert rows(cluster) == {0}


def test_more_than_one_entry_ends_is_ended_by_as_many_as_it_takes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 3)
    for number in range(10):
        put_for(cluster, b"k%d" % number, 9_000)
    cluster.run(500)  # the followers hear of the last commit
    assert rows(cluster) == {10}
    cluster.run(10_000)
    assert rows(cluster) == {0}


def test_a_shard_without_anything_to_end_gets_no_entries(cluster: Cluster) -> None:
    leader = cluster.leader(SHARD)
    assert leader is not None
    put_for(cluster, key_in(leader, SHARD), 60_000)
    before = leader.replica(SHARD).raft.last_index
    cluster.run(5_000)
    assert leader.replica(SHARD).raft.last_index == before


# --- one replica, whose log the test holds --------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path)
    lone.lead()
    yield lone
    lone.close()


def reaper_of(node: LoneNode) -> Reaper:
    return Reaper(node.clock, node.drive.mark)


def make_due(node: LoneNode) -> None:
    """A key that is over by the wall clock, and not yet by the shard's."""
    node.replica.state.keys.leases.put(7, 10, node.clock.wall_ms())


def test_one_entry_is_under_way_at_a_time(node: LoneNode) -> None:
    reaper = reaper_of(node)
    make_due(node)
    before = node.raft.last_index
    for _ in range(5):
        reaper.step([node.replica])
        node.settle()
    assert node.raft.last_index == before + 1, "it is not committed yet"


def test_a_leader_of_a_later_term_does_not_wait_for_the_entry_of_an_earlier_one(
    node: LoneNode,
) -> None:
    reaper = reaper_of(node)
    make_due(node)
    reaper.step([node.replica])
    node.settle()
    node.lead_again()
    before = node.raft.last_index
    reaper.step([node.replica])
    assert node.raft.last_index == before + 1


def test_a_clock_that_is_behind_the_shard_s_ends_nothing_early(node: LoneNode) -> None:
    reaper = reaper_of(node)
    node.replica.state.keys.leases.put(7, 10, node.clock.wall_ms() + 1)
    before = node.raft.last_index
    reaper.step([node.replica])
    assert node.raft.last_index == before
    node.clock.advance(1)
    reaper.step([node.replica])
    assert node.raft.last_index == before + 1


def test_a_refused_proposal_is_tried_again(node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    reaper = reaper_of(node)
    make_due(node)
    before = node.raft.last_index

    def refuse(_data: bytes) -> tuple[int, int]:
        raise ProposalRefused(Refusal.BUSY)

    with monkeypatch.context() as patch:
        patch.setattr(node.raft, "propose", refuse)
        reaper.step([node.replica])
    assert node.raft.last_index == before
    reaper.step([node.replica])
    assert node.raft.last_index == before + 1


def test_a_follower_proposes_nothing(tmp_path: Path) -> None:
    lone = LoneNode(tmp_path)
    try:
        lone.replica.state.keys.leases.put(7, 10, 0)
        reaper_of(lone).step([lone.replica])
        assert lone.raft.last_index == 0
    finally:
        lone.close()


def test_a_write_that_meets_a_key_which_is_over_finds_it_absent(cluster: Cluster) -> None:
    """Before the leader's next tick: the write's own entry moves the clock."""
    put_for(cluster, b"k", 500)
    cluster.clock.advance(500)
    node = cluster.alive[0]
    body = encode_body(Op.PUT, 0, 0, 0, b"k", b"w", None, 0)
    replies: Replies = cluster.submit(node, Op.PUT, body, SHARD, key=b"k")
    cluster.settle()
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK


def test_what_is_put_behind_a_leader_that_was_a_day_ahead_ends_in_twice_its_time(
    cluster: Cluster,
) -> None:
    """Else nothing would end for a day: no key, no lease, no dead holder's lock."""
    cluster.clock.jump(86_400_000)
    put_for(cluster, b"before", 86_400_000)
    cluster.clock.jump(-86_400_000)
    put_for(cluster, b"k", 1_000)
    cluster.run(1_900)
    assert rows(cluster) == {2}, "never early"
    cluster.run(300)
    assert rows(cluster) == {1}
    assert cluster.converged()
