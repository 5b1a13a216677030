"""What the meta shard makes of a recovery: numbers, and shards that one side lacks."""

from __future__ import annotations

import itertools

import pytest

from krita.errors import BadRequest
from krita.operations import Op
from krita.ring import RING_SIZE
from kritad.cluster.meta_recovery import NODE_STEP, REPLICA_STEP, SHARD_STEP, FoundShard
from kritad.cluster.model import CLUSTER_KEY, ClusterRecord, ReplicaRecord
from tests.cluster.records import DictRecords, bootstrapped, refused, report_all, store_uuid

HALF, QUARTER = RING_SIZE // 2, RING_SIZE // 4


def recover(records: DictRecords, *found: FoundShard) -> list[tuple[int, int, int, int]]:
    """The arcs behind it: (lo, hi, shard, version). They cover the ring."""
    records.call(Op.META_RECOVERED, 1, 90, 3, [shard.to_fields() for shard in found])
    arcs = sorted((r.hash_lo, r.hash_hi, r.shard, r.version) for r in records.view.data_shards)
    assert (arcs[0][0], arcs[-1][1]) == (0, RING_SIZE)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(arcs))
    return arcs


def there(shard: int, *arc: int, replica: int = 9) -> FoundShard:
    return FoundShard(shard, (arc[0], arc[1]) if arc else None, ((replica, 1),))


def split_twice() -> DictRecords:
    """Shard 1 is [0, quarter), 3 [quarter, half), 2 [half, end)."""
    records = bootstrapped(shards=1)
    report_all(records)
    for new, at in ((2, HALF), (3, QUARTER)):
        records.call(Op.SHARD_SPLIT, 1)
        records.call(Op.META_SPLIT_DONE, 1, new, at, new, 1, 1)
    return records


def test_a_recovery_gives_no_number_again_that_may_be_in_use() -> None:
    records = bootstrapped(shards=2)
    recover(records)
    assert records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "") == [
        2 + NODE_STEP,
        91 + REPLICA_STEP,
    ]
    cluster = ClusterRecord.decode(records.data[CLUSTER_KEY])
    assert cluster.shard_next == 4 + SHARD_STEP
    assert cluster.version == records.index
    records = bootstrapped(shards=2)  # and whichever is higher, on the disks or in the records
    records.call(Op.META_RECOVERED, 50, 1, 1, [])
    assert records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "") == [
        51 + NODE_STEP,
        4 + REPLICA_STEP,
    ]


def test_shards_that_the_records_lack_are_taken_up() -> None:
    records = bootstrapped(shards=1)
    found = there(1, 0, QUARTER), there(3, QUARTER, HALF), there(2, HALF, RING_SIZE, replica=7)
    assert [arc[:3] for arc in recover(records, *found)] == [
        (0, QUARTER, 1),
        (QUARTER, HALF, 3),
        (HALF, RING_SIZE, 2),
    ]
    new = records.view.shards[2]
    assert new.replicas == (ReplicaRecord(7, 1),)
    assert new.placement_version > 1, "nobody begins it anew"
    assert records.view.shards[1].version == 3


def test_an_arc_that_was_never_cut_on_the_disks_is_taken_back() -> None:
    records = split_twice()
    version = max(record.version for record in records.view.data_shards)
    assert recover(records, there(1, 0, RING_SIZE)) == [(0, RING_SIZE, 1, version + 1)]


@pytest.mark.parametrize("other", [there(2, HALF, RING_SIZE), there(2)])
def test_nothing_is_taken_back_from_a_shard_that_is_there(other: FoundShard) -> None:
    """Its rows are newer than those that the other has kept. One that is damaged may be
    mended yet."""
    records = split_twice()
    assert [arc[2] for arc in recover(records, there(1, 0, RING_SIZE), other)] == [1, 3, 2]


def test_what_the_records_and_the_disks_agree_on_is_left_as_it_is() -> None:
    records = split_twice()
    before = records.view.shards
    recover(records, there(1, 0, QUARTER), there(2, HALF, RING_SIZE), there(3))
    assert records.view.shards == before


@pytest.mark.parametrize(
    "unknown", [there(7), there(7, QUARTER, HALF), there(7, 5, HALF), there(7, 5, 9)]
)
def test_what_fits_nowhere_is_left_as_it_is(unknown: FoundShard) -> None:
    records = split_twice()
    before = records.view.shards
    recover(records, unknown)
    assert records.view.shards == before


@pytest.mark.parametrize("done", [False, True])
def test_a_split_that_was_not_done_is_called_off(done: bool) -> None:
    """The ids of its halves are those of replicas that are lost: it would stay for ever, and
    keep the shard from being moved."""
    records = bootstrapped(shards=1)
    report_all(records)
    records.call(Op.SHARD_SPLIT, 1)
    arc = (0, HALF) if done else (0, RING_SIZE)
    unborn = [there(2, HALF, RING_SIZE)] if done else []
    recover(records, there(1, *arc), *unborn)
    assert records.view.shards[1].split is None
    assert sorted(records.view.shards) == ([0, 1, 2] if done else [0, 1])


@pytest.mark.parametrize("shards", [None, [1], [[1, 5, 5, []]], [[1, 0, 5, [[0, 1]]]], [[1, 0, 5]]])
def test_an_entry_that_makes_no_sense_changes_nothing(shards: object) -> None:
    refused(bootstrapped(), BadRequest, "meta_recovered", Op.META_RECOVERED, 1, 1, 1, shards)
