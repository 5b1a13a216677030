"""The meta shard's records as values, for the handlers of one entry.

Rules:
* A handler decides first and writes last, with one call of ``write``: one that
  raises has written nothing.
* ``write`` stores what differs, and then raises ``ClusterRecord.version`` to the
  entry's index. So an entry that is repeated, and finds everything as it would
  make it, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from krita.errors import BadRequest
from krita.ring import META_SHARD
from kritad.cluster.model import (
    CLUSTER_KEY,
    NODE_PREFIX,
    SHARD_PREFIX,
    ClusterRecord,
    NodeRecord,
    NodeState,
    ReplicaRecord,
    ShardRecord,
    node_key,
    shard_key,
)
from kritad.cluster.view import Records


class Tables:
    """The records at one entry. Errors: BadRequest before the bootstrap, and for a
    node or a shard that does not exist."""

    def __init__(self, records: Records, index: int) -> None:
        self._records = records
        self._index = index
        data = records.get(CLUSTER_KEY)
        if data is None:
            raise BadRequest("this cluster is not bootstrapped yet")
        self.cluster = ClusterRecord.decode(data)

    def node(self, node: int) -> NodeRecord:
        """The member, or former member, of that number."""
        data = self._records.get(node_key(node))
        if data is None:
            raise BadRequest(f"this cluster has no node {node}")
        return NodeRecord.decode(data)

    def has_node(self, node: int) -> bool:
        """Whether there is or was such a member."""
        return self._records.get(node_key(node)) is not None

    def nodes(self) -> dict[int, NodeRecord]:
        """Every member and former member, by number."""
        found = (NodeRecord.decode(data) for _, data in self._records.scan(NODE_PREFIX))
        return {record.node: record for record in found}

    def shard(self, shard: int) -> ShardRecord:
        """The shard of that number; the meta shard too."""
        data = self._records.get(shard_key(shard))
        if data is None:
            raise BadRequest(f"this cluster has no shard {shard}")
        return ShardRecord.decode(data)

    def data_shards(self) -> list[ShardRecord]:
        """Every shard but the meta shard, by number. 6 µs each."""
        found = (ShardRecord.decode(data) for _, data in self._records.scan(SHARD_PREFIX))
        return [record for record in found if record.shard != META_SHARD]

    def write(
        self,
        nodes: Iterable[NodeRecord] = (),
        shards: Iterable[ShardRecord] = (),
        cluster: ClusterRecord | None = None,
    ) -> None:
        """Store what is new or differs from what is stored."""
        items = [(node_key(record.node), record.encode()) for record in nodes]
        items += [(shard_key(record.shard), record.encode()) for record in shards]
        changed = [(key, data) for key, data in items if self._records.get(key) != data]
        for key, data in changed:
            self._records.put(key, data)
        after = cluster or self.cluster
        if changed or after != self.cluster:
            self.cluster = attrs.evolve(after, version=self._index)
            self._records.put(CLUSTER_KEY, self.cluster.encode())


def placed(record: ShardRecord, replicas: Iterable[ReplicaRecord]) -> ShardRecord:
    """The shard with other replicas wanted."""
    after = attrs.evolve(
        record, replicas=tuple(replicas), placement_version=record.placement_version + 1
    )
    if record.shard == META_SHARD:
        return after  # its members are those that have not left
    offered = record.held_by - {*after.nodes, *after.report.nodes}
    return attrs.evolve(after, offered=tuple(sorted(offered)))


def write_shard(
    tables: Tables, before: ShardRecord, after: ShardRecord, cluster: ClusterRecord | None = None
) -> None:
    """Write a data shard that has changed, and let go whoever waited for that."""
    given_up = sorted(before.held_by - after.held_by)
    nodes = [tables.node(node) for node in given_up if tables.has_node(node)]
    write_departures(tables, nodes, [after], cluster)


def write_departures(
    tables: Tables,
    nodes: Iterable[NodeRecord],
    shards: Iterable[ShardRecord] = (),
    cluster: ClusterRecord | None = None,
) -> None:
    """Write these records, with LEFT for those of ``nodes`` that are REMOVING and
    that no data shard wants or reports any more. They leave the meta shard in the
    same entry. Cost: all shards are read, once for each node that is REMOVING."""
    changed = {record.shard: record for record in shards}
    records: list[NodeRecord] = []
    gone: set[int] = set()
    for record in nodes:
        if record.state is NodeState.REMOVING and not _held(tables, changed, record.node):
            gone.add(record.node)
            record = attrs.evolve(record, state=NodeState.LEFT, dead=False, successor=0)
        records.append(record)
    if gone:
        meta = tables.shard(META_SHARD)
        staying = [replica for replica in meta.replicas if replica.node not in gone]
        changed[META_SHARD] = placed(meta, staying)
    tables.write(records, changed.values(), cluster)


def _held(tables: Tables, changed: dict[int, ShardRecord], node: int) -> bool:
    shards = [changed.get(record.shard, record) for record in tables.data_shards()]
    return any(record.holds(node) for record in shards)
