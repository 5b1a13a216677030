"""The meta shard's operations: how cluster, node and shard records change.

Each handler is a function of the records, the request's fields and the entry's
index, to ``(status, body)``. Rules:

* Decide first, write last: a handler that raises KritaError has written nothing.
* Ids only ever grow: a node id or replica id that was given out is never given
  out again, also when the entry that asked for it is repeated.
* Every entry that changes a record puts its index into ``ClusterRecord.version``;
  one that changes nothing leaves the version alone.
* ``META_REPLICA`` and shard 0 are known without records: the first node has to
  start the meta shard before there is a log to read them from.

Sources: raft.md 4.4; design 4 (identity) and 5 (placement).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from krita.errors import BadRequest, ConditionFailed, Foreign, Status
from krita.operations import Op
from krita.ring import META_SHARD, equal_arcs
from kritad.cluster.fields import Fields
from kritad.cluster.model import (
    CLUSTER_KEY,
    NODE_PREFIX,
    ClusterRecord,
    NodeRecord,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
    meta_shard_record,
    node_key,
    shard_key,
)
from kritad.cluster.view import MetaView, Records

__all__ = ["FIRST_NODE", "META_REPLICA", "MetaView", "handlers"]

SHARDS_MAX = 4096
REPLICATION_FACTOR_MAX = 9

FIRST_NODE = 1
META_REPLICA = 1  # the meta shard's first replica, on the first node

Handler = Callable[[Records, list[object], int], tuple[int, object]]

_OK = int(Status.OK)


def handlers() -> dict[int, Handler]:
    """Every meta operation's handler by code, for ``ShardState``."""
    return {
        Op.META_BOOTSTRAP: bootstrap,
        Op.META_NODE_ADD: node_add,
        Op.META_NODE_ANNOUNCE: node_announce,
        Op.META_PLACE: place,
        Op.META_REPORT: report,
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
    _put_shard(records, meta_shard_record([ReplicaRecord(replica, FIRST_NODE)]))
    for shard, (lo, hi) in enumerate(equal_arcs(shards), start=1):
        replica += 1
        only = ReplicaRecord(replica, FIRST_NODE)
        _put_shard(records, ShardRecord(shard, lo, hi, 1, 1, (only,)))
    _put_node(records, node)
    cluster = ClusterRecord(cluster_id, shards, factor, FIRST_NODE + 1, replica + 1, index)
    records.put(CLUSTER_KEY, cluster.encode())
    return _OK, []


def node_add(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_NODE_ADD: a new member, or the ids that this store has already got."""
    fields = Fields(Op.META_NODE_ADD, values)
    store_uuid = fields.uuid("store_uuid")
    address, zone = fields.address("address"), fields.zone("zone")
    cluster = _cluster(records)
    meta = _shard(records, META_SHARD)
    known = _node_of_store(records, store_uuid)
    if known is not None:
        replica = next((r.replica for r in meta.replicas if r.node == known.node), None)
        if replica is None:
            raise Foreign(
                f"node {known.node} has been removed from this cluster",
                hint="start with an empty data directory to join as a new node",
            )
        moved = attrs.evolve(known, address=address, zone=zone)
        if moved != known:
            _put_node(records, moved)
            _put_cluster(records, cluster, index)
        return _OK, [known.node, replica]
    node, replica = cluster.node_next, cluster.replica_next
    _put_node(records, NodeRecord(node, store_uuid, address, zone, 0))
    replicas = (*meta.replicas, ReplicaRecord(replica, node))
    _put_shard(records, _placed(meta, replicas))
    _put_cluster(
        records, attrs.evolve(cluster, node_next=node + 1, replica_next=replica + 1), index
    )
    return _OK, [node, replica]


def node_announce(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_NODE_ANNOUNCE: a member has started. FOREIGN for a disk that is not
    the one we know, or is an older copy of it (raft.md 4.4, Identity)."""
    fields = Fields(Op.META_NODE_ANNOUNCE, values)
    node, store_uuid = fields.count("node", 1), fields.uuid("store_uuid")
    boot_counter, address = fields.count("boot_counter"), fields.address("address")
    cluster = _cluster(records)
    known = _node(records, node)
    if known is None:
        raise Foreign(f"this cluster has no node {node}")
    if known.store_uuid != store_uuid:
        raise Foreign(
            f"node {node} came back with another disk: its store is {store_uuid.hex()}, "
            f"known is {known.store_uuid.hex()}",
            hint="a wiped or exchanged disk joins as a new node",
        )
    if boot_counter < known.boot_counter:
        raise Foreign(
            f"node {node}'s disk was rolled back: it has started {boot_counter} times, "
            f"and was seen at {known.boot_counter}",
            hint="a node restored from an old copy may have forgotten its votes; join it as new",
        )
    started = attrs.evolve(known, boot_counter=boot_counter, address=address)
    if started != known:
        _put_node(records, started)
        _put_cluster(records, cluster, index)
    return _OK, []


def place(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_PLACE: want a shard's replicas on these nodes. Replicas of nodes that
    stay keep their ids. Replies with the new placement_version."""
    fields = Fields(Op.META_PLACE, values)
    shard = fields.count("shard")
    expected_version = fields.count("expected_version")
    nodes = fields.counts("nodes")
    cluster = _cluster(records)
    if shard == META_SHARD:
        raise BadRequest("meta_place: every node is a member of the meta shard")
    record = _shard(records, shard)
    for node in nodes:
        if _node(records, node) is None:
            raise BadRequest(f"meta_place: this cluster has no node {node}")
    if record.placement_version != expected_version:
        raise ConditionFailed(
            f"shard {shard}'s placement is at version {record.placement_version}",
            detail={"version": record.placement_version},
        )
    if set(nodes) == set(record.nodes):
        return _OK, [record.placement_version]
    staying = {replica.node: replica for replica in record.replicas}
    replica_next = cluster.replica_next
    replicas: list[ReplicaRecord] = []
    for node in nodes:
        if node in staying:
            replicas.append(staying[node])
        else:
            replicas.append(ReplicaRecord(replica_next, node))
            replica_next += 1
    placed = _placed(record, replicas)
    _put_shard(records, placed)
    _put_cluster(records, attrs.evolve(cluster, replica_next=replica_next), index)
    return _OK, [placed.placement_version]


def report(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_REPORT: a shard's configuration as its leader has it. The newest
    (conf_version, term) wins; an older one, arriving late, changes nothing."""
    fields = Fields(Op.META_REPORT, values)
    shard = fields.count("shard")
    told = Report(
        fields.count("conf_version"),
        fields.count("term"),
        tuple(
            ReportedReplica(replica, node, voter)
            for replica, node, voter in sorted(fields.triples("replicas"))
        ),
    )
    cluster = _cluster(records)
    record = _shard(records, shard)
    known = record.report
    if (told.conf_version, told.term) > (known.conf_version, known.term):
        _put_shard(records, attrs.evolve(record, report=told))
        _put_cluster(records, cluster, index)
    return _OK, []


def _placed(record: ShardRecord, replicas: Sequence[ReplicaRecord]) -> ShardRecord:
    version = record.placement_version + 1
    return attrs.evolve(record, replicas=tuple(replicas), placement_version=version)


def _cluster(records: Records) -> ClusterRecord:
    data = records.get(CLUSTER_KEY)
    if data is None:
        raise BadRequest("this cluster is not bootstrapped yet")
    return ClusterRecord.decode(data)


def _put_cluster(records: Records, cluster: ClusterRecord, index: int) -> None:
    records.put(CLUSTER_KEY, attrs.evolve(cluster, version=index).encode())


def _node(records: Records, node: int) -> NodeRecord | None:
    data = records.get(node_key(node))
    return None if data is None else NodeRecord.decode(data)


def _node_of_store(records: Records, store_uuid: bytes) -> NodeRecord | None:
    nodes = (NodeRecord.decode(data) for _, data in records.scan(NODE_PREFIX))
    return next((node for node in nodes if node.store_uuid == store_uuid), None)


def _put_node(records: Records, node: NodeRecord) -> None:
    records.put(node_key(node.node), node.encode())


def _shard(records: Records, shard: int) -> ShardRecord:
    data = records.get(shard_key(shard))
    if data is None:
        raise BadRequest(f"this cluster has no shard {shard}")
    return ShardRecord.decode(data)


def _put_shard(records: Records, record: ShardRecord) -> None:
    records.put(shard_key(record.shard), record.encode())
