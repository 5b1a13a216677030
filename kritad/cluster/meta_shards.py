"""The meta shard's operations on placements: who shall hold a shard, and who does.

A *move* is the difference between the replicas that are wanted and those that
vote: nothing else is written down about it, so whoever leads next, the shard or
the meta shard, goes on where the last one stopped (raft.md 4.5).

Which replica id a node gets when it is wanted for a shard: its own, if it is
wanted already or still votes (the move that would have ended that is taken back),
else a new one. Only a *voter's* id comes back: it cannot have been deleted, since its
node deletes it when a report without it is known (host/upkeep.py). One that is damaged
gets a new id where it is (``rebuild``): under its own it has no say any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from krita.errors import BadRequest, ConditionFailed, Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.cluster.fields import Fields
from kritad.cluster.model import (
    ClusterRecord,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
)
from kritad.cluster.tables import Tables, placed, write_shard
from kritad.cluster.view import Records

_OK = int(Status.OK)


def place(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_PLACE: want a shard's replicas on these nodes. Replicas of nodes that
    stay keep their ids. Replies with the new placement_version."""
    fields = Fields(Op.META_PLACE, values)
    shard = fields.count("shard")
    expected_version = fields.count("expected_version")
    nodes = fields.counts("nodes")
    tables = Tables(records, index)
    if shard == META_SHARD:
        raise BadRequest("meta_place: every node is a member of the meta shard")
    record = tables.shard(shard)
    known = [tables.node(node) for node in nodes]
    _check_version(record, expected_version)
    left = next((node.node for node in known if node.left), None)
    if left is not None:
        raise ConditionFailed(f"node {left} has been removed from this cluster")
    if set(nodes) == set(record.nodes):
        return _OK, [record.placement_version]
    _check_whole(record)
    after, cluster = _wanting(record, nodes, tables.cluster)
    write_shard(tables, record, after, cluster)
    return _OK, [after.placement_version]


def report(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_REPORT: a shard's configuration as its leader has it. The newest
    (conf_version, term) wins; an older one, arriving late, changes nothing. From a leader
    that knows the newest wish it says as well whom it will not make a member any more; nor
    will a later one, who reports first (host/steward.py). Of an earlier one that counts for
    nothing."""
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
    tables = Tables(records, index)
    record = tables.shard(shard)
    known, wish_known = record.report, fields.optional_count("placement_version")
    age, age_known = (told.conf_version, told.term), (known.conf_version, known.term)
    news = age > age_known
    settled = wish_known == record.placement_version and age >= age_known
    if not news and not (settled and record.offered):
        return _OK, []
    after = attrs.evolve(
        record, report=told if news else known, offered=() if settled else record.offered
    )
    if shard == META_SHARD:
        tables.write(shards=[after])
    else:
        write_shard(tables, record, after)
    return _OK, []


def rebuild(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_REBUILD: want another replica in the place of a damaged one, on its node. Replies
    with the new placement_version."""
    fields = Fields(Op.META_REBUILD, values)
    shard = fields.count("shard")
    expected_version, damaged = fields.count("expected_version"), fields.count("replica", 1)
    tables = Tables(records, index)
    record = tables.shard(shard)
    _check_version(record, expected_version)
    _check_whole(record)
    if damaged not in {replica.replica for replica in record.replicas}:
        raise ConditionFailed(f"replica {damaged} of shard {shard} is not wanted any more")
    cluster = tables.cluster
    replicas = [
        ReplicaRecord(cluster.replica_next, known.node) if known.replica == damaged else known
        for known in record.replicas
    ]
    after = placed(record, replicas)
    cluster = attrs.evolve(cluster, replica_next=cluster.replica_next + 1)
    tables.write(shards=[after], cluster=cluster)
    return _OK, [after.placement_version]


def shard_move(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """SHARD_MOVE: want the replica of ``source`` on ``target``, and pin the shard: what
    people have moved is not moved back for balance. Replies with the placement_version;
    the same again for a move that is wanted already."""
    fields = Fields(Op.SHARD_MOVE, values)
    shard = fields.count("shard")
    source, target = fields.count("source", 1), fields.count("target", 1)
    tables = Tables(records, index)
    if shard == META_SHARD:
        raise BadRequest("shard_move: every node is a member of the meta shard")
    record = tables.shard(shard)
    tables.node(source)
    heir = tables.node(target)
    if target in record.nodes and source not in record.nodes:
        return _OK, [record.placement_version]
    if source not in record.nodes:
        raise ConditionFailed(f"node {source} holds no replica of shard {shard}")
    if target in record.nodes:
        raise ConditionFailed(f"node {target} holds a replica of shard {shard} already")
    if not heir.usable:
        raise ConditionFailed(
            f"node {target} is not up, so that it gets no replica", hint="move it to another node"
        )
    _check_whole(record)
    _check_at_rest(tables.cluster, record)
    nodes = [target if node == source else node for node in record.nodes]
    after, cluster = _wanting(record, nodes, tables.cluster)
    write_shard(tables, record, attrs.evolve(after, pinned=True), cluster)
    return _OK, [after.placement_version]


def shard_hold(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """SHARD_HOLD: stop or resume the moves of a shard; of all with shard 0. What is resumed
    is pinned no more."""
    fields = Fields(Op.SHARD_HOLD, values)
    shard, held = fields.count("shard"), fields.flag("held")
    tables = Tables(records, index)
    if shard == META_SHARD:
        tables.write(cluster=attrs.evolve(tables.cluster, paused=held))
    else:
        record = tables.shard(shard)
        tables.write(shards=[attrs.evolve(record, held=held, pinned=record.pinned and held)])
    return _OK, []


def move_cancel(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """MOVE_CANCEL: want the replicas that vote, whatever was wanted, and hold the
    shard, or else the planner would begin again. Replies with the
    placement_version."""
    fields = Fields(Op.MOVE_CANCEL, values)
    shard = fields.count("shard")
    tables = Tables(records, index)
    if shard == META_SHARD:
        raise BadRequest("move_cancel: the meta shard is never moved as a whole")
    record = tables.shard(shard)
    if not record.in_motion:
        if record.held:
            return _OK, [record.placement_version]  # repeated
        raise ConditionFailed(
            f"shard {shard} is not on the move", hint="to keep it where it is, pause its moves"
        )
    # Its replicas have their new ids: a split waits until those, and no others, vote.
    _check_whole(record)
    voters = [ReplicaRecord(r.replica, r.node) for r in record.report.replicas if r.voter]
    if not voters:
        raise ConditionFailed(
            f"shard {shard} has not reported yet who holds it", hint="try again in a moment"
        )
    after = attrs.evolve(placed(record, voters), held=True, pinned=False)
    write_shard(tables, record, after)
    return _OK, [after.placement_version]


def _wanting(
    record: ShardRecord, nodes: Sequence[int], cluster: ClusterRecord
) -> tuple[ShardRecord, ClusterRecord]:
    """The shard with its replicas wanted on these nodes, ids as the module says."""
    known = {member.node: member.replica for member in record.report.replicas if member.voter}
    known.update({replica.node: replica.replica for replica in record.replicas})
    replica_next = cluster.replica_next
    replicas: list[ReplicaRecord] = []
    for node in nodes:
        if node not in known:
            known[node] = replica_next
            replica_next += 1
        replicas.append(ReplicaRecord(known[node], node))
    return placed(record, replicas), attrs.evolve(cluster, replica_next=replica_next)


def _check_version(record: ShardRecord, expected: int) -> None:
    if record.placement_version != expected:
        raise ConditionFailed(
            f"shard {record.shard}'s placement is at version {record.placement_version}",
            detail={"version": record.placement_version},
        )


def _check_whole(record: ShardRecord) -> None:
    if record.split is not None:
        raise ConditionFailed(
            f"shard {record.shard} is being split, with the replicas that it has",
            hint="try again when the split is done",
        )


def _check_at_rest(cluster: ClusterRecord, record: ShardRecord) -> None:
    if record.in_motion:
        raise ConditionFailed(
            f"shard {record.shard} is on the move", hint="wait for that move, or cancel it"
        )
    if record.held or cluster.paused:
        what = f"shard {record.shard}'s moves are" if record.held else "all moves are"
        raise ConditionFailed(f"{what} paused", hint="resume them first")
