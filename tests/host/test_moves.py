"""Replicas that come, are brought up to date, and leave."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import Foreign, Status
from krita.hello import Identity
from krita.operations import Op
from kritad.host.bootstrap import META_SHARD
from tests.host.cluster import Cluster, Grow, Node, check_written, key_in, write_some


def fill(cluster: Cluster, count: int = 200, size: int = 1500) -> None:
    replies = [cluster.put(cluster.alive[0], b"f%d" % n, b"x" * size) for n in range(count)]
    cluster.run_until(lambda: all(reply.all for reply in replies))


def cut_log(cluster: Cluster, node: Node) -> None:
    """Have the node flush, checkpoint and cut."""
    cluster.run(3000)  # a flush
    cluster.run(31_000)  # a checkpoint
    assert node.replica(1).raft.log.snapshot.index > 0, "the log was never cut"


def test_a_follower_far_behind_is_restored_by_a_snapshot(grow: Grow) -> None:
    cluster = grow(shards=1)
    lagging = next(node for node in cluster.nodes if node is not cluster.leader(1))
    lagging.host.flusher.when_flushed(lambda: None)
    cluster.settle()
    cluster.crash(lagging)
    fill(cluster)
    cut_log(cluster, cluster.alive[0])
    leader = cluster.leader(1)
    assert leader is not None
    lagging.restart()
    assert lagging.replica(1).raft.last_index < leader.replica(1).raft.log.snapshot.index
    cluster.run_until(cluster.converged)
    assert cluster.snapshots_sent == 1
    cluster.run(3000)
    assert cluster.snapshots_sent == 1, "the snapshot is sent again and again"
    assert lagging.host.effects.received == {}


def test_a_restored_follower_serves_what_it_was_sent_after_a_crash(grow: Grow) -> None:
    cluster = grow(shards=1)
    lagging = next(node for node in cluster.nodes if node is not cluster.leader(1))
    lagging.host.flusher.when_flushed(lambda: None)
    cluster.settle()
    cluster.crash(lagging)
    fill(cluster)
    cut_log(cluster, cluster.alive[0])
    lagging.restart()
    cluster.run_until(cluster.converged)
    cluster.crash(lagging)
    lagging.restart()
    cluster.run_until(cluster.converged)
    row = lagging.replica(1).state.read(key_in(lagging, 1, b"f"))
    assert row is not None
    assert row.value == b"x" * 1500


def test_a_joiner_without_a_log_is_restored_by_a_snapshot(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1)
    fill(cluster)
    cut_log(cluster, cluster.nodes[0])
    joiner = cluster.join()
    cluster.run_until(lambda: cluster.grown(2) and cluster.converged())
    assert cluster.snapshots_sent >= 1
    row = joiner.replica(1).state.read(b"f7")
    assert row is not None
    cluster.close()


def test_a_fourth_node_takes_its_share_and_the_old_replicas_are_removed(grow: Grow) -> None:
    cluster = grow(shards=4)
    write_some(cluster, 10)
    newcomer = cluster.join()

    def moved() -> bool:
        view = cluster.nodes[0].host.view
        wanted = {n.number: set(view.replicas_on(n.number)) for n in cluster.nodes}
        held = {n.number: set(n.host.replicas) for n in cluster.nodes}
        return len(wanted[newcomer.number]) > 1 and held == wanted

    cluster.run_until(moved)
    cluster.run(2000)
    for node in cluster.nodes:
        on_disk = {row.shard for row in node.raft_db.replicas()}
        assert on_disk == set(node.host.replicas)
        assert set(node.data_db.applied()) <= on_disk
    check_written(cluster, newcomer, 10)
    assert not any(node.host.failure for node in cluster.nodes)


@pytest.mark.parametrize("slowly", [False, True])
def test_a_shard_comes_back_to_a_node_under_a_new_replica_id(grow: Grow, slowly: bool) -> None:
    cluster = grow(nodes=4, shards=1, factor=3)
    cluster.run(3000)
    view = cluster.nodes[0].host.view
    first = {r.node: r.replica for r in view.shards[1].replicas}
    absent = next(n for n in cluster.nodes if n.number not in first)
    leaver = next(n for n in cluster.nodes if n.number in first and n is not cluster.leader(1))
    stay = [n for n in first if n != leaver.number]
    leaver.data.held = slowly

    def place(nodes: list[int]) -> None:
        record = cluster.nodes[0].host.view.shards[1]
        body = encode_body(Op.META_PLACE, 1, record.placement_version, nodes)
        replies = cluster.submit(cluster.nodes[0], Op.META_PLACE, body, META_SHARD)
        cluster.run_until(lambda: bool(replies.all))
        assert replies.one[0] == Status.OK, replies.one

    place([*stay, absent.number])
    cluster.run_until(lambda: 1 not in leaver.host.replicas and cluster.grown_shard(1, 3))
    if slowly:
        assert leaver.host.upkeep.leaving == {1}
    place([*stay, leaver.number])
    if slowly:
        cluster.run(1000)
        assert 1 not in leaver.host.replicas, "the old one is still on its way out"
        leaver.data.held = False
    cluster.run_until(lambda: 1 in leaver.host.replicas and cluster.grown_shard(1, 3))
    assert leaver.replica(1).id > first[leaver.number]
    write_some(cluster, 3)
    cluster.run_until(lambda: len(cluster.hashes(1)) == 1)


def test_a_shard_that_moves_before_anybody_reported_is_not_begun_a_second_time(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, shards=1, factor=1)
    written = cluster.put(cluster.nodes[0], b"k", b"v")
    cluster.settle()
    assert written.one[0] == Status.OK
    joiner = cluster.join()
    cluster.settle()
    assert cluster.nodes[0].host.view.shards[1].report.conf_version == 0
    body = encode_body(Op.META_PLACE, 1, 1, [joiner.number])
    cluster.submit(cluster.nodes[0], Op.META_PLACE, body, META_SHARD)
    cluster.run_until(lambda: 1 in joiner.host.replicas)
    cluster.run_until(lambda: 1 not in cluster.nodes[0].host.replicas, 60_000)
    assert cluster.read(joiner, b"k") == b"v", "a second group with nothing in it has begun"
    cluster.close()


def test_an_old_wish_for_a_replica_that_has_left_is_no_damage(grow: Grow) -> None:
    """After a restart the meta shard's log is lived again, old placements included."""
    node = grow().nodes[2]
    replica = node.replica(1)
    node.host.replicas.pop(1)
    node.raft_db.remove_replica(1, replica.id)
    node.host.residence.create_wanted()
    assert 1 not in node.host.replicas
    assert node.host.damaged == {}, "a later placement here would be ignored"


def test_a_member_that_an_older_view_lacks_is_remembered_when_it_connects(grow: Grow) -> None:
    """The leader that brings a newcomer the cluster's state may have come after what the
    newcomer has of it."""
    host = grow().nodes[0].host
    stranger = Identity(host.identity.cluster_id, 9, b"9" * 16, 1, "n9:8080")
    host.admit_peer(stranger)
    host.transport.set_peers({n.node: n.address for n in host.view.nodes.values()})
    assert host.transport.address_of(9) == "n9:8080"


def test_a_node_on_another_disk_is_not_let_in(grow: Grow) -> None:
    cluster = grow()
    host, other = cluster.nodes[0].host, cluster.nodes[1].identity
    host.admit_peer(other)
    with pytest.raises(Foreign, match="known with store"):
        host.admit_peer(attrs.evolve(other, store_uuid=b"w" * 16))
