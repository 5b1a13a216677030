"""Which replicas live on a node: what it opens, what it makes, and what it waits for."""

from __future__ import annotations

import attrs
import pytest

from krita.errors import Status
from kritad.cluster.model import ReplicaRecord, Report, ShardRecord
from kritad.host.births import is_due
from kritad.host.bootstrap import META_SHARD
from kritad.host.residence import _beginning
from kritad.raft.types import Configuration
from tests.host.cluster import Cluster, Grow, Node, write_some
from tests.host.splits import NEW, OLD, ask, flush, follower_of, is_told, leader_of, split


def test_a_replica_that_was_never_flushed_waits_for_the_arc_that_its_shard_began_with(
    grow: Grow,
) -> None:
    cluster = grow(shards=2)
    write_some(cluster, 20)
    node = follower_of(cluster)
    arcs = {shard: node.replica(shard).state.extent.arc for shard in (1, 2)}
    assert node.data_db.applied() == {}
    cluster.crash(node)
    node.open()
    node.log.held = True
    node.start()
    assert set(node.host.replicas) == {META_SHARD}
    assert node.host.residence.has(1)
    assert node.host.damaged == {}
    cluster.run_until(cluster.converged)
    assert {shard: node.replica(shard).state.extent.arc for shard in (1, 2)} == arcs


def test_one_that_was_flushed_is_open_from_the_start(grow: Grow) -> None:
    cluster = grow(shards=2)
    write_some(cluster, 20)
    node = follower_of(cluster)
    flush(cluster, node)
    cluster.crash(node)
    node.restart()
    assert set(node.host.replicas) == {META_SHARD, 1, 2}


def test_a_shard_whose_arc_a_replica_here_still_has_is_about_to_be_split_off(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    split(cluster)
    node = cluster.nodes[0]
    replicas, records = dict(node.host.replicas), node.host.view.shards
    assert not is_due(records[NEW], replicas)
    assert not is_due(records[OLD], replicas), "a shard is not split off from itself"
    behind = follower_of(cluster)
    held = replicas[NEW].state.extent
    third = attrs.evolve(records[NEW], shard=NEW + 1)
    assert (third.hash_lo, third.hash_hi) == held.arc
    assert is_due(third, {NEW: replicas[NEW]}), "as far as its ends"
    assert not is_due(attrs.evolve(third, hash_lo=held.hash_lo - 1), {NEW: replicas[NEW]})
    whole = attrs.evolve(records[NEW], hash_lo=records[OLD].hash_lo)
    del replicas[NEW]
    assert not is_due(records[NEW], replicas)
    part = attrs.evolve(records[NEW], hash_lo=0, hash_hi=records[OLD].hash_hi // 2)
    assert is_due(part, replicas)
    assert not is_due(whole, replicas)
    replicas[OLD].raft.poison("damaged")
    assert not is_due(part, replicas), "nothing will come of it"
    assert behind.host.failure is None


def test_a_new_shard_does_not_wait_for_an_old_one_that_is_held_on_its_way(grow: Grow) -> None:
    """It came behind the split, and will not live it."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    replica, record = cluster.nodes[0].replica(OLD), cluster.nodes[0].host.view.shards[OLD]
    part = attrs.evolve(record, shard=NEW, hash_hi=record.hash_hi // 2)
    assert is_due(part, {OLD: replica})
    conf = replica.raft.configuration
    learns = attrs.evolve(conf, voters=conf.voters - {replica.id}, learners=frozenset({replica.id}))
    for told in (Configuration(), learns):
        replica.raft.log.configurations = [(0, told)]
        assert not is_due(part, {OLD: replica}), told


@pytest.mark.parametrize(
    ("placement_version", "conf_version", "begins"),
    [(1, 0, True), (2, 0, False), (1, 1, False), (2, 1, False)],
    ids=["the first", "moved since", "reported since", "both"],
)
def test_only_the_very_first_replica_of_a_shard_begins_its_group(
    placement_version: int, conf_version: int, begins: bool
) -> None:
    """Any other would vote for itself beside the group that there is."""
    only, report = (ReplicaRecord(7, 3),), Report(conf_version, conf_version, ())
    record = ShardRecord(1, 0, 100, 1, placement_version, only, report)
    first = _beginning(record, 7, 3)
    assert (first is not None) is begins
    assert first is None or first.configuration.nodes == {7: 3}


def lagging(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node that has heard of the new shard, and whose replica of the old one has stopped
    before the split."""
    slow = follower_of(cluster)
    monkeypatch.setattr(slow.replica(OLD).raft, "step", lambda _message: None)
    ask(cluster)
    cluster.run_until(lambda: NEW in slow.host.view.shards)
    return slow


def test_a_new_shard_is_not_made_empty_where_the_old_one_lags(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be filled by a snapshot, of rows that are there."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    slow = lagging(cluster, monkeypatch)
    cluster.run(2000)
    assert NEW not in slow.host.replicas
    assert NEW not in {row.shard for row in slow.raft_db.replicas()}
    monkeypatch.undo()
    cluster.run_until(lambda: is_told(cluster) and cluster.converged())
    assert NEW in slow.host.replicas
    assert cluster.snapshots_sent == 0


def test_it_is_made_empty_when_the_old_one_is_found_damaged_after_all(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    slow = lagging(cluster, monkeypatch)
    assert NEW not in slow.host.replicas
    slow.replica(OLD).raft.poison("damaged")
    cluster.run_until(lambda: NEW in slow.host.replicas)
    cluster.run_until(lambda: len(cluster.hashes(NEW)) == 1)
    assert cluster.snapshots_sent == 1
    reads = cluster.get(slow, b"k0")
    cluster.run_until(lambda: bool(reads.all))
    assert reads.one[0] == Status.OK
    assert leader_of(cluster, NEW) is not None
