"""Views made directly, without a log: clusters of any shape, and plans carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from krita.ring import RING_SIZE
from kritad.cluster.model import (
    NodeRecord,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
    meta_shard_record,
)
from kritad.cluster.planner import Placement, placements
from kritad.cluster.view import MetaView
from tests.cluster.records import CLUSTER_ID, store_uuid


def node_record(node: int, zone: str = "") -> NodeRecord:
    return NodeRecord(node, store_uuid(node), f"node-{node}:8080", zone, 0)


def reported(record: ShardRecord, version: int = 1) -> ShardRecord:
    """The shard once its leader has reported what is wanted as what is."""
    replicas = tuple(ReportedReplica(r.replica, r.node, True) for r in record.replicas)
    return attrs.evolve(record, report=Report(version, 1, replicas))


def replica_id(shard: int, node: int) -> int:
    return 1000 * shard + node


def view_of(holders: Mapping[int, Sequence[int]], zones: Mapping[int, str]) -> MetaView:
    """Shards held by these nodes, and reported so; nodes 1.. in these zones."""
    count = len(holders)
    shards = {0: reported(meta_shard_record([ReplicaRecord(node, node) for node in sorted(zones)]))}
    for place, (shard, nodes) in enumerate(sorted(holders.items())):
        lo, hi = (RING_SIZE * number // count for number in (place, place + 1))
        replicas = tuple(ReplicaRecord(replica_id(shard, node), node) for node in nodes)
        shards[shard] = reported(ShardRecord(shard, lo, hi, 1, 1, replicas))
    members = {node: node_record(node, zone) for node, zone in zones.items()}
    return MetaView(CLUSTER_ID, 3, 1, members, shards)


def plain(shards: int, nodes: int, zones: int = 1) -> MetaView:
    """So many shards on so many nodes, zones in turn, as the planner has it."""
    return settled(
        view_of(
            {shard: [1] for shard in range(1, shards + 1)},
            {node: f"zone-{(node - 1) % zones}" for node in range(1, nodes + 1)},
        )
    )


def with_node(view: MetaView, node: int, **changes: Any) -> MetaView:
    """The view with a node changed; with a new one, if there is none."""
    known = view.nodes.get(node) or node_record(node)
    return attrs.evolve(view, nodes={**view.nodes, node: attrs.evolve(known, **changes)})


def with_shard(view: MetaView, shard: int, **changes: Any) -> MetaView:
    record = attrs.evolve(view.shards[shard], **changes)
    return attrs.evolve(view, shards={**view.shards, shard: record})


def wanted_on(view: MetaView, shard: int, nodes: Sequence[int]) -> MetaView:
    """The shard wanted on these nodes, and not yet moved there."""
    record = view.shards[shard]
    known = {member.node: member.replica for member in record.report.replicas}
    fresh = 1_000_000 + 1000 * record.placement_version + shard * 100_000
    replicas = tuple(ReplicaRecord(known.get(node, fresh + node), node) for node in nodes)
    version = record.placement_version + 1
    return with_shard(view, shard, replicas=replicas, placement_version=version)


def arrived(view: MetaView, shard: int) -> MetaView:
    """The shard with all its wanted replicas voting, and no others."""
    record = view.shards[shard]
    done = reported(record, record.report.conf_version + 1)
    return with_shard(view, shard, report=done.report)


def carried_out(view: MetaView, plan: Sequence[Placement]) -> MetaView:
    shards = dict(view.shards)
    for placement in plan:
        shard = placement.shard
        moved = wanted_on(view, shard, placement.nodes)
        shards[shard] = arrived(moved, shard).shards[shard]
    return attrs.evolve(view, shards=shards)


def settled(view: MetaView) -> MetaView:
    return carried_out(view, placements(view))


def copies(view: MetaView, plan: Sequence[Placement]) -> int:
    """How many replicas a plan makes on nodes that had none."""
    return sum(len(set(p.nodes) - set(view.shards[p.shard].nodes)) for p in plan)


def loads(view: MetaView) -> Counter[int]:
    """Wanted replicas by usable node."""
    counts: Counter[int] = Counter({node.node: 0 for node in view.usable_nodes})
    for record in view.data_shards:
        counts.update(node for node in record.nodes if node in counts)
    return counts


def unevenness(view: MetaView) -> float:
    """The fullest node's load over the mean."""
    counts = loads(view)
    return max(counts.values()) * len(counts) / sum(counts.values())
