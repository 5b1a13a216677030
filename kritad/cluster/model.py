"""The meta shard's records as values, and their bytes.

One record per node, per shard, and one for the cluster as a whole, each a CBOR
array under a key that sorts: ``b"cluster"``, ``b"node/00000001"``,
``b"shard/00000003"``. Elements may be added behind the known ones: a reader
ignores those it does not know.

A shard's record keeps two things apart. ``replicas`` is what the cluster *wants*;
it changes by compare-and-set on ``placement_version``. ``report`` is what the
shard's own log *says*, as its leader told us last; the meta shard never edits
it (raft.md 4.4: a shard's own log decides its membership). ``offered`` stands between the
two: nodes that were wanted, are not any more and were not reported either. The shard's
leader may be making them members just now, by an older wish than the one here.
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

SHARDS_MAX = 4096  # data shards; each costs every node that holds it a Raft group
WEIGHT_MAX = 100  # of a node; see planner.py


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
    LEFT = 3  # gone for good; the record stays so that the id is never reused
    REMOVING = 4  # as DRAINING, and has LEFT as soon as it holds nothing any more


@attrs.frozen
class ClusterRecord:
    """What there is once. ``version`` is the log index of the newest change to any
    record, the ``_next`` are the ids to give out next. While ``paused``, no move of
    a data shard begins or goes on."""

    cluster_id: bytes
    shards: int  # data shards at the bootstrap, the meta shard not counted
    replication_factor: int
    node_next: int
    replica_next: int
    version: int
    shard_next: int
    paused: bool = False

    def encode(self) -> bytes:
        """The record's bytes."""
        return encode(attrs.astuple(self))

    @classmethod
    def decode(cls, data: bytes) -> ClusterRecord:
        """The inverse of encode."""
        elements = _elements(data)[:8]
        if len(elements) < 7:  # of a release whose shards were as many for ever
            elements.append(elements[1] + 1)
        return cls(*elements)


@attrs.frozen
class NodeRecord:
    """A member. ``zone`` names what fails together (rack, site); "" is a zone too.

    ``state`` is what people intend with it, ``dead`` what the meta shard's leader has
    found out: that nobody has heard of it for too long.
    """

    node: int
    store_uuid: bytes
    address: str  # "host:port"
    zone: str
    boot_counter: int  # the highest seen
    state: NodeState = NodeState.UP
    weight: int = 1  # share of the replicas, relative to other nodes
    dead: bool = False
    nonce: bytes = b""  # drawn by the store at its newest boot (host/bootstrap.py)
    successor: int = 0  # the node that shall get its replicas; 0: whoever is best

    @property
    def usable(self) -> bool:
        """Whether the planner may put a replica there."""
        return self.state is NodeState.UP and not self.dead

    @property
    def left(self) -> bool:
        """Whether it is no member any more."""
        return self.state is NodeState.LEFT

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
                self.dead,
                self.nonce,
                self.successor,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> NodeRecord:
        """The inverse of encode."""
        node, store_uuid, address, zone, boot_counter, state, *rest = _elements(data)[:10]
        return cls(node, store_uuid, address, zone, boot_counter, NodeState(state), *rest)


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

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of all members, voters or not."""
        return tuple(replica.node for replica in self.replicas)


@attrs.frozen
class SplitReplica:
    """A replica of a shard that is to be split, and its half of the new shard."""

    replica: int
    replica_new: int
    node: int


@attrs.frozen
class Split:
    """A split that was decided: ids are given out, the shard's leader does the rest.
    There is no way back: the shard's log may have it already."""

    shard_new: int
    replicas: tuple[SplitReplica, ...]


@attrs.frozen
class ShardRecord:
    """An arc of the ring and who holds it; the meta shard's arc is empty."""

    shard: int
    hash_lo: int
    hash_hi: int  # exclusive
    version: int  # of the arc; a split raises it
    placement_version: int  # +1 with every change of `replicas`
    replicas: tuple[ReplicaRecord, ...]
    report: Report = Report()
    held: bool = False  # people have stopped its moves
    split: Split | None = None
    pinned: bool = False  # people have put it where it is: not moved for balance
    # Until the newest leader that has reported said that it knows the newest wish.
    offered: tuple[int, ...] = ()

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of the wanted replicas."""
        return tuple(replica.node for replica in self.replicas)

    @property
    def in_motion(self) -> bool:
        """Whether other replicas vote than are wanted, as far as has been reported.
        Always so before the first report."""
        wanted = {replica.replica for replica in self.replicas}
        return wanted != {member.replica for member in self.report.replicas if member.voter}

    @property
    def arriving(self) -> tuple[int, ...]:
        """The nodes that are to get a replica: those of the wanted ones that do not vote."""
        voting = {member.replica for member in self.report.replicas if member.voter}
        return tuple(known.node for known in self.replicas if known.replica not in voting)

    @property
    def holders(self) -> tuple[int, ...]:
        """The nodes that vote in it; before the first report, those that shall."""
        return self.report.voters or self.nodes

    @property
    def held_by(self) -> frozenset[int]:
        """The nodes that are wanted, are members as far as has been reported, or may be."""
        return frozenset((*self.nodes, *self.report.nodes, *self.offered))

    def holds(self, node: int) -> bool:
        """Whether the node is one of those."""
        return node in self.held_by

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
                self.held,
                _split_to_wire(self.split),
                self.pinned,
                list(self.offered),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ShardRecord:
        """The inverse of encode. ~6 µs."""
        elements = _elements(data)[:13]
        shard, lo, hi, version, placement_version, wanted, conf_version, term, reported = elements[
            :9
        ]
        held, split, pinned, *offered = elements[9:] or (False, None, False)
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
            held,
            _split_from_wire(split),
            pinned,
            tuple(offered[0]) if offered else (),
        )


def meta_shard_record(replicas: Sequence[ReplicaRecord]) -> ShardRecord:
    """The meta shard's first record."""
    return ShardRecord(META_SHARD, 0, 0, 1, 1, tuple(replicas))


def _split_to_wire(split: Split | None) -> list[object] | None:
    if split is None:
        return None
    return [split.shard_new, [[r.replica, r.replica_new, r.node] for r in split.replicas]]


def _split_from_wire(item: Any) -> Split | None:
    if item is None:
        return None
    shard_new, replicas = item
    return Split(shard_new, tuple(SplitReplica(*replica) for replica in replicas))


def _elements(data: bytes) -> list[Any]:
    # Only this program's own encode has written these bytes, and storage has
    # checked their digest.
    elements = decode(data)
    assert isinstance(elements, list), "a meta record is an array"
    return elements
