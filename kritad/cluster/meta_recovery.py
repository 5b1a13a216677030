"""What the meta shard makes of a recovery (cluster/recovery.py): its first entry behind one.

Its log and those of the shards went on as far as the survivors had them, each for itself:
either may lack what the other knows of a split. So it is told which shards are on the
survivors' disks, and with which arcs.

Rules:
* Numbers that the lost entries may have given out are stepped over: some are in use on
  the survivors' disks, as shards, as replicas, in votes.
* A shard that the disks have and the records lack is taken up. The shard whose arc has
  contained it has cut it off: else it would not be there.
* A shard that the records have and the disks lack, while an arc on the disks contains its
  own, has never been split off there: that arc is taken back. What was written to it
  behind the split is lost, what is older is found again.
* A split that was decided is over: it is done on the disks, or is called off, because its ids
  were given out for replicas that are lost, and it would never be done.
* What fits none of these is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from krita.errors import BadRequest, Status
from krita.operations import Op
from krita.ring import META_SHARD, RING_SIZE
from kritad.cluster.fields import Fields
from kritad.cluster.meta_splits import PLACEMENT_VERSION_SPLIT
from kritad.cluster.model import ReplicaRecord, ShardRecord, shard_key
from kritad.cluster.tables import Tables
from kritad.cluster.view import Records

_OK = int(Status.OK)

# How far a recovery steps over what entries that are lost may have given out: to replicas in
# the survivors' logs that nobody has made yet, and to nodes that are lost and not known of. Of
# shards there are SHARDS_MAX in all of a cluster's life, so that step is small: as many
# splits as can be on their way.
NODE_STEP = 1_000
REPLICA_STEP = 1_000_000
SHARD_STEP = 64


@attrs.frozen
class FoundShard:
    """A shard on the survivors' disks. ``arc`` None: not known, or nothing that is sound."""

    shard: int
    arc: tuple[int, int] | None
    replicas: tuple[tuple[int, int], ...]  # members that are left, and their nodes

    def to_fields(self) -> list[object]:
        """For the entry."""
        lo, hi = self.arc or (None, None)
        return [self.shard, lo, hi, [list(each) for each in self.replicas]]

    @classmethod
    def of(cls, fields: object) -> FoundShard:
        """The inverse. Raises BadRequest."""
        match fields:
            case [int(shard), lo, hi, [*members]]:
                arc = (lo, hi) if type(lo) is int and type(hi) is int else None
                replicas = tuple(map(_member, members))
                if arc is None or 0 <= arc[0] < arc[1] <= RING_SIZE:
                    return cls(shard, arc, replicas)
        raise BadRequest("meta_recovered: a shard is [shard, lo, hi, replicas]")


def _member(fields: object) -> tuple[int, int]:
    match fields:
        case [int(replica), int(node)] if replica > 0 and node > 0:
            return replica, node
    raise BadRequest("meta_recovered: a replica is [replica, node]")


def recovered(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_RECOVERED: see the module's rules."""
    fields = Fields(Op.META_RECOVERED, values)
    node, replica, shard = fields.count("node"), fields.count("replica"), fields.count("shard")
    found = [FoundShard.of(each) for each in fields.array("shards")]
    tables = Tables(records, index)
    cluster = tables.cluster
    known = {record.shard: record for record in tables.data_shards()}
    after = reconciled(known, found)
    for gone in sorted(known.keys() - after.keys()):
        records.delete(shard_key(gone))
    tables.write(
        shards=after.values(),
        cluster=attrs.evolve(
            cluster,
            node_next=max(cluster.node_next, node + 1) + NODE_STEP,
            replica_next=max(cluster.replica_next, replica + 1) + REPLICA_STEP,
            shard_next=max(cluster.shard_next, shard + 1) + SHARD_STEP,
        ),
    )
    return _OK, []


def reconciled(
    known: dict[int, ShardRecord], found: Sequence[FoundShard]
) -> dict[int, ShardRecord]:
    """The data shards' records as the disks say that they are."""
    after = dict(known)
    there = {each.shard for each in found}
    # From the last arc on: of what was split off twice, the outer one goes first.
    for each in sorted(found, key=lambda each: each.arc or (0, 0), reverse=True):
        if each.shard not in known and each.shard != META_SHARD and each.arc is not None:
            _take_up(after, each)
    for each in found:
        record = after.get(each.shard)
        if record is not None and each.arc is not None:
            _take_back(after, record, each.arc, there)
    for number, record in after.items():
        new = record.split and record.split.shard_new
        if new and number in there and (new in after or new not in there):
            after[number] = attrs.evolve(record, split=None)
    return after


def _take_up(after: dict[int, ShardRecord], each: FoundShard) -> None:
    assert each.arc is not None
    lo, hi = each.arc
    for owner in after.values():
        if owner.hash_lo < lo < owner.hash_hi == hi:
            version = owner.version + 1
            wanted = tuple(ReplicaRecord(*member) for member in each.replicas)
            after[owner.shard] = attrs.evolve(owner, hash_hi=lo, version=version)
            after[each.shard] = ShardRecord(
                each.shard, lo, hi, version, PLACEMENT_VERSION_SPLIT, wanted, held=owner.held
            )
            return


def _take_back(
    after: dict[int, ShardRecord], record: ShardRecord, arc: tuple[int, int], there: set[int]
) -> None:
    lo, hi = arc
    if lo != record.hash_lo or hi <= record.hash_hi:
        return
    lost = [r for r in after.values() if record.hash_hi <= r.hash_lo and r.hash_hi <= hi]
    if any(r.shard in there for r in lost) or hi not in {r.hash_hi for r in lost}:
        return
    for each in lost:
        del after[each.shard]
    version = max(each.version for each in (record, *lost)) + 1
    after[record.shard] = attrs.evolve(record, hash_hi=hi, version=version)
