"""The meta shard's operations: how cluster, node and shard records change.

Each handler is a function of the records, the request's fields and the entry's
index, to ``(status, body)``. Rules:

* Decide first, write last: a handler that raises KritaError has written nothing.
* Ids only ever grow: a node, replica or shard id that was given out is never given
  out again, also when the entry that asked for it is repeated.
* Every entry that changes a record puts its index into ``ClusterRecord.version``;
  one that changes nothing leaves the version alone.
* An entry that is repeated, because its answer was lost, is answered again.
* ``META_REPLICA`` and shard 0 are known without records: the first node has to
  start the meta shard before there is a log to read them from.

The bootstrap is here; the others are told by what they are about: ``meta_nodes``,
``meta_shards``, ``meta_splits`` and ``meta_recovery``.

Sources: raft.md 4.4; design 4 (identity) and 5 (placement).
"""

from __future__ import annotations

from collections.abc import Callable

from krita.errors import BadRequest, ConditionFailed, Status
from krita.operations import Op
from krita.ring import equal_arcs
from kritad.cluster import meta_nodes, meta_recovery, meta_shards, meta_splits
from kritad.cluster.fields import Fields
from kritad.cluster.model import (
    CLUSTER_KEY,
    SHARDS_MAX,
    ClusterRecord,
    NodeRecord,
    ReplicaRecord,
    ShardRecord,
    meta_shard_record,
    node_key,
    shard_key,
)
from kritad.cluster.view import MetaView, Records

__all__ = ["FIRST_NODE", "META_REPLICA", "MetaView", "handlers"]

REPLICATION_FACTOR_MAX = 9

FIRST_NODE = 1
META_REPLICA = 1  # the meta shard's first replica, on the first node

Handler = Callable[[Records, list[object], int], tuple[int, object]]


def handlers() -> dict[int, Handler]:
    """Every meta operation's handler by code, for ``ShardState``."""
    return {
        Op.META_BOOTSTRAP: bootstrap,
        Op.META_RECOVERED: meta_recovery.recovered,
        Op.META_NODE_ADD: meta_nodes.node_add,
        Op.META_NODE_ANNOUNCE: meta_nodes.node_announce,
        Op.META_NODE_DEAD: meta_nodes.node_dead,
        Op.NODE_SET: meta_nodes.node_set,
        Op.NODE_LABEL: meta_nodes.node_label,
        Op.META_PLACE: meta_shards.place,
        Op.META_REPORT: meta_shards.report,
        Op.META_REBUILD: meta_shards.rebuild,
        Op.SHARD_MOVE: meta_shards.shard_move,
        Op.SHARD_HOLD: meta_shards.shard_hold,
        Op.MOVE_CANCEL: meta_shards.move_cancel,
        Op.SHARD_SPLIT: meta_splits.shard_split,
        Op.META_SPLIT_DONE: meta_splits.split_done,
    }


def bootstrap(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_BOOTSTRAP: the first node, and every shard with one replica on it."""
    fields = Fields(Op.META_BOOTSTRAP, values)
    cluster_id = fields.uuid("cluster_id")
    shards = fields.count("shards", 1, SHARDS_MAX)
    if shards & (shards - 1):
        raise BadRequest(f"meta_bootstrap: shards has to be a power of two, not {shards}")
    factor = fields.count("replication_factor", 1, REPLICATION_FACTOR_MAX)
    node = NodeRecord(
        FIRST_NODE, fields.uuid("store_uuid"), fields.address("address"), fields.zone("zone"), 0
    )
    if records.get(CLUSTER_KEY) is not None:
        raise ConditionFailed("this cluster is already bootstrapped")
    replica = META_REPLICA
    made = [meta_shard_record([ReplicaRecord(replica, FIRST_NODE)])]
    for shard, (lo, hi) in enumerate(equal_arcs(shards), start=1):
        replica += 1
        only = ReplicaRecord(replica, FIRST_NODE)
        made.append(ShardRecord(shard, lo, hi, 1, 1, (only,)))
    for record in made:
        records.put(shard_key(record.shard), record.encode())
    records.put(node_key(node.node), node.encode())
    cluster = ClusterRecord(
        cluster_id, shards, factor, FIRST_NODE + 1, replica + 1, index, shards + 1
    )
    records.put(CLUSTER_KEY, cluster.encode())
    return int(Status.OK), []
