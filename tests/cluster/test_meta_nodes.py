"""What people and the leader do to nodes: states, labels, verdicts, and leaving."""

from __future__ import annotations

import pytest

from krita.errors import BadRequest, ConditionFailed, Foreign
from krita.operations import Op
from kritad.cluster.model import NodeState
from tests.cluster.records import (
    DictRecords,
    add_node,
    bootstrapped,
    refused,
    report_all,
    store_uuid,
)

UP, DRAIN, LEFT, REMOVE = (int(state) for state in NodeState)


def cluster(nodes: int = 4, shards: int = 4) -> DictRecords:
    """So many nodes; the shards are on 1, 2 and 3, and reported so."""
    records = bootstrapped(shards)
    for _ in range(nodes - 1):
        add_node(records)
    for shard in range(1, shards + 1):
        records.call(Op.META_PLACE, shard, 1, [1, 2, 3][:nodes])
    report_all(records)
    return records


def state(records: DictRecords, node: int) -> NodeState:
    return records.view.nodes[node].state


def test_a_node_is_drained_and_taken_back() -> None:
    records = cluster()
    assert records.call(Op.NODE_SET, 3, DRAIN, 4) == [DRAIN]
    assert records.view.nodes[3].successor == 4
    assert records.call(Op.NODE_SET, 3, UP, None) == [UP]
    assert (state(records, 3), records.view.nodes[3].successor) == (NodeState.UP, 0)


def test_the_same_intention_again_changes_nothing() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 3, REMOVE, 4)
    for node in (1, 2, 4):  # and it is not refused either when it could not begin now
        records.call(Op.META_NODE_DEAD, node, True, 0)
    before = dict(records.data)
    assert records.call(Op.NODE_SET, 3, REMOVE, 4) == [REMOVE]
    assert records.data == before


def test_a_node_that_is_to_be_removed_is_taken_back_in_time() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 3, REMOVE, None)
    assert records.call(Op.NODE_SET, 3, UP, None) == [UP]
    for shard in range(1, 5):
        records.call(Op.META_PLACE, shard, 2, [1, 2, 4])
    report_all(records)
    assert state(records, 3) is NodeState.UP


def test_a_node_that_is_to_be_removed_has_left_when_no_shard_wants_or_has_it() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 3, REMOVE, None)
    for shard in range(1, 5):
        assert state(records, 3) is NodeState.REMOVING
        records.call(Op.META_PLACE, shard, 2, [1, 2, 4])
        assert state(records, 3) is NodeState.REMOVING
        records.call(Op.META_REPORT, shard, 90, 1, [[70, 1, True], [71, 2, True]])
    view = records.view
    assert view.nodes[3].state is NodeState.LEFT
    assert 3 not in view.shards[0].nodes
    assert view.shards[0].placement_version == 5  # three joined, one left
    assert view.version == records.index


def test_a_node_that_holds_nothing_leaves_at_once() -> None:
    records = cluster()
    assert records.call(Op.NODE_SET, 4, REMOVE, None) == [LEFT]
    assert 4 not in records.view.shards[0].nodes


def test_removing_it_again_says_that_it_has_left() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    before = dict(records.data)
    assert records.call(Op.NODE_SET, 4, REMOVE, None) == [LEFT]
    assert records.data == before


def given_back() -> tuple[DictRecords, list[list[int]]]:
    """Node 4 was wanted by shard 1, is to be removed, and is not wanted any more; and the
    members that the shard had before."""
    records = cluster()
    members = [[r.replica, r.node, True] for r in records.view.shards[1].replicas]
    records.call(Op.META_PLACE, 1, 2, [1, 2, 4])  # 4 is wanted, not yet reported
    records.call(Op.NODE_SET, 4, REMOVE, None)
    records.call(Op.META_PLACE, 1, 3, [1, 2, 3])
    assert records.view.shards[1].offered == (4,)
    assert state(records, 4) is NodeState.REMOVING
    return records, members


def test_a_node_that_was_only_wanted_has_left_when_the_leader_knows_that_it_is_not() -> None:
    """By the wish of before, the leader may just be making it a voter."""
    records, members = given_back()
    known = records.view.shards[1].report
    records.call(Op.META_REPORT, 1, known.conf_version + 1, 1, members, 3)  # the wish of before
    records.call(Op.META_REPORT, 1, known.conf_version + 1, 1, members)  # of an older release
    assert state(records, 4) is NodeState.REMOVING
    records.call(Op.META_REPORT, 1, known.conf_version + 1, 1, members, 4)
    assert state(records, 4) is NodeState.LEFT
    assert records.view.shards[1].offered == ()


def test_a_node_that_became_a_member_by_an_old_wish_waits_until_it_is_let_go() -> None:
    records, members = given_back()
    known = records.view.shards[1].report
    records.call(Op.META_REPORT, 1, known.conf_version + 1, 1, [*members, [90, 4, True]], 4)
    assert state(records, 4) is NodeState.REMOVING
    records.call(Op.META_REPORT, 1, known.conf_version + 2, 1, members, 4)
    assert state(records, 4) is NodeState.LEFT


def test_a_leader_of_before_does_not_say_who_is_no_member() -> None:
    records, members = given_back()
    newer = records.view.shards[1].report.conf_version + 5
    records.call(Op.META_REPORT, 1, newer, 2, members, 3)
    records.call(Op.META_REPORT, 1, newer - 1, 1, members, 4)
    records.call(Op.META_REPORT, 1, newer, 1, members, 4)
    assert state(records, 4) is NodeState.REMOVING
    records.call(Op.META_REPORT, 1, newer, 2, members, 4)
    assert state(records, 4) is NodeState.LEFT


def test_a_drained_node_never_leaves_by_itself() -> None:
    records = cluster()
    assert records.call(Op.NODE_SET, 4, DRAIN, None) == [DRAIN]
    assert 4 in records.view.shards[0].nodes


@pytest.mark.parametrize("intention", [UP, DRAIN])
def test_a_node_that_has_left_is_not_taken_back(intention: int) -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    refused(records, ConditionFailed, "empty data directory", Op.NODE_SET, 4, intention, None)


def test_a_node_that_is_being_removed_is_not_drained_as_well() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 3, REMOVE, None)
    refused(records, ConditionFailed, "recommission it first", Op.NODE_SET, 3, DRAIN, None)


@pytest.mark.parametrize("intention", [DRAIN, REMOVE])
def test_a_node_is_taken_back_also_when_no_other_is_up(intention: int) -> None:
    records = cluster(2)
    records.call(Op.NODE_SET, 2, intention, None)
    records.call(Op.META_NODE_DEAD, 1, True, 0)
    assert records.call(Op.NODE_SET, 2, UP, None) == [UP]


@pytest.mark.parametrize("intention", [DRAIN, REMOVE])
def test_the_last_node_that_is_up_is_not_emptied(intention: int) -> None:
    records = cluster()
    records.call(Op.NODE_SET, 1, DRAIN, None)
    records.call(Op.META_NODE_DEAD, 2, True, 0)
    records.call(Op.NODE_SET, 4, DRAIN, None)
    refused(records, ConditionFailed, "no other node is up", Op.NODE_SET, 3, intention, None)


def test_a_successor_is_another_node_that_is_up() -> None:
    records = cluster()
    records.call(Op.META_NODE_DEAD, 4, True, 0)
    refused(records, ConditionFailed, "cannot be the successor", Op.NODE_SET, 3, DRAIN, 4)
    refused(records, BadRequest, "own successor", Op.NODE_SET, 3, DRAIN, 3)
    refused(records, BadRequest, "no node 9", Op.NODE_SET, 3, DRAIN, 9)
    refused(records, BadRequest, "shall go", Op.NODE_SET, 3, UP, 2)


@pytest.mark.parametrize("number", [LEFT, 2, 5, -1, None, True])
def test_other_states_are_no_intention(number: object) -> None:
    refused(cluster(), BadRequest, "state", Op.NODE_SET, 3, number, None)


def test_labels_are_set_one_by_one() -> None:
    records = cluster()
    assert records.call(Op.NODE_LABEL, 3, "rack-1", None) == []
    assert records.call(Op.NODE_LABEL, 3, None, 5) == []
    assert (records.view.nodes[3].zone, records.view.nodes[3].weight) == ("rack-1", 5)
    records.call(Op.NODE_LABEL, 3, "", None)
    assert (records.view.nodes[3].zone, records.view.nodes[3].weight) == ("", 5)


@pytest.mark.parametrize("weight", [0, 101, -1, 1.5, "2", True])
def test_a_weight_is_from_1_to_100(weight: object) -> None:
    refused(cluster(), BadRequest, "weight", Op.NODE_LABEL, 3, None, weight)


def test_a_node_that_has_left_gets_no_label() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    refused(records, ConditionFailed, "has been removed", Op.NODE_LABEL, 4, "a", None)


def test_a_verdict_is_written_and_taken_back() -> None:
    records = cluster()
    records.call(Op.META_NODE_DEAD, 3, True, 0)
    assert records.view.nodes[3].dead
    assert not records.view.nodes[3].usable
    records.call(Op.META_NODE_DEAD, 3, False, 0)
    assert records.view.nodes[3].usable


def test_a_late_verdict_does_not_hit_a_node_that_has_started_again() -> None:
    records = cluster()
    records.call(Op.META_NODE_ANNOUNCE, 3, store_uuid(3), 7, "n:1")
    version = records.view.version
    assert records.call(Op.META_NODE_DEAD, 3, True, 6) == []
    assert not records.view.nodes[3].dead
    assert records.view.version == version


def test_a_node_that_starts_again_is_alive() -> None:
    records = cluster()
    records.call(Op.META_NODE_DEAD, 3, True, 0)
    records.call(Op.META_NODE_ANNOUNCE, 3, store_uuid(3), 1, "n:1")
    assert not records.view.nodes[3].dead


def test_a_node_that_has_left_is_neither_dead_nor_alive() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    before = dict(records.data)
    assert records.call(Op.META_NODE_DEAD, 4, True, 0) == []
    assert records.data == before


def test_a_dead_node_that_is_removed_leaves_like_any_other() -> None:
    records = cluster()
    records.call(Op.META_NODE_DEAD, 4, True, 0)
    assert records.call(Op.NODE_SET, 4, REMOVE, None) == [LEFT]
    assert not records.view.nodes[4].dead


def test_a_node_that_has_left_may_neither_start_nor_join_again() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    why = "node 4 has been removed from this cluster.*empty data directory"
    refused(records, Foreign, why, Op.META_NODE_ANNOUNCE, 4, store_uuid(4), 9, "n:1")
    refused(records, Foreign, why, Op.META_NODE_ADD, store_uuid(4), "n:1", "")


def test_the_number_of_a_node_that_has_left_is_not_given_again() -> None:
    records = cluster()
    records.call(Op.NODE_SET, 4, REMOVE, None)
    reply = records.call(Op.META_NODE_ADD, store_uuid(99), "n:1", "")
    assert isinstance(reply, list)
    assert reply[0] == 5


# -- Nonces: a disk that was rolled back does not know its own newest start ------------


def nonce(number: int) -> bytes:
    return bytes([number]) * 16


def announce(records: DictRecords, boot: int, own: bytes | None, *before: bytes) -> None:
    fields = (1, store_uuid(1), boot, "n:1", own, list(before))
    records.call(Op.META_NODE_ANNOUNCE, *fields)


def test_a_store_that_remembers_its_newest_start_is_the_one_we_know() -> None:
    records = bootstrapped()
    announce(records, 1, nonce(1))
    announce(records, 2, nonce(2), nonce(1))
    announce(records, 2, nonce(2), nonce(1))  # the answer was lost
    announce(records, 5, nonce(5), nonce(2), nonce(3), nonce(4))  # two starts were not heard of
    assert records.view.nodes[1].nonce == nonce(5)


def test_a_store_that_does_not_was_rolled_back_however_often_it_is_started() -> None:
    records = bootstrapped()
    announce(records, 1, nonce(1))
    announce(records, 2, nonce(2), nonce(1))
    before = dict(records.data)
    with pytest.raises(Foreign, match="rolled back"):
        announce(records, 9, nonce(9), nonce(1), nonce(7), nonce(8))
    assert records.data == before


def test_a_release_without_nonces_is_judged_by_its_counter() -> None:
    records = bootstrapped()
    announce(records, 1, nonce(1))
    announce(records, 2, None)
    assert records.view.nodes[1].nonce == nonce(1)
    with pytest.raises(Foreign, match="rolled back"):
        announce(records, 1, None)


@pytest.mark.parametrize("before", [[b"short"], "text", [1], [b"n" * 16] * 65])
def test_nonces_of_another_shape_are_refused(before: object) -> None:
    records = bootstrapped()
    with pytest.raises(BadRequest, match="nonces_before"):
        records.call(Op.META_NODE_ANNOUNCE, 1, store_uuid(1), 1, "n:1", nonce(1), before)
