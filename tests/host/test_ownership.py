"""Who owns a key, by the map and by what a split has left here."""

from __future__ import annotations

from krita.ring import RING_SIZE, ShardInfo, ShardMap
from kritad.cluster.model import NodeState
from kritad.host.leaders import LeaderTable
from kritad.host.ownership import owner_of, shard_map_of
from tests.cluster.views import view_of, with_node
from tests.host.cluster import Grow, key_in, write_some
from tests.host.splits import NEW, OLD, ask, is_cut, is_told, leader_of, split

WHOLE = ShardMap(1, (ShardInfo(OLD, 0, RING_SIZE, 1, 1, (1, 2, 3)),), {1: "n1:1"})


def test_before_there_is_a_map_nobody_owns_anything(grow: Grow) -> None:
    host = grow(shards=1).nodes[0].host
    host.shard_map = None
    assert host.shard_of(b"k") is None


def test_nodes_that_have_left_are_in_no_map() -> None:
    view = with_node(view_of({1: [1, 2]}, {1: "a", 2: "b"}), 3, state=NodeState.LEFT)
    found = shard_map_of(view, LeaderTable())
    assert found is not None
    assert sorted(found.nodes) == [1, 2]
    assert sorted(found.zones) == [1, 2]


def test_a_node_that_has_both_halves_needs_no_newer_map(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    split(cluster)
    host = cluster.nodes[0].host
    moved, kept = key_in(cluster.nodes[0], NEW), key_in(cluster.nodes[0], OLD)
    assert owner_of(moved, WHOLE, host.replicas) == NEW
    assert owner_of(kept, WHOLE, host.replicas) == OLD
    assert owner_of(moved, WHOLE, {}) == OLD, "it knows nothing but the map"


def test_an_older_map_leads_through_several_splits_as_far_as_is_known_here(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 60)
    split(cluster)
    node = cluster.nodes[0]
    for shard, known in ((NEW, 3), (OLD, 4)):
        ask(cluster, shard)
        cluster.run_until(lambda known=known: is_told(cluster, known))  # type: ignore[misc]
    replicas = node.host.replicas
    for n in range(60):
        key = b"k%d" % n
        (owner,) = [s for s, r in replicas.items() if s and r.state.owns(key)]
        found = owner_of(key, WHOLE, replicas)
        # Of several splits of one shard it remembers the newest: else the map has to tell.
        assert found == owner or (found == OLD and owner in (2, 3))
        assert node.host.shard_of(key) == owner
    assert {owner_of(b"k%d" % n, WHOLE, replicas) for n in range(60)} >= {OLD, 4}


def test_a_half_that_is_not_born_yet_is_nobodys_to_be_asked(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    leader = leader_of(cluster, OLD)
    leader.data.held = True
    ask(cluster)
    cluster.run_until(lambda: is_cut(leader))
    assert NEW not in leader.host.replicas
    moved = next(k for n in range(20) if not leader.replica(OLD).state.owns(k := b"k%d" % n))
    assert owner_of(moved, WHOLE, leader.host.replicas) == OLD
