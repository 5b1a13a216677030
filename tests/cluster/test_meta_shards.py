"""What people do to placements, and how a shard is split."""

from __future__ import annotations

import itertools

import attrs
import pytest

from krita.errors import BadRequest, ConditionFailed
from krita.operations import Op
from krita.ring import RING_SIZE
from kritad.cluster.model import (
    CLUSTER_KEY,
    SHARDS_MAX,
    ClusterRecord,
    NodeState,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
    SplitReplica,
    shard_key,
)
from tests.cluster.records import DictRecords, add_node, bootstrapped, refused, report_all


def cluster(shards: int = 2) -> DictRecords:
    """Five nodes; the shards are on 1, 2 and 3, and reported so."""
    records = bootstrapped(shards)
    for _ in range(4):
        add_node(records)
    for shard in range(1, shards + 1):
        records.call(Op.META_PLACE, shard, 1, [1, 2, 3])
    report_all(records)
    return records


def shard(records: DictRecords, number: int = 1) -> ShardRecord:
    return records.view.shards[number]


# -- Damaged replicas ----------------------------------------------------------------


def test_a_damaged_replica_gets_a_new_id_where_it_is() -> None:
    records = cluster()
    before, given = shard(records), records.view.replica_next
    assert records.call(Op.META_REBUILD, 1, 2, before.replicas[1].replica) == [3]
    after = shard(records)
    assert after.replicas == (before.replicas[0], ReplicaRecord(given, 2), before.replicas[2])
    assert after.in_motion
    assert after.arriving == (2,)
    assert records.view.replica_next == given + 1


def test_a_damaged_replica_of_the_meta_shard_gets_a_new_id_too() -> None:
    records = cluster()
    before, given = shard(records, 0), records.view.replica_next
    records.call(Op.META_REBUILD, 0, before.placement_version, before.replicas[1].replica)
    after = shard(records, 0)
    assert after.replicas[1] == ReplicaRecord(given, 2)
    assert after.nodes == before.nodes
    assert records.view.replica_next == given + 1


def test_what_is_wanted_anew_stays_wanted_when_the_shard_is_placed_elsewhere() -> None:
    records = cluster()
    damaged = shard(records).replicas[1].replica
    records.call(Op.META_REBUILD, 1, 2, damaged)
    records.call(Op.META_PLACE, 1, 3, [1, 2, 4])
    assert damaged not in {replica.replica for replica in shard(records).replicas}


def test_a_rebuild_is_refused_when_the_placement_has_moved_on_or_the_shard_is_being_split() -> None:
    records = cluster()
    damaged = shard(records).replicas[1].replica
    refused(records, ConditionFailed, "version 2", Op.META_REBUILD, 1, 1, damaged)
    refused(records, ConditionFailed, "not wanted", Op.META_REBUILD, 1, 2, 999)
    records.call(Op.SHARD_SPLIT, 1)
    refused(records, ConditionFailed, "being split", Op.META_REBUILD, 1, 2, damaged)


# -- Moves by hand -------------------------------------------------------------------


def test_a_shard_is_moved_by_hand() -> None:
    records = cluster()
    before = shard(records)
    assert records.call(Op.SHARD_MOVE, 1, 3, 4) == [3]
    after = shard(records)
    assert after.nodes == (1, 2, 4)
    assert after.replicas[:2] == before.replicas[:2]
    assert after.in_motion
    assert after.pinned


def test_what_was_moved_by_hand_is_let_go_by_resuming_its_moves() -> None:
    records = cluster()
    records.call(Op.SHARD_MOVE, 1, 3, 4)
    records.call(Op.SHARD_HOLD, 1, True)
    assert shard(records).pinned
    records.call(Op.SHARD_HOLD, 1, False)
    assert not shard(records).pinned
    records.call(Op.SHARD_MOVE, 2, 3, 4)
    records.call(Op.MOVE_CANCEL, 2)
    assert not shard(records, 2).pinned


def test_a_move_that_is_asked_for_again_is_answered_again() -> None:
    records = cluster()
    records.call(Op.SHARD_MOVE, 1, 3, 4)
    before = dict(records.data)
    assert records.call(Op.SHARD_MOVE, 1, 3, 4) == [3]
    assert records.data == before


def test_a_move_by_hand_has_to_make_sense() -> None:
    records = cluster()
    refused(records, BadRequest, "meta shard", Op.SHARD_MOVE, 0, 1, 4)
    refused(records, BadRequest, "no shard 9", Op.SHARD_MOVE, 9, 1, 4)
    refused(records, BadRequest, "no node 9", Op.SHARD_MOVE, 1, 1, 9)
    refused(records, ConditionFailed, "holds no replica", Op.SHARD_MOVE, 1, 5, 4)
    refused(records, ConditionFailed, "already", Op.SHARD_MOVE, 1, 1, 2)
    records.call(Op.NODE_SET, 4, int(NodeState.DRAINING), None)
    refused(records, ConditionFailed, "node 4 is not up", Op.SHARD_MOVE, 1, 1, 4)


def test_a_shard_that_moves_or_is_stopped_or_split_is_not_moved_by_hand() -> None:
    records = cluster()
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])
    refused(records, ConditionFailed, "on the move", Op.SHARD_MOVE, 1, 1, 5)
    records.call(Op.SHARD_HOLD, 2, True)
    refused(records, ConditionFailed, "shard 2's moves are paused", Op.SHARD_MOVE, 2, 1, 5)
    records.call(Op.SHARD_HOLD, 2, False)
    records.call(Op.SHARD_HOLD, 0, True)
    refused(records, ConditionFailed, "all moves are paused", Op.SHARD_MOVE, 2, 1, 5)
    records.call(Op.SHARD_SPLIT, 2)
    refused(records, ConditionFailed, "being split", Op.SHARD_MOVE, 2, 1, 5)


# -- Stopping and taking back --------------------------------------------------------


def test_one_shard_is_held_or_all_are_paused() -> None:
    records = cluster()
    records.call(Op.SHARD_HOLD, 2, True)
    assert (shard(records, 1).held, shard(records, 2).held) == (False, True)
    assert not records.view.paused
    records.call(Op.SHARD_HOLD, 0, True)
    assert records.view.paused
    records.call(Op.SHARD_HOLD, 0, False)
    assert (records.view.paused, shard(records, 2).held) == (False, True)


def test_holding_what_is_held_changes_nothing() -> None:
    records = cluster()
    for number in (0, 1):
        records.call(Op.SHARD_HOLD, number, True)
        before = dict(records.data)
        records.call(Op.SHARD_HOLD, number, True)
        assert records.data == before


def test_a_cancelled_move_wants_those_who_vote_and_holds_the_shard() -> None:
    records = cluster()
    before = shard(records)
    records.call(Op.META_PLACE, 1, 2, [3, 4, 5])
    assert records.call(Op.MOVE_CANCEL, 1) == [4]
    after = shard(records)
    assert set(after.replicas) == set(before.replicas)
    assert after.held
    assert not after.in_motion
    data = dict(records.data)
    assert records.call(Op.MOVE_CANCEL, 1) == [4]
    assert records.data == data


def test_what_is_wanted_of_a_shard_that_is_being_split_is_not_changed_by_a_cancel() -> None:
    """Seed 21135: a report came late, from before the split was decided. With its voters
    wanted, those whose halves had ids never were all of them again, and nothing was cut."""
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    wanted = shard(records).replicas
    late = [[replica.replica, replica.node, True] for replica in wanted]
    records.call(Op.META_REPORT, 1, 9, 9, [*late, [99, 4, True]])
    assert shard(records).in_motion
    refused(records, ConditionFailed, "being split", Op.MOVE_CANCEL, 1)
    assert shard(records).replicas == wanted


def test_only_a_move_that_has_begun_is_cancelled() -> None:
    records = bootstrapped(2)
    refused(records, ConditionFailed, "not reported", Op.MOVE_CANCEL, 1)
    refused(records, BadRequest, "meta shard", Op.MOVE_CANCEL, 0)
    refused(cluster(), ConditionFailed, "not on the move", Op.MOVE_CANCEL, 1)


def test_a_placement_made_before_a_cancel_is_refused_after_it() -> None:
    records = cluster()
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])
    records.call(Op.MOVE_CANCEL, 1)
    refused(records, ConditionFailed, "version 4", Op.META_PLACE, 1, 3, [1, 2, 5])


def test_a_node_that_still_votes_is_wanted_again_with_the_replica_that_it_has() -> None:
    records = cluster()
    before = shard(records)
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])
    records.call(Op.META_PLACE, 1, 3, [1, 2, 3])
    assert shard(records).replicas == before.replicas


def test_a_node_that_only_learns_is_wanted_again_with_another_replica() -> None:
    # Its node may have deleted the one that it had: only voters are safe from that.
    records = cluster()
    before = shard(records)
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])
    members = [[r.replica, r.node, r.node != 3] for r in before.replicas]
    records.call(Op.META_REPORT, 1, 9, 1, members)
    records.call(Op.META_PLACE, 1, 3, [1, 2, 3])
    assert shard(records).replicas[2].replica not in {r.replica for r in before.replicas}


def test_a_node_that_has_left_is_not_wanted() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 5, int(NodeState.REMOVING), None)
    refused(records, ConditionFailed, "node 5 has been removed", Op.META_PLACE, 1, 2, [1, 2, 5])


# -- Splits --------------------------------------------------------------------------


def test_a_split_is_decided_with_new_ids_for_each_replica() -> None:
    records = cluster()
    cluster_before = ClusterRecord.decode(records.data[CLUSTER_KEY])
    assert records.call(Op.SHARD_SPLIT, 1) == [3]
    record = shard(records)
    first = cluster_before.replica_next
    assert record.split is not None
    assert record.split.shard_new == 3
    assert record.split.replicas == tuple(
        SplitReplica(known.replica, first + number, known.node)
        for number, known in enumerate(record.replicas)
    )
    assert sorted(records.view.shards) == [0, 1, 2]
    assert records.call(Op.SHARD_SPLIT, 2) == [4]
    again = shard(records, 2).split
    assert again is not None
    given = [half.replica_new for half in (*record.split.replicas, *again.replicas)]
    assert given == list(range(first, first + 6)), "an id was given out twice"
    assert records.view.replica_next == first + 6


def test_a_split_that_is_asked_for_again_is_the_same() -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    before = dict(records.data)
    assert records.call(Op.SHARD_SPLIT, 1) == [3]
    assert records.data == before


def test_what_cannot_be_split() -> None:
    records = cluster()
    refused(records, BadRequest, "meta shard", Op.SHARD_SPLIT, 0)
    refused(records, BadRequest, "no shard 9", Op.SHARD_SPLIT, 9)
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])
    refused(records, ConditionFailed, "on the move", Op.SHARD_SPLIT, 1)
    point = attrs.evolve(shard(records, 2), hash_hi=shard(records, 2).hash_lo + 1)
    records.put(shard_key(2), point.encode())
    refused(records, ConditionFailed, "a single point", Op.SHARD_SPLIT, 2)
    records.put(shard_key(2), attrs.evolve(point, hash_hi=point.hash_lo + 2).encode())
    record = ClusterRecord.decode(records.data[CLUSTER_KEY])
    records.put(CLUSTER_KEY, attrs.evolve(record, shard_next=SHARDS_MAX + 1).encode())
    refused(records, ConditionFailed, "4096 shards", Op.SHARD_SPLIT, 2)
    records.put(CLUSTER_KEY, attrs.evolve(record, shard_next=SHARDS_MAX).encode())
    assert records.call(Op.SHARD_SPLIT, 2) == [SHARDS_MAX]


def test_a_shard_that_is_being_split_is_placed_nowhere_else() -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    refused(records, ConditionFailed, "being split", Op.META_PLACE, 1, 2, [1, 2, 4])
    assert records.call(Op.META_PLACE, 1, 2, [3, 2, 1]) == [2]  # where it is


def test_a_split_that_is_done_makes_two_shards_of_one() -> None:
    records = cluster()
    before = shard(records)
    records.call(Op.SHARD_SPLIT, 1)
    split = shard(records).split
    assert split is not None
    assert records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 20, 2, 5, 8) == []
    parent, child = shard(records, 1), shard(records, 3)
    assert parent == attrs.evolve(before, hash_hi=1 << 20, version=2)
    halves = split.replicas
    assert child == ShardRecord(
        3,
        1 << 20,
        before.hash_hi,
        2,
        2,  # its replicas are not to begin a group of their own
        tuple(ReplicaRecord(half.replica_new, half.node) for half in halves),
        # The term is the parent's, and counted otherwise in the new group.
        Report(1, 0, tuple(ReportedReplica(h.replica_new, h.node, True) for h in halves)),
    )
    assert not child.in_motion
    arcs = sorted((r.hash_lo, r.hash_hi) for r in records.view.data_shards)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(arcs))
    assert (arcs[0][0], arcs[-1][1]) == (0, RING_SIZE)


def test_a_split_that_was_told_before_is_ignored() -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 20, 2, 5, 8)
    before = dict(records.data)
    assert records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 20, 2, 5, 8) == []
    assert records.data == before
    records.call(Op.SHARD_SPLIT, 1)
    before = dict(records.data)
    assert records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 10, 3, 5, 8) == []
    assert records.data == before


def test_a_split_that_cannot_be_done_is_called_off() -> None:
    records = cluster()
    before = shard(records)
    records.call(Op.SHARD_SPLIT, 1)
    assert records.call(Op.META_SPLIT_DONE, 1, 3, 0, 1, 5, 8) == []
    assert shard(records) == before
    assert len(records.view.data_shards) == 2
    assert records.call(Op.SHARD_SPLIT, 1) == [4], "a number that was given out is not given again"


@pytest.mark.parametrize("at", [-1, RING_SIZE, RING_SIZE // 2, RING_SIZE - 5, None])
def test_a_split_is_inside_the_arc(at: object) -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    refused(records, BadRequest, "at", Op.META_SPLIT_DONE, 1, 3, at, 2, 5, 8)


def test_a_split_leaves_something_on_both_sides() -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 2)
    lo = shard(records, 2).hash_lo
    refused(records, BadRequest, "no inside", Op.META_SPLIT_DONE, 2, 3, lo, 2, 5, 8)
    records.call(Op.META_SPLIT_DONE, 2, 3, lo + 1, 2, 5, 8)
    assert (shard(records, 2).hash_hi, shard(records, 3).hash_lo) == (lo + 1, lo + 1)


def test_the_halves_of_a_held_shard_are_held() -> None:
    records = cluster()
    records.call(Op.SHARD_HOLD, 1, True)
    records.call(Op.SHARD_SPLIT, 1)
    records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 20, 2, 5, 8)
    assert shard(records, 1).held
    assert shard(records, 3).held


def test_a_new_shard_is_reported_placed_and_split_as_any_other() -> None:
    records = cluster()
    records.call(Op.SHARD_SPLIT, 1)
    records.call(Op.META_SPLIT_DONE, 1, 3, 1 << 20, 2, 5, 8)
    assert records.call(Op.META_PLACE, 3, 2, [1, 2, 4]) == [3]
    told = [[r.replica, r.node, True] for r in shard(records, 3).replicas]
    records.call(Op.META_REPORT, 3, 4, 9, told)
    assert records.call(Op.SHARD_SPLIT, 3) == [4]
