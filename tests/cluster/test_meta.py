"""The meta shard's operations, record by record."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krita.codec import encode
from krita.errors import BadRequest, ConditionFailed, Foreign, KritaError
from krita.operations import Op
from krita.ring import RING_SIZE
from kritad.cluster.meta import handlers
from kritad.cluster.model import (
    ClusterRecord,
    NodeRecord,
    NodeState,
    ReplicaRecord,
    Report,
    ReportedReplica,
    ShardRecord,
    Split,
    SplitReplica,
)
from tests.cluster.records import CLUSTER_ID, DictRecords, add_node, bootstrapped, store_uuid


def test_a_bootstrapped_cluster_is_one_node_with_one_replica_of_every_shard() -> None:
    view = bootstrapped(shards=4, factor=3, zone="a").view
    assert (view.cluster_id, view.replication_factor, view.version) == (CLUSTER_ID, 3, 1)
    assert view.nodes == {1: NodeRecord(1, store_uuid(1), "node-1:8080", "a", 0)}
    assert sorted(view.shards) == [0, 1, 2, 3, 4]
    assert [shard.replicas for shard in view.shards.values()] == [
        (ReplicaRecord(shard + 1, 1),) for shard in range(5)
    ]
    assert view.replicas_on(1) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}


def test_the_arcs_of_a_bootstrapped_cluster_cover_the_ring() -> None:
    shards = bootstrapped(shards=8).view.data_shards
    assert shards[0].hash_lo == 0
    assert shards[-1].hash_hi == RING_SIZE
    assert all(left.hash_hi == right.hash_lo for left, right in itertools.pairwise(shards))


def test_the_meta_shard_owns_no_arc() -> None:
    record = bootstrapped().view.shards[0]
    assert record.hash_lo == record.hash_hi


@pytest.mark.parametrize("shards", [0, 3, 8192, True, "16", None, -1])
def test_a_number_of_shards_that_is_no_power_of_two_up_to_4096_is_refused(shards: object) -> None:
    with pytest.raises(BadRequest, match="shards"):
        DictRecords().call(Op.META_BOOTSTRAP, CLUSTER_ID, shards, 3, store_uuid(1), "n:1", "")


def test_a_second_bootstrap_is_refused_and_changes_nothing() -> None:
    records = bootstrapped()
    before = dict(records.data)
    with pytest.raises(ConditionFailed, match="already bootstrapped"):
        records.call(Op.META_BOOTSTRAP, b"d" * 16, 8, 1, store_uuid(9), "n:1", "")
    assert records.data == before


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        (Op.META_NODE_ADD, [store_uuid(2), "n:1", ""]),
        (Op.META_NODE_ANNOUNCE, [1, store_uuid(1), 1, "n:1"]),
        (Op.META_PLACE, [1, 1, [1]]),
        (Op.META_REPORT, [1, 1, 1, []]),
        (Op.META_NODE_DEAD, [1, True, 0]),
        (Op.META_SPLIT_DONE, [1, 2, 5, 1, 1, 1]),
        (Op.META_REBUILD, [1, 1, 2]),
        (Op.META_RECOVERED, [1, 1, 1, []]),
        (Op.NODE_SET, [1, 1, None]),
        (Op.NODE_LABEL, [1, "a", None]),
        (Op.SHARD_MOVE, [1, 1, 2]),
        (Op.SHARD_HOLD, [0, True]),
        (Op.SHARD_SPLIT, [1]),
        (Op.MOVE_CANCEL, [1]),
    ],
)
def test_nothing_else_works_before_the_bootstrap(op: Op, fields: list[object]) -> None:
    with pytest.raises(BadRequest, match="not bootstrapped"):
        DictRecords().call(op, *fields)


def test_before_the_bootstrap_the_view_is_empty() -> None:
    view = DictRecords().view
    assert (view.version, view.nodes, view.shards) == (0, {}, {})


def test_a_new_node_gets_the_next_ids_and_a_place_in_the_meta_shard() -> None:
    records = bootstrapped(shards=4)
    assert records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "b") == [2, 6]
    assert records.call(Op.META_NODE_ADD, store_uuid(3), "three:8080", None) == [3, 7]
    view = records.view
    assert view.shards[0].replicas == tuple(
        ReplicaRecord(replica, node) for replica, node in ((1, 1), (6, 2), (7, 3))
    )
    assert view.nodes[3] == NodeRecord(3, store_uuid(3), "three:8080", "", 0)
    assert view.version == 3


def test_a_store_that_joins_twice_gets_the_same_ids_again() -> None:
    records = bootstrapped()
    first = records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "b")
    before = dict(records.data)
    assert records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "b") == first
    assert records.data == before


def test_a_store_that_joins_again_from_another_address_is_known_there() -> None:
    records = bootstrapped()
    first = records.call(Op.META_NODE_ADD, store_uuid(2), "two:8080", "b")
    assert records.call(Op.META_NODE_ADD, store_uuid(2), "moved:8080", "b") == first
    assert records.view.nodes[2].address == "moved:8080"
    assert records.view.version == records.index


def test_an_announcement_updates_boot_counter_and_address() -> None:
    records = bootstrapped()
    assert records.call(Op.META_NODE_ANNOUNCE, 1, store_uuid(1), 7, "new:1") == []
    node = records.view.nodes[1]
    assert (node.boot_counter, node.address) == (7, "new:1")


def test_an_announcement_that_says_nothing_new_leaves_the_version_alone() -> None:
    records = bootstrapped()
    records.call(Op.META_NODE_ANNOUNCE, 1, store_uuid(1), 7, "new:1")
    version = records.view.version
    records.call(Op.META_NODE_ANNOUNCE, 1, store_uuid(1), 7, "new:1")
    assert records.view.version == version


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([1, store_uuid(1), 6, "n:1"], "rolled back"),
        ([1, store_uuid(2), 8, "n:1"], "another disk"),
        ([9, store_uuid(1), 8, "n:1"], "no node 9"),
    ],
)
def test_a_node_that_is_not_who_it_was_is_foreign(fields: list[object], why: str) -> None:
    records = bootstrapped()
    records.call(Op.META_NODE_ANNOUNCE, 1, store_uuid(1), 7, "n:1")
    before = dict(records.data)
    with pytest.raises(Foreign, match=why):
        records.call(Op.META_NODE_ANNOUNCE, *fields)
    assert records.data == before


def test_placing_keeps_the_replicas_of_nodes_that_stay_and_numbers_the_new_ones() -> None:
    records = bootstrapped(shards=4)
    for _ in range(3):
        add_node(records)
    assert records.call(Op.META_PLACE, 2, 1, [1, 2, 3]) == [2]
    assert records.call(Op.META_PLACE, 2, 2, [2, 3, 4]) == [3]
    assert records.view.shards[2].replicas == (
        ReplicaRecord(9, 2),
        ReplicaRecord(10, 3),
        ReplicaRecord(11, 4),
    )


def test_a_node_that_left_a_shard_and_comes_back_gets_another_replica_id() -> None:
    records = bootstrapped(shards=1)
    add_node(records)
    seen = set()
    for version, nodes in enumerate(([2], [1], [2], [1]), start=1):
        records.call(Op.META_PLACE, 1, version, nodes)
        seen.add(records.view.shards[1].replicas[0].replica)
    assert len(seen) == 4


def test_a_placement_made_from_an_older_view_is_refused() -> None:
    records = bootstrapped()
    add_node(records)
    records.call(Op.META_PLACE, 1, 1, [1, 2])
    before = dict(records.data)
    with pytest.raises(ConditionFailed) as refused:
        records.call(Op.META_PLACE, 1, 1, [2])
    assert refused.value.detail == {"version": 2}
    assert records.data == before


@pytest.mark.parametrize("nodes", [[], [1, 1], [1, 9], [0], ["1"], None, [True]])
def test_nodes_that_are_not_different_and_known_are_refused(nodes: object) -> None:
    with pytest.raises(BadRequest):
        bootstrapped().call(Op.META_PLACE, 1, 1, nodes)


def test_the_meta_shard_cannot_be_placed() -> None:
    with pytest.raises(BadRequest, match="every node"):
        bootstrapped().call(Op.META_PLACE, 0, 1, [1])


def test_the_newest_report_wins_and_older_ones_are_ignored() -> None:
    records = bootstrapped()
    records.call(Op.META_REPORT, 1, 2, 5, [[30, 2, False], [2, 1, True]])
    newest = Report(2, 5, (ReportedReplica(2, 1, True), ReportedReplica(30, 2, False)))
    assert records.view.shards[1].report == newest
    version = records.view.version
    for conf_version, term in ((2, 5), (2, 4), (1, 9)):
        records.call(Op.META_REPORT, 1, conf_version, term, [[2, 1, True]])
        assert records.view.shards[1].report == newest
    assert records.view.version == version
    records.call(Op.META_REPORT, 1, 2, 6, [[2, 1, True]])
    assert records.view.shards[1].report.term == 6


def test_a_report_changes_nothing_that_is_wanted() -> None:
    records = bootstrapped()
    before = records.view.shards[1]
    records.call(Op.META_REPORT, 1, 9, 9, [[77, 5, True]])
    assert attrs.evolve(records.view.shards[1], report=Report()) == before


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1 << 64) | st.binary(max_size=16) | st.text(),
    lambda item: st.lists(item, max_size=4),
    max_leaves=8,
)


@settings(derandomize=True)
@given(op=st.sampled_from(sorted(handlers())), fields=st.lists(_ANYTHING, max_size=8))
def test_fields_of_any_kind_are_executed_or_refused_without_a_trace(
    op: int, fields: list[Any]
) -> None:
    records = bootstrapped(shards=2)
    before = dict(records.data)
    try:
        handlers()[op](records, fields, 2)
    except KritaError:
        assert records.data == before


def test_every_record_survives_its_bytes() -> None:
    report = Report(4, 2, (ReportedReplica(7, 1, True), ReportedReplica(9, 2, False)))
    node = NodeRecord(3, store_uuid(3), "[::1]:8080", "zürich", 4, NodeState.DRAINING, 2)
    node = attrs.evolve(node, dead=True, nonce=b"n" * 16, successor=7)
    split = Split(17, (SplitReplica(7, 40, 1), SplitReplica(9, 41, 2)))
    wanted = (ReplicaRecord(7, 1), ReplicaRecord(9, 2))
    shard = ShardRecord(3, 5, RING_SIZE, 1, 8, wanted, report, held=True, split=split)
    cluster = ClusterRecord(CLUSTER_ID, 16, 3, 4, 44, 1234, 17, True)
    assert NodeRecord.decode(node.encode()) == node
    assert ShardRecord.decode(shard.encode()) == shard
    assert ClusterRecord.decode(cluster.encode()) == cluster


def test_records_of_the_release_before_are_read() -> None:
    cluster = ClusterRecord.decode(encode([CLUSTER_ID, 16, 3, 4, 44, 1234]))
    assert cluster == ClusterRecord(CLUSTER_ID, 16, 3, 4, 44, 1234, 17, False)
    node = NodeRecord.decode(encode([3, store_uuid(3), "n:1", "a", 4, 0, 1]))
    assert node == NodeRecord(3, store_uuid(3), "n:1", "a", 4)
    shard = ShardRecord.decode(encode([3, 5, 9, 1, 8, [[7, 1]], 2, 1, [[7, 1, True]]]))
    report = Report(2, 1, (ReportedReplica(7, 1, True),))
    assert shard == ShardRecord(3, 5, 9, 1, 8, (ReplicaRecord(7, 1),), report)
