"""The meta shard's records as values, and their bytes.

One record per node, per shard, and one for the cluster as a whole, each a CBOR
array under a key that sorts: ``b"cluster"``, ``b"node/00000001"``,
``b"shard/00000003"``. Elements may be added behind the known ones: a reader
ignores those it does not know.

A shard's record keeps two things apart. ``replicas`` is what the cluster *wants*;
it changes by compare-and-set on ``placement_version``. ``report`` is what the
shard's own log *says*, as its leader told us last; the meta shard never edits
it (raft.md 4.4: a shard's own log decides its membership).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import attrs

from krita.codec import decode, encode
from krita.ring import META_SHARD

CLUSTER_KEY = b"cluster"
NODE_PREFIX = b"node/"
SHARD_PREFIX = b"shard/"


def node_key(node: int) -> bytes:
    """Where a node's record is."""
    return b"node/%08d" % node


def shard_key(shard: int) -> bytes:
    """Where a shard's record is."""
    return b"shard/%08d" % shard


class NodeState(enum.IntEnum):
    """What the cluster intends with a node. Stored: never renumber."""

    UP = 0  # gets replicas
    DRAINING = 1  # keeps what it has until others have it; gets none
    DEAD = 2  # silent for too long; as DRAINING, and nobody waits for it
    LEFT = 3  # gone for good; the record stays so that the id is never reused


@attrs.frozen
class ClusterRecord:
    """What there is once. ``version`` is the log index of the newest change to
    any record, ``node_next`` and ``replica_next`` the ids to give out next."""

    cluster_id: bytes
    shards: int  # data shards: 1..shards; the meta shard is not counted
    replication_factor: int
    node_next: int
    replica_next: int
    version: int

    def encode(self) -> bytes:
        """The record's bytes."""
        return encode(attrs.astuple(self))

    @classmethod
    def decode(cls, data: bytes) -> ClusterRecord:
        """The inverse of encode."""
        return cls(*_elements(data)[:6])


@attrs.frozen
class NodeRecord:
    """A member. ``zone`` names what fails together (rack, site); "" is a zone too."""

    node: int
    store_uuid: bytes
    address: str  # "host:port"
    zone: str
    boot_counter: int  # the highest seen
    state: NodeState = NodeState.UP
    weight: int = 1  # share of the replicas, relative to other nodes

    @property
    def usable(self) -> bool:
        """Whether the planner may put a replica there."""
        return self.state is NodeState.UP

    def encode(self) -> bytes:
        """The record's bytes."""
        return encode(
            [
                self.node,
                self.store_uuid,
                self.address,
                self.zone,
                self.boot_counter,
                int(self.state),
                self.weight,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> NodeRecord:
        """The inverse of encode."""
        node, store_uuid, address, zone, boot_counter, state, weight = _elements(data)[:7]
        return cls(node, store_uuid, address, zone, boot_counter, NodeState(state), weight)


@attrs.frozen
class ReplicaRecord:
    """A replica that the cluster wants, and where."""

    replica: int
    node: int


@attrs.frozen
class ReportedReplica:
    """A replica that is in its shard's configuration."""

    replica: int
    node: int
    voter: bool


@attrs.frozen
class Report:
    """A shard's configuration as its leader told us. Ordered by (conf_version, term)."""

    conf_version: int = 0
    term: int = 0
    replicas: tuple[ReportedReplica, ...] = ()

    @property
    def voters(self) -> tuple[int, ...]:
        """The nodes that vote."""
        return tuple(replica.node for replica in self.replicas if replica.voter)


@attrs.frozen
class ShardRecord:
    """An arc of the ring and who holds it; the meta shard's arc is empty."""

    shard: int
    hash_lo: int
    hash_hi: int  # exclusive
    version: int  # of the arc; a split will raise it
    placement_version: int  # +1 with every change of `replicas`
    replicas: tuple[ReplicaRecord, ...]
    report: Report = Report()

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of the wanted replicas."""
        return tuple(replica.node for replica in self.replicas)

    def encode(self) -> bytes:
        """The record's bytes."""
        report = self.report
        return encode(
            [
                self.shard,
                self.hash_lo,
                self.hash_hi,
                self.version,
                self.placement_version,
                [[replica.replica, replica.node] for replica in self.replicas],
                report.conf_version,
                report.term,
                [[replica.replica, replica.node, replica.voter] for replica in report.replicas],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ShardRecord:
        """The inverse of encode. ~6 µs."""
        shard, lo, hi, version, placement_version, wanted, conf_version, term, reported = _elements(
            data
        )[:9]
        return cls(
            shard,
            lo,
            hi,
            version,
            placement_version,
            tuple(ReplicaRecord(replica, node) for replica, node in wanted),
            Report(
                conf_version,
                term,
                tuple(ReportedReplica(replica, node, voter) for replica, node, voter in reported),
            ),
        )


def meta_shard_record(replicas: Sequence[ReplicaRecord]) -> ShardRecord:
    """The meta shard's first record."""
    return ShardRecord(META_SHARD, 0, 0, 1, 1, tuple(replicas))


def _elements(data: bytes) -> list[Any]:
    # Only this program's own encode has written these bytes, and storage has
    # checked their digest.
    elements = decode(data)
    assert isinstance(elements, list), "a meta record is an array"
    return elements
