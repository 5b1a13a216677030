"""What is on the move, and what may begin now."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest

from kritad.cluster.model import NodeState, Report, ReportedReplica, Split
from kritad.cluster.moves import Step, admissible, live_replicas, moves
from kritad.cluster.planner import Placement, placements
from kritad.cluster.view import MetaView
from tests.cluster.views import (
    arrived,
    plain,
    replica_id,
    view_of,
    wanted_on,
    with_node,
    with_shard,
)

ZONES = dict.fromkeys(range(1, 7), "")


def three(shards: int = 8) -> MetaView:
    """Shards on nodes 1, 2, 3 of six."""
    return view_of({shard: [1, 2, 3] for shard in range(1, shards + 1)}, ZONES)


def with_member(view: MetaView, shard: int, node: int, voter: bool) -> MetaView:
    """The shard with the wanted replica on a node reported as a member."""
    record = view.shards[shard]
    replica = next(r.replica for r in record.replicas if r.node == node)
    others = tuple(m for m in record.report.replicas if m.replica != replica)
    members = (*others, ReportedReplica(replica, node, voter))
    return with_shard(view, shard, report=Report(record.report.conf_version + 1, 1, members))


def place(view: MetaView, shard: int, *nodes: int) -> Placement:
    return Placement(shard, view.shards[shard].placement_version, nodes)


def begun(view: MetaView, plan: list[Placement], limit: int = 2) -> list[int]:
    return [placement.shard for placement in admissible(view, plan, limit)]


# -- What is on the move -----------------------------------------------------------


def test_nothing_is_on_the_move_where_those_vote_who_are_wanted() -> None:
    assert moves(three()) == []


def test_a_move_goes_through_its_steps() -> None:
    view = wanted_on(three(), 3, [1, 2, 4])
    (move,) = moves(view)
    assert (move.shard, move.placement_version, move.step) == (3, 2, Step.ADDING)
    assert list(move.adding.values()) == [4]
    assert move.removing == {replica_id(3, 3): 3}
    view = with_member(view, 3, 4, voter=False)
    assert moves(view)[0].step is Step.COPYING
    assert moves(view, joint=[3])[0].step is Step.JOINT
    view = with_member(view, 3, 4, voter=True)
    (move,) = moves(view)
    assert (move.step, move.adding) == (Step.REMOVING, {})
    assert moves(arrived(view, 3)) == []


def test_a_shard_that_gets_its_first_other_replicas_only_adds() -> None:
    view = wanted_on(view_of({1: [1]}, ZONES), 1, [1, 2, 3])
    (move,) = moves(view)
    assert sorted(move.adding.values()) == [2, 3]
    assert move.removing == {}


def test_a_move_that_people_stopped_waits() -> None:
    view = wanted_on(three(), 3, [1, 2, 4])
    for stopped in (with_shard(view, 3, held=True), attrs.evolve(view, paused=True)):
        (move,) = moves(stopped)
        assert (move.step, move.held) == (Step.WAITING, True)
        assert moves(stopped, joint=[3])[0].step is Step.JOINT


# -- What may begin ----------------------------------------------------------------


def test_two_shards_at_a_time_move_onto_a_node() -> None:
    view = three()
    plan = [place(view, shard, *nodes, 4) for shard, nodes in enumerate([(1, 2)] * 8, start=1)]
    assert begun(view, plan) == [1, 2]
    assert begun(view, plan, limit=3) == [1, 2, 3]


def test_two_shards_at_a_time_move_off_a_node() -> None:
    view = three()
    targets = [4, 4, 5, 5, 6, 6]
    plan = [place(view, shard, 1, 2, target) for shard, target in enumerate(targets, start=1)]
    assert begun(view, plan) == [1, 2]


def test_those_on_the_move_count() -> None:
    view = wanted_on(three(), 8, [1, 2, 4])
    plan = [place(view, shard, 1, 2, 4) for shard in (1, 2, 3)]
    assert begun(view, plan) == [1]
    assert begun(arrived(view, 8), plan) == [1, 2]


def test_a_dead_node_gives_nothing_so_that_nobody_waits_for_it() -> None:
    view = with_node(three(), 3, dead=True)
    targets = [4, 4, 5, 5, 6, 6, 4]
    plan = [place(view, shard, 1, 2, target) for shard, target in enumerate(targets, start=1)]
    assert begun(view, plan) == [1, 2, 3, 4, 5, 6]  # two onto each of the others


def test_one_that_does_not_fit_keeps_nobody_else_waiting() -> None:
    view = three()
    plan = [place(view, shard, 1, 2, 4) for shard in (1, 2, 3)] + [place(view, 4, 2, 3, 5)]
    assert begun(view, plan) == [1, 2, 4]


@pytest.mark.parametrize("why", ["held", "splitting", "paused", "another version"])
def test_what_is_stopped_does_not_begin(why: str) -> None:
    view = three()
    plan = [place(view, 1, 1, 2, 4)]
    assert begun(view, plan) == [1]
    stopped = {
        "held": with_shard(view, 1, held=True),
        "splitting": with_shard(view, 1, split=Split(9, ())),
        "paused": attrs.evolve(view, paused=True),
        "another version": with_shard(view, 1, placement_version=7),
    }[why]
    assert begun(stopped, plan) == []


def test_a_shard_on_the_move_gets_no_other_target() -> None:
    view = wanted_on(three(), 1, [1, 2, 4])
    assert begun(view, [place(view, 1, 1, 2, 5)]) == []


@pytest.mark.parametrize("gone", [{"dead": True}, {"state": NodeState.DRAINING}])
def test_a_shard_whose_target_cannot_take_it_any_more_gets_another(gone: dict[str, object]) -> None:
    view = with_node(wanted_on(three(), 1, [1, 2, 4]), 4, **gone)
    assert begun(view, [place(view, 1, 1, 2, 5)]) == [1]


def test_a_shard_on_the_move_may_go_back_to_where_it_is() -> None:
    view = wanted_on(three(), 1, [1, 2, 4])
    assert begun(view, [place(view, 1, 1, 2, 3)]) == [1]


def test_a_move_that_takes_another_target_takes_its_own_place() -> None:
    view = wanted_on(wanted_on(three(), 1, [1, 2, 4]), 2, [1, 2, 4])
    view = with_node(view, 4, dead=True)
    # Node 3 gives both already; neither is counted twice.
    assert begun(view, [place(view, 1, 1, 2, 5), place(view, 2, 1, 2, 5)]) == [1, 2]
    assert begun(view, [place(view, 3, 1, 2, 5)]) == []


def test_a_move_that_gets_no_other_target_counts_as_it_did() -> None:
    onto = [4, 4, 6, 6]  # 1 and 2 are on the way to node 4, 3 and 4 to node 6
    holders = {1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 2, 5], 4: [1, 2, 5], 5: [1, 2, 3]}
    view = view_of(holders, dict.fromkeys(range(1, 8), ""))
    for shard, target in enumerate(onto, start=1):
        view = wanted_on(view, shard, [1, 2, target])
    view = with_node(view, 4, dead=True)
    # Node 6 has no room for shard 1, which goes on leaving node 3, as shard 2 does.
    assert begun(view, [place(view, 1, 1, 2, 6), place(view, 5, 1, 2, 7)]) == []


def test_the_shard_with_the_fewest_live_replicas_is_first() -> None:
    view = view_of({1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 2, 4], 4: [1, 4, 5]}, ZONES)
    view = with_node(with_node(view, 4, dead=True), 5, dead=True)
    assert [live_replicas(view, record) for record in view.data_shards] == [3, 3, 2, 1]
    plan = [
        place(view, 1, 1, 2, 6), place(view, 2, 1, 2, 6), place(view, 3, 1, 2, 6),
        place(view, 4, 1, 2, 6),
    ]  # fmt: skip
    assert begun(view, plan) == [4, 3]
    assert begun(view, plan, limit=1) == [4]


def test_a_node_that_shall_go_comes_before_balance() -> None:
    view = view_of({1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 2, 5], 4: [1, 2, 5]}, ZONES)
    view = with_node(view, 5, state=NodeState.DRAINING)
    plan = [place(view, shard, 1, 2, 4) for shard in (1, 2, 3, 4)]
    assert begun(view, plan) == [3, 4]


def test_at_every_moment_of_a_big_change_no_node_is_asked_for_more_than_two_each_way() -> None:
    view = plain(64, 6)
    for node in (7, 8, 9):
        view = with_node(view, node, zone="zone-0")
    view = with_node(view, 1, state=NodeState.DRAINING)
    pending: list[int] = []
    while plan := placements(view):
        for placement in admissible(view, plan):
            view = wanted_on(view, placement.shard, placement.nodes)
            pending.append(placement.shard)
        onto: Counter[int] = Counter()
        off: Counter[int] = Counter()
        for move in moves(view):
            onto.update(move.adding.values())
            off.update(move.removing.values())
        assert max(onto.values()) <= 2
        assert max(off.values()) <= 2
        view = arrived(view, pending.pop(0))
    assert all(1 not in record.nodes for record in view.data_shards)


def test_a_replica_that_is_made_anew_counts_as_a_move_onto_its_node() -> None:
    view = view_of({1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 2, 4]}, ZONES)
    for shard in (1, 2):
        record = view.shards[shard]
        replicas = (*record.replicas[:2], attrs.evolve(record.replicas[2], replica=77 + shard))
        view = with_shard(view, shard, replicas=replicas)
    assert begun(view, [place(view, 3, 1, 2, 3)]) == []
    dead = with_node(view, 3, dead=True)
    assert begun(dead, [place(dead, 1, 1, 2, 5)]) == [1], "it cannot get there any more"


# -- What people have moved ----------------------------------------------------------


def test_what_was_moved_by_hand_is_not_taken_back_for_balance() -> None:
    balanced = plain(12, 4)
    record = balanced.data_shards[0]
    target = next(node for node in range(1, 5) if node not in record.nodes)
    nodes = [target, *record.nodes[1:]]
    moving = with_shard(wanted_on(balanced, record.shard, nodes), record.shard, pinned=True)
    assert record.shard not in begun(moving, placements(moving))
    there = arrived(moving, record.shard)
    assert all(placement.shard != record.shard for placement in placements(there))
    free = with_shard(there, record.shard, pinned=False)
    assert len(placements(free)) == len(placements(there))  # another goes instead, for balance


def test_what_was_moved_by_hand_goes_when_its_node_goes() -> None:
    view = with_shard(plain(12, 4), 1, pinned=True)
    gone = view.shards[1].nodes[0]
    plan = {each.shard: each.nodes for each in placements(with_node(view, gone, dead=True))}
    assert gone not in plan[1]
