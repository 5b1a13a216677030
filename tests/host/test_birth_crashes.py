"""A crash at any moment of a split: it was never begun, or it is brought to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.operations import Op
from krita.ring import RING_SIZE
from kritad.host.bootstrap import META_SHARD
from kritad.storage.errors import Tombstoned
from kritad.storage.raft_db import RaftDatabase
from tests.host.cluster import Cluster, Grow, Node, check_written, write_some
from tests.host.splits import NEW, OLD, ask, flush, is_cut, is_told, leader_of, split


def lone(tmp_path: Path) -> tuple[Cluster, Node]:
    cluster = Cluster(tmp_path, shards=1, factor=1)
    cluster.run_until(lambda: cluster.grown(1))
    write_some(cluster, 20)
    return cluster, cluster.nodes[0]


def go_on(cluster: Cluster) -> None:
    """Bring a split to its end, whether it was begun or not."""
    cluster.run_until(lambda: cluster.leader(META_SHARD) is not None)
    cluster.run_until(lambda: bool(cluster.alive[0].host.view.shards))
    if NEW not in cluster.alive[0].host.view.shards:
        ask(cluster)
    cluster.run_until(lambda: is_told(cluster))


def steps(cluster: Cluster, node: Node) -> Iterator[str]:
    """All that happens on a lone node from the decision to the end, a step at a time."""
    body = encode_body(Op.SHARD_SPLIT, OLD)
    cluster.submit(node, Op.SHARD_SPLIT, body, META_SHARD)
    node.log.held = node.data.held = True
    for _ in range(60):
        yield from one_tick(cluster, node)
        if is_told(cluster):
            return
    pytest.fail("the split takes for ever")


def one_tick(cluster: Cluster, node: Node) -> Iterator[str]:
    cluster.tick()
    node.host.steward.step(node.host.view)
    for _ in range(4):
        for worker in (node.log, node.data):
            if any(job.finished is None for job in worker.jobs):
                worker.work()
                yield "work"
            if worker.jobs and worker.jobs[0].finished is not None:
                worker.report()
                yield "report"
        node.host.turn()
        yield "turn"


def check_disk(node: Node, where: str) -> None:
    """No state is on the disk behind a split without the other half."""
    applied = node.data_db.applied()
    halves = {shard for shard in (OLD, NEW) if shard in applied}
    cut = OLD in halves and applied[OLD].hash_hi < RING_SIZE
    assert cut == (NEW in halves), f"{where}: {applied}"
    rows = {row.shard for row in node.raft_db.replicas()}
    assert not (NEW in rows and NEW not in halves), f"{where}: a log without a state"


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["kill -9", "power cut"])
def test_a_crash_anywhere_within_a_split_leaves_it_undone_or_done(
    tmp_path: Path, power: bool
) -> None:
    crash_at, reached, completed = 0, True, 0
    while reached:
        cluster, node = lone(tmp_path / str(crash_at))
        reached, where = False, ""
        for number, what in enumerate(steps(cluster, node)):
            where = f"crash at step {crash_at} ({what})"
            if number == crash_at:
                reached = True
                break
        check_disk(node, where)
        # A power cut may take what no checkpoint has covered: but not what was synced.
        durable = NEW in node.data_db.applied()
        cluster.crash(node, power=power and not durable)
        node.restart()
        check_disk(node, where)
        made = {row.shard for row in node.raft_db.replicas()}
        completed += durable and NEW in made
        assert durable == (NEW in made), where
        go_on(cluster)
        check_written(cluster, node, 20)
        assert not node.host.damaged, where
        assert node.host.failure is None
        cluster.close()
        crash_at += 1
    assert completed > 3


def test_when_all_nodes_crash_with_the_new_shard_half_born_nothing_is_lost(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    for node in cluster.nodes:
        flush(cluster, node)
        node.data.held = True
    ask(cluster)
    cluster.run_until(lambda: all(is_cut(node) for node in cluster.nodes))
    for node in cluster.nodes:
        while NEW not in node.data_db.applied():
            node.data.work()  # durable, and nobody is told
        assert NEW not in {row.shard for row in node.raft_db.replicas()}
    for node in list(cluster.nodes):
        cluster.crash(node)
    for node in cluster.nodes:
        node.restart()
        assert NEW in node.host.replicas, "it was not completed"
    cluster.run_until(lambda: is_told(cluster) and cluster.converged())
    check_written(cluster, cluster.nodes[1], 50)
    assert cluster.snapshots_sent == 0


def lone_with_two(tmp_path: Path) -> tuple[Cluster, Node]:
    cluster, node = lone(tmp_path)
    split(cluster)
    return cluster, node


def test_a_state_whose_replica_was_removed_gets_no_log_again(tmp_path: Path) -> None:
    """A crash between the two parts of a removal leaves it behind."""
    cluster, node = lone_with_two(tmp_path)
    replica = node.replica(NEW).id
    node.raft_db.remove_replica(NEW, replica)
    assert NEW in node.data_db.applied()
    cluster.crash(node)
    node.restart()
    assert NEW not in {row.shard for row in node.raft_db.replicas()}
    assert NEW not in node.data_db.applied()
    with pytest.raises(Tombstoned):
        node.raft_db.create_replica(NEW, replica, None)
    cluster.close()


def test_a_state_whose_votes_are_lost_gets_no_log_again(tmp_path: Path) -> None:
    """raft.db is another than it was: whatever is in data.db may have voted."""
    cluster, node = lone_with_two(tmp_path)
    old = node.replica(OLD).id
    cluster.crash(node)
    for file in node.path.glob("raft.db*"):
        file.unlink()
    fresh = RaftDatabase.open(node.path / "raft.db")
    fresh.initialise(b"c" * 16, 1, b"s" * 16)
    fresh.create_replica(OLD, old + 50, None)
    fresh.close()
    node.restart()
    assert {row.shard for row in node.raft_db.replicas()} == {OLD}
    assert NEW not in node.data_db.applied()
    cluster.close()


def test_a_newborn_takes_part_in_later_terms_than_its_split_only(grow: Grow) -> None:
    """Its log goes on behind the split's entry, and terms never go back in a log."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    for _ in range(3):
        leader = leader_of(cluster, OLD)
        leader.replica(OLD).raft.step_down()
        leader.host.drive.mark(leader.replica(OLD))
        cluster.run_until(lambda: cluster.leader(OLD) is not None)
    term = leader_of(cluster, OLD).replica(OLD).raft.term
    assert term > 1
    split(cluster)
    for node in cluster.nodes:
        assert node.replica(NEW).raft.log.snapshot.term == term
        assert node.replica(NEW).raft.term > term
        cluster.crash(node)
    for node in cluster.nodes:
        node.restart()
        assert not node.host.damaged
    cluster.run_until(cluster.converged)
