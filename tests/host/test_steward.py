"""Steering towards what the meta shard wants: each wish once at a time."""

from __future__ import annotations

import attrs
import pytest

from krita.codec import decode_body
from krita.errors import Status
from krita.operations import Op
from kritad.cluster.model import (
    NodeState,
    Split,
    SplitReplica,
)
from kritad.cluster.planner import Placement
from kritad.cluster.view import MetaView
from kritad.host.steward import is_safe
from kritad.raft.messages import AppendReply
from tests.host.steering import DATA, Bench, member, view


def test_nothing_is_proposed_before_the_cluster_is_founded(bench: Bench) -> None:
    bench.lead_meta()
    bench.lead_data()
    bench.steward.step(MetaView())
    assert bench.routed == []


def test_who_leads_nothing_proposes_nothing(bench: Bench) -> None:
    bench.steward.step(view(wanted=(1,), reported_version=0))
    assert bench.routed == []


def test_the_meta_leader_asks_for_missing_replicas_once_until_it_is_answered(bench: Bench) -> None:
    bench.lead_meta()
    for _ in range(5):
        bench.steward.step(view(wanted=(1,)))
    assert bench.ops()[Op.META_PLACE] == 1
    (place,) = [r for r in bench.routed if r.op == Op.META_PLACE]
    shard, expected_version, nodes = decode_body(Op.META_PLACE, place.body)
    assert (shard, expected_version) == (DATA, 1)
    assert isinstance(nodes, list)
    assert sorted(nodes) == [1, 2, 3]
    bench.answer_all(Status.CONDITION_FAILED)
    bench.steward.step(view(wanted=(1,)))
    assert bench.ops()[Op.META_PLACE] == 1, "it is asked again when the answer was no"


def test_the_meta_leader_has_a_damaged_replica_made_anew(bench: Bench) -> None:
    bench.damaged.add((DATA, 3))
    bench.steward.step(view())
    assert bench.ops()[Op.META_REBUILD] == 0, "only the meta shard's leader decides"
    bench.lead_meta()
    for _ in range(3):
        bench.steward.step(view())
    (rebuild,) = [r for r in bench.routed if r.op == Op.META_REBUILD]
    assert decode_body(Op.META_REBUILD, rebuild.body) == [DATA, 1, 3]
    bench.answer_all()
    bench.present.remove(2)
    bench.steward.step(view())
    assert bench.ops()[Op.META_REBUILD] == 0, "two are left, and one of them is damaged"


def test_a_placement_that_stands_is_not_asked_for_again(bench: Bench) -> None:
    bench.lead_meta()
    bench.answer_all()
    bench.steward.step(view())
    assert bench.ops()[Op.META_PLACE] == 0


def test_a_shards_leader_reports_its_configuration_once_until_it_is_answered(bench: Bench) -> None:
    bench.lead_data()
    for _ in range(5):
        bench.steward.step(view(reported_version=0))
    assert bench.ops() == {Op.META_REPORT: 1}
    shard, version, term, members, wish = decode_body(Op.META_REPORT, bench.routed[0].body)
    assert (shard, version, term, wish) == (DATA, 1, bench.node.raft.term, 1)
    assert members == [[1, 1, True], [2, 2, True], [3, 3, True]]


def test_what_the_meta_shard_knows_already_is_not_reported(bench: Bench) -> None:
    bench.lead_data()
    bench.steward.step(view(reported_version=1))
    assert bench.routed == []


def test_that_the_newest_wish_is_known_is_reported_while_somebody_was_offered(
    bench: Bench,
) -> None:
    """Whoever was wanted for a moment cannot leave before that."""
    bench.lead_data()
    known = view(reported_version=1)
    offered = attrs.evolve(known.shards[DATA], placement_version=7, offered=(4,))
    known = attrs.evolve(known, shards={**known.shards, DATA: offered})
    for _ in range(5):
        bench.steward.step(known)
    assert bench.ops() == {Op.META_REPORT: 1}
    *_, wish = decode_body(Op.META_REPORT, bench.routed[0].body)
    assert wish == 7


def test_a_new_term_alone_is_no_news_for_the_meta_shard(bench: Bench) -> None:
    bench.lead_data()
    bench.steward.step(view(reported_version=1))
    bench.node.lead_again()
    bench.steward.step(view(reported_version=1))
    assert bench.ops()[Op.META_REPORT] == 0


def test_a_shards_leader_changes_its_configuration_towards_what_is_wanted(bench: Bench) -> None:
    bench.lead_data()
    before = bench.node.raft.configuration
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    after = bench.node.raft.configuration
    assert after.version == before.version + 1
    assert after.learners == {4}
    assert after.nodes[4] == 4
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    assert bench.node.raft.configuration == after, "one change at a time"


def test_a_new_leader_makes_nobody_a_member_before_its_term_was_reported(bench: Bench) -> None:
    """Its view may be older than what the last leader knew, and has told: that the wish was
    taken back, so that the node could leave."""
    bench.lead_data()
    bench.node.lead_again()
    before, moving = bench.node.raft.configuration, view(nodes=4, wanted=(1, 2, 4))
    bench.steward.step(moving)
    assert bench.routed == [], "another leader may bring another configuration"
    raft = bench.node.raft
    bench.node.step(AppendReply(DATA, 2, 1, raft.term, True, raft.last_index, 0, 0, 0))
    bench.node.settle()
    bench.steward.step(moving)
    assert bench.node.raft.configuration == before
    assert bench.ops() == {Op.META_REPORT: 1}
    record = moving.shards[DATA]
    report = attrs.evolve(record.report, term=bench.node.raft.term)
    bench.steward.step(attrs.evolve(moving, shards={DATA: attrs.evolve(record, report=report)}))
    assert bench.node.raft.configuration.learners == {4}


def test_a_change_is_left_for_later_while_leadership_is_handed_over(bench: Bench) -> None:
    bench.lead_data()
    before = bench.node.raft.configuration
    bench.node.raft.transferring = 2
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    assert bench.node.raft.configuration == before


def test_a_leader_that_shall_go_hands_over_to_nobody_who_is_damaged(bench: Bench) -> None:
    bench.lead_data()
    bench.damaged.add((DATA, 2))
    bench.steward.step(view(nodes=4, wanted=(2, 3)))
    assert bench.node.raft.transferring == 3


def test_a_move_goes_on_though_its_only_heir_is_damaged(bench: Bench) -> None:
    """Handing over to one that takes no leadership would be tried for ever, and the damaged
    one is made anew only behind the move."""
    bench.lead_data()
    bench.damaged.add((DATA, 2))
    bench.steward.step(view(nodes=5, wanted=(2, 4, 5)))
    assert not bench.node.raft.transferring
    assert bench.node.raft.configuration.learners == {4, 5}


def test_leaders_are_evened_out_no_more_often_than_twice_a_second(bench: Bench) -> None:
    bench.lead_meta()
    bench.node.clock.advance(1000)
    bench.leaders.learn(DATA, 1, 1)
    more = view()
    shards = dict(more.shards)
    for extra in (5, 6):
        shards[extra] = attrs.evolve(shards[DATA], shard=extra)
        bench.leaders.learn(extra, 1, 1)
    more = attrs.evolve(more, shards=shards)
    for _ in range(5):
        bench.steward.step(more)
    transfers = bench.ops()[Op.LEADER_TRANSFER]
    assert 1 <= transfers <= 2
    bench.answer_all()
    bench.node.clock.advance(600)
    bench.steward.step(more)
    assert bench.ops()[Op.LEADER_TRANSFER] >= 1


# --- what may begin ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "present", "safe"),
    [
        ((1, 2, 4), {1, 2, 3, 4}, True),
        ((1, 2, 4), {1, 2, 3}, False),  # nobody answers there
        ((1, 2, 4), {1, 3, 4}, False),  # node 2 is missing: two copies would be left
        ((1, 2, 4), {1, 2, 4}, True),  # what is given up is out of reach anyway
        ((1, 2, 4), {1, 4}, True),  # and so it makes more copies, however few are left
        ((1, 2, 4), {1, 2, 3, 4, 6}, True),
        ((1, 2, 3, 4), {1, 2, 4}, True),  # nothing is given up
        ((4, 5, 6), {1, 2, 3, 4, 5, 6}, True),
        ((4, 5, 6), {1, 2, 3, 4, 5}, False),
    ],
)
def test_a_live_copy_is_given_up_only_for_others_that_live(
    after: tuple[int, ...], present: set[int], safe: bool
) -> None:
    assert is_safe(view(nodes=6), Placement(DATA, 1, after), present) is safe


def test_a_copy_that_still_votes_counts_as_one_that_is_given_up() -> None:
    """A move was begun, to a node that died: 3 votes still, though it is not wanted."""
    moving = view(nodes=6, wanted=(1, 2, 5))
    assert not is_safe(moving, Placement(DATA, 1, (1, 2, 6)), {1, 3, 6})
    assert is_safe(moving, Placement(DATA, 1, (1, 2, 6)), {1, 2, 3, 6})


def drained(plain: MetaView, node: int) -> MetaView:
    record = attrs.evolve(plain.nodes[node], state=NodeState.DRAINING)
    return attrs.evolve(plain, nodes={**plain.nodes, node: record})


def test_a_node_is_drained_while_another_that_is_not_concerned_is_missing(bench: Bench) -> None:
    bench.lead_meta()
    bench.present.discard(6)
    bench.steward.step(drained(view(nodes=6), 3))
    assert bench.ops()[Op.META_PLACE] == 1


def test_a_node_is_not_drained_while_a_holder_of_its_shard_is_missing(bench: Bench) -> None:
    bench.lead_meta()
    bench.present.discard(2)
    bench.steward.step(drained(view(nodes=6), 3))
    assert bench.ops()[Op.META_PLACE] == 0


def test_a_dead_holder_is_not_waited_for(bench: Bench) -> None:
    bench.lead_meta()
    bench.present.discard(2)
    plain = drained(view(nodes=6), 3)
    dead = attrs.evolve(plain.nodes[2], dead=True)
    bench.steward.step(attrs.evolve(plain, nodes={**plain.nodes, 2: dead}))
    (place,) = [r for r in bench.routed if r.op == Op.META_PLACE]
    nodes = decode_body(Op.META_PLACE, place.body)[2]
    assert isinstance(nodes, list)
    assert {2, 3}.isdisjoint(nodes)


def test_nothing_begins_while_people_have_paused_the_moves(bench: Bench) -> None:
    bench.lead_meta()
    plain = drained(view(nodes=6), 3)
    bench.steward.step(attrs.evolve(plain, paused=True))
    held = attrs.evolve(plain.shards[DATA], held=True)
    bench.steward.step(attrs.evolve(plain, shards={**plain.shards, DATA: held}))
    assert bench.ops()[Op.META_PLACE] == 0


def test_nothing_is_moved_during_an_outage(bench: Bench) -> None:
    bench.lead_meta()
    plain = drained(view(nodes=6), 3)
    everywhere = attrs.evolve(plain.shards[DATA], shard=7, replicas=tuple(map(member, range(1, 7))))
    plain = attrs.evolve(plain, shards={**plain.shards, 7: everywhere})
    bench.present -= {4, 5, 6}
    for _ in range(60):
        bench.node.clock.advance(200)
        bench.steward.step(attrs.evolve(plain, paused=True))
    bench.steward.step(plain)
    assert bench.ops()[Op.META_PLACE] == 0
    assert bench.ops()[Op.META_NODE_DEAD] == 0
    bench.present |= {4, 5, 6}
    bench.steward.step(plain)
    assert bench.ops()[Op.META_PLACE] > 0


def test_a_node_that_is_silent_for_long_is_declared_dead_once_and_then_alive(bench: Bench) -> None:
    bench.lead_meta()
    plain = view(nodes=6)
    bench.steward.step(plain)
    bench.present.discard(3)
    for _ in range(60):
        bench.node.clock.advance(200)
        bench.steward.step(plain)
    (told,) = [r for r in bench.routed if r.op == Op.META_NODE_DEAD]
    assert decode_body(Op.META_NODE_DEAD, told.body) == [3, True, 1]
    bench.answer_all()
    dead = attrs.evolve(plain.nodes[3], dead=True)
    bench.present.add(3)
    bench.steward.step(attrs.evolve(plain, nodes={**plain.nodes, 3: dead}))
    (told,) = [r for r in bench.routed if r.op == Op.META_NODE_DEAD]
    assert decode_body(Op.META_NODE_DEAD, told.body) == [3, False, 1]


# --- what goes on --------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [True, False])
def test_a_shard_that_is_held_makes_no_change(bench: Bench, everything: bool) -> None:
    bench.lead_data()
    before = bench.node.raft.configuration
    plain = view(nodes=4, wanted=(1, 2, 4))
    held = attrs.evolve(plain.shards[DATA], held=not everything)
    plain = attrs.evolve(plain, paused=everything, shards={**plain.shards, DATA: held})
    bench.steward.step(plain)
    assert bench.node.raft.configuration == before
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    assert bench.node.raft.configuration != before


def test_a_move_that_was_taken_back_leaves_no_learner_though_the_shard_is_held(
    bench: Bench,
) -> None:
    bench.lead_data()
    bench.steward.step(view(nodes=4, wanted=(1, 2, 4)))
    bench.node.settle()
    for follower in (2, 3):
        index, term = bench.node.raft.last_index, bench.node.raft.term
        bench.node.step(AppendReply(DATA, follower, 1, term, True, index, 0, 0, 0))
    bench.node.settle()
    assert bench.node.raft.configuration.learners == {4}
    plain = view(nodes=4)
    held = attrs.evolve(plain.shards[DATA], held=True)
    bench.steward.step(attrs.evolve(plain, shards={**plain.shards, DATA: held}))
    assert bench.node.raft.configuration.learners == frozenset()


def test_a_node_that_has_no_room_or_is_about_to_stop_gets_no_replica(bench: Bench) -> None:
    bench.lead_meta()
    bench.unwilling.add(3)
    bench.steward.step(view(wanted=(1,)))
    (place,) = [r for r in bench.routed if r.op == Op.META_PLACE]
    assert decode_body(Op.META_PLACE, place.body)[2] == [1, 2]
    bench.answer_all()
    bench.unwilling.clear()
    bench.steward.step(view(wanted=(1, 2)))
    (place,) = [r for r in bench.routed if r.op == Op.META_PLACE]
    assert decode_body(Op.META_PLACE, place.body)[2] == [1, 2, 3]


def test_a_shard_that_is_being_copied_keeps_its_leader(bench: Bench) -> None:
    bench.lead_meta()
    bench.node.clock.advance(1000)
    plain = view(nodes=4)
    shards = dict(plain.shards)
    for extra in (5, 6, 7, 8):
        shards[extra] = attrs.evolve(shards[DATA], shard=extra)
        bench.leaders.learn(extra, 1, 1)
    for copied in (5, 6):
        shards[copied] = attrs.evolve(shards[copied], replicas=tuple(map(member, (1, 2, 4))))
    bench.steward.step(attrs.evolve(plain, shards=shards))
    moved = {r.shard for r in bench.routed if r.op == Op.LEADER_TRANSFER}
    assert moved
    assert moved <= {7, 8}


# --- splits --------------------------------------------------------------------------------


def splitting() -> MetaView:
    plain = view()
    split = Split(9, tuple(SplitReplica(n, 10 + n, n) for n in (1, 2, 3)))
    record = attrs.evolve(plain.shards[DATA], split=split)
    return attrs.evolve(plain, shards={**plain.shards, DATA: record})


def acknowledge(bench: Bench) -> None:
    """The followers of the data shard have all that its leader has."""
    bench.node.settle()
    for follower in (2, 3):
        index, term = bench.node.raft.last_index, bench.node.raft.term
        bench.node.step(AppendReply(DATA, follower, 1, term, True, index, 0, 0, 0))
    bench.node.settle()


def test_a_split_is_proposed_once_and_then_reported_until_it_shows(bench: Bench) -> None:
    bench.lead_data()
    acknowledge(bench)
    last = bench.node.raft.last_index
    for _ in range(3):
        bench.steward.step(splitting())
    assert bench.node.raft.last_index == last + 1
    assert bench.ops()[Op.META_SPLIT_DONE] == 0
    acknowledge(bench)
    for _ in range(2):
        bench.steward.step(splitting())
        (done,) = [r for r in bench.routed if r.op == Op.META_SPLIT_DONE]
        fields = decode_body(Op.META_SPLIT_DONE, done.body)
        assert fields[:3] == [DATA, 9, 1 << 31]
        bench.answer_all()
    bench.steward.step(view())
    assert bench.ops()[Op.META_SPLIT_DONE] == 0
    assert bench.node.raft.last_index == last + 1
