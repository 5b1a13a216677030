"""Who owns a key: the map that clients get, and what this node knows beyond it.

The meta shard draws the arcs of the map. It hears of a split from the shard's leader,
so the replicas of a shard that was split know sooner where its keys have gone.
"""

from __future__ import annotations

from collections.abc import Mapping

from krita.errors import Unavailable
from krita.ring import ShardInfo, ShardMap
from kritad.cluster.view import MetaView
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica


def shard_map_of(view: MetaView, leaders: LeaderTable) -> ShardMap | None:
    """The map that clients get, with the leaders known now; nodes that have left are not in
    it, so that nobody dials them. None before the cluster is bootstrapped."""
    if not view.cluster_id:
        return None
    infos = []
    for record in view.data_shards:
        node, term = leaders.of(record.shard)
        infos.append(
            ShardInfo(record.shard, record.hash_lo, record.hash_hi, node, term, record.nodes)
        )
    nodes = {node.node: node.address for node in view.members}
    zones = {node.node: node.zone for node in view.members if node.zone}
    return ShardMap(view.version, tuple(infos), nodes, zones)


def no_map_yet() -> Unavailable:
    """What somebody is told whose request needs the cluster's shards, before this node
    knows them."""
    return Unavailable("this node does not know the cluster's shards yet", hint="try again")


def owner_of(key: bytes, shard_map: ShardMap, replicas: Mapping[int, Replica]) -> int:
    """The shard that owns the key: by the map, unless a replica here knows that this one
    was split and one of the other half owns the key. 1.2 µs, so not for every request:
    whoever serves one asks the shard's own state anyway."""
    shard = shard_map.shard_of(key).shard
    replica = replicas.get(shard)
    while replica is not None and not replica.state.owns(key):
        cut = replica.state.splits
        # Numbers of shards grow, so this comes to an end.
        replica = None if cut is None else replicas.get(cut.shard_new)
    return shard if replica is None else replica.shard
