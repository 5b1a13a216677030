"""The meta shard's part in a split: it gives out the ids first, and draws the new
arcs last.

In between stands the shard's own log, whose SPLIT entry cuts the shard on each
replica at the same index. Until the meta shard has drawn the new arcs, maps
send everybody to the old shard, which says that it does not own the key; so the
order is safe, and the gap short.

While ``ShardRecord.split`` is set, nobody may change where the shard is: the
replicas that its log will cut have their new ids already.
"""

from __future__ import annotations

import attrs

from krita.errors import BadRequest, ConditionFailed, Status
from krita.operations import Op
from krita.ring import META_SHARD, RING_SIZE
from kritad.cluster.fields import Fields
from kritad.cluster.model import (
    SHARDS_MAX,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
    Split,
    SplitReplica,
)
from kritad.cluster.tables import Tables
from kritad.cluster.view import Records

_OK = int(Status.OK)

# Told in the place of an edge when the shard is of one piece.
NO_CUT = 0
# A configuration's first version; a shard that a split has made is at that.
_CONF_VERSION_FIRST = 1
# Above every later term of the new shard a report's term would be proof against voters
# (host/upkeep.py). No leader of it has reported yet; the parent's term says nothing of it.
_TERM_NONE = 0
# Above that of a shard whose first replica begins it: nobody begins this one, every
# replica of it has the rows and the log's beginning from the shard that was split.
PLACEMENT_VERSION_SPLIT = 2


def shard_split(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """SHARD_SPLIT: decide to cut a shard in two. Replies with the new shard's number;
    with the same one as long as that split is under way."""
    fields = Fields(Op.SHARD_SPLIT, values)
    shard = fields.count("shard")
    tables = Tables(records, index)
    cluster = tables.cluster
    if shard == META_SHARD:
        raise BadRequest("shard_split: the meta shard has no keys to divide")
    record = tables.shard(shard)
    if record.split is not None:
        return _OK, [record.split.shard_new]
    _check_can_split(record, cluster.shard_next)
    replica = cluster.replica_next
    halves = tuple(
        SplitReplica(known.replica, replica + number, known.node)
        for number, known in enumerate(record.replicas)
    )
    tables.write(
        shards=[attrs.evolve(record, split=Split(cluster.shard_next, halves))],
        cluster=attrs.evolve(
            cluster, replica_next=replica + len(halves), shard_next=cluster.shard_next + 1
        ),
    )
    return _OK, [cluster.shard_next]


def split_done(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_SPLIT_DONE: the shard's log has cut it at ``at``; NO_CUT calls the split off.
    Ignored when no such split is under way: it was told before."""
    fields = Fields(Op.META_SPLIT_DONE, values)
    shard, shard_new = fields.count("shard"), fields.count("shard_new", 1)
    at = fields.count("at", NO_CUT, RING_SIZE - 1)
    version = fields.count("version", 1)
    fields.count("conf_version")  # the parent's configuration and term
    fields.count("term")
    tables = Tables(records, index)
    record = tables.shard(shard)
    split = record.split
    if split is None or split.shard_new != shard_new:
        return _OK, []
    if at == NO_CUT:
        tables.write(shards=[attrs.evolve(record, split=None)])
        return _OK, []
    if not record.hash_lo < at < record.hash_hi:
        raise BadRequest(f"meta_split_done: at {at} there is no inside of shard {shard}'s arc")
    born = ShardRecord(
        shard_new,
        at,
        record.hash_hi,
        version,
        PLACEMENT_VERSION_SPLIT,
        tuple(ReplicaRecord(half.replica_new, half.node) for half in split.replicas),
        Report(
            _CONF_VERSION_FIRST,
            _TERM_NONE,
            tuple(ReportedReplica(half.replica_new, half.node, True) for half in split.replicas),
        ),
        held=record.held,
    )
    tables.write(shards=[attrs.evolve(record, hash_hi=at, version=version, split=None), born])
    return _OK, []


def _check_can_split(record: ShardRecord, shard_next: int) -> None:
    if record.in_motion:
        raise ConditionFailed(
            f"shard {record.shard} is on the move",
            hint="it can be split when its replicas are where they shall be",
        )
    if record.hash_hi - record.hash_lo < 2:
        raise ConditionFailed(f"shard {record.shard} owns a single point of the ring")
    if shard_next > SHARDS_MAX:
        raise ConditionFailed(f"there are {SHARDS_MAX} shards, which is as many as can be")
