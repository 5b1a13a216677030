"""Which damaged replicas are made anew, and when: rules as tables of views."""

from __future__ import annotations

import attrs
import pytest

from kritad.cluster.healing import Rebuild, rebuilds
from kritad.cluster.model import NodeState, ReplicaRecord, Report, ReportedReplica, Split
from kritad.cluster.view import MetaView
from tests.cluster.views import replica_id, view_of, wanted_on, with_node, with_shard

ALL = {1, 2, 3, 4, 5, 6}


def three(shards: int = 4) -> MetaView:
    """Every shard on nodes 1, 2 and 3."""
    return view_of({n: [1, 2, 3] for n in range(1, shards + 1)}, dict.fromkeys((1, 2, 3), ""))


def on(shard: int, node: int) -> tuple[int, int]:
    return shard, replica_id(shard, node)


def remade(view: MetaView, shard: int, node: int) -> MetaView:
    """The view once the replica there is to be made anew, and is not there yet."""
    record = view.shards[shard]
    replicas = tuple(
        ReplicaRecord(900_000 + shard, r.node) if r.node == node else r for r in record.replicas
    )
    return with_shard(view, shard, replicas=replicas, placement_version=9)


def test_while_nothing_is_damaged_there_is_nothing_to_do() -> None:
    assert rebuilds(three(), set(), ALL) == []


def test_a_damaged_replica_is_made_anew_when_the_others_are_a_majority() -> None:
    view = three()
    assert rebuilds(view, {on(2, 3)}, {1, 2, 3}) == [Rebuild(2, 1, replica_id(2, 3))]


@pytest.mark.parametrize(("holders", "damaged", "present"), [
    ([1, 2, 3], [3], {1, 3}),  # another does not answer
    ([1, 2, 3], [2, 3], ALL),
    ([1, 2], [2], ALL),  # one of two is no majority
    ([1], [1], ALL),
    ([1, 2, 3, 4], [3, 4], ALL),
])  # fmt: skip
def test_without_a_sound_majority_nothing_is_touched(
    holders: list[int], damaged: list[int], present: set[int]
) -> None:
    view = view_of({1: holders}, dict.fromkeys(range(1, 5), ""))
    assert rebuilds(view, {on(1, node) for node in damaged}, present) == []


def test_of_two_damaged_replicas_of_five_one_is_first_and_the_other_waits_for_it() -> None:
    view = view_of({1: [1, 2, 3, 4, 5]}, dict.fromkeys(range(1, 6), ""))
    damaged = {on(1, 2), on(1, 4)}
    (first,) = rebuilds(view, damaged, ALL)
    assert first.replica == replica_id(1, 2)
    assert rebuilds(remade(view, 1, 2), damaged, ALL) == []


def test_a_replica_that_is_damaged_before_it_votes_is_replaced_again() -> None:
    view = remade(three(), 2, 3)
    assert rebuilds(view, {(2, 900_002)}, ALL) == [Rebuild(2, 9, 900_002)]
    learns = ReportedReplica(900_002, 3, False)
    told = attrs.evolve(view.shards[2].report, replicas=(*view.shards[2].report.replicas, learns))
    view = with_shard(view, 2, report=told)
    assert rebuilds(view, {(2, 900_002)}, ALL) == [Rebuild(2, 9, 900_002)]


def test_it_is_made_anew_where_it_is_although_another_node_could_take_it() -> None:
    view = with_node(three(), 4)
    assert rebuilds(view, {on(2, 3)}, ALL) == [Rebuild(2, 1, replica_id(2, 3))]


@pytest.mark.parametrize("change", [
    lambda view: attrs.evolve(view, paused=True),
    lambda view: with_shard(view, 2, held=True),
    lambda view: with_shard(view, 2, split=Split(9, ())),
    lambda view: wanted_on(with_node(view, 4), 2, [4, 2, 3]),  # on the move
    lambda view: wanted_on(with_node(view, 4), 2, [1, 2, 4]),  # moved away itself
    lambda view: wanted_on(view, 2, [1, 3]),  # another one goes
    lambda view: with_node(with_node(view, 4), 3, state=NodeState.DRAINING),
    lambda view: with_node(view, 3, dead=True),
], ids=[
    "paused", "held", "split", "moving", "moving away", "shrinking", "draining", "dead"
])  # fmt: skip
def test_what_is_held_split_or_moved_waits_and_who_shall_go_gets_none(change: object) -> None:
    assert callable(change)
    assert rebuilds(change(three()), {on(2, 3)}, ALL) == []


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.REMOVING])
def test_who_shall_go_gets_one_when_nobody_can_take_its_place(state: NodeState) -> None:
    view = with_node(three(), 3, state=state)
    assert [lost.replica for lost in rebuilds(view, {on(2, 3)}, ALL)] == [replica_id(2, 3)]


def test_who_has_no_room_gets_none() -> None:
    assert rebuilds(three(), {on(2, 3)}, ALL, {3}) == []


def test_a_nodes_replica_of_the_meta_shard_is_made_anew_beside_all_others() -> None:
    view = three()
    meta = view.shards[0].replicas[2].replica
    lost = {(0, meta), on(1, 3), on(2, 3)}
    assert [each.shard for each in rebuilds(view, lost, ALL)] == [0, 1, 2]
    assert rebuilds(view, {(0, meta)}, {1, 3}) == []
    paused = attrs.evolve(view, paused=True)
    assert [each.shard for each in rebuilds(paused, lost, ALL)] == [0], "it is never paused"


def test_one_that_only_learns_the_meta_shard_is_made_anew_too() -> None:
    view = view_of({1: [1, 2, 3]}, dict.fromkeys((1, 2, 3, 4), ""))
    record = view.shards[0]
    told = [ReportedReplica(r.replica, r.node, r.node < 4) for r in record.replicas]
    view = with_shard(view, 0, report=Report(7, 1, tuple(told)))
    assert rebuilds(view, {(0, told[3].replica)}, ALL) == [Rebuild(0, 1, told[3].replica)]
    newcomer = with_shard(view, 0, report=Report(7, 1, tuple(told[:3])))
    assert rebuilds(newcomer, {(0, told[0].replica)}, ALL) == [], "one is on its way"


def test_one_whom_a_voter_of_the_meta_shard_waits_for_is_made_anew() -> None:
    """Seed 601442: a node had left, and voted until the third of those that stay would. That
    one was damaged while it learned."""
    view = view_of({1: [1, 2, 3]}, dict.fromkeys((1, 2, 3, 4), ""))
    meta = view.shards[0].replicas
    told = [ReportedReplica(r.replica, r.node, r.node != 3) for r in meta]
    view = with_shard(view, 0, report=Report(7, 1, tuple(told)), replicas=meta[:3])
    lost = meta[2].replica
    assert rebuilds(view, {(0, lost)}, {1, 2, 3}) == [Rebuild(0, 1, lost)]


def test_an_id_that_nobody_wants_any_more_is_left_alone() -> None:
    assert rebuilds(three(), {(2, 77), (99, 1)}, ALL) == []


def test_two_at_a_time_are_made_on_a_node_and_moves_to_it_are_counted() -> None:
    view = three(shards=6)
    damaged = {on(shard, 3) for shard in range(1, 7)}
    assert [lost.shard for lost in rebuilds(view, damaged, ALL)] == [1, 2]
    assert [lost.shard for lost in rebuilds(remade(view, 1, 3), damaged, ALL)] == [2]
    assert rebuilds(remade(remade(view, 1, 3), 2, 3), damaged, ALL) == []


def test_the_shard_with_the_fewest_sound_voters_is_first() -> None:
    holders = {1: [1, 2, 3, 4, 5], 2: [1, 2, 3, 4, 5]}
    view = view_of(holders, dict.fromkeys(range(1, 6), ""))
    damaged = {on(1, 5), on(2, 5), on(2, 4)}
    assert [lost.shard for lost in rebuilds(view, damaged, ALL)] == [2, 1]
