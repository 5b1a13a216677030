"""Who votes in the meta shard."""

from __future__ import annotations

import attrs
import pytest

from krita.operations import Op
from kritad.cluster.membership import meta_voters, wanted_members
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from tests.cluster.records import DictRecords, add_node, bootstrapped
from tests.cluster.views import with_node


def members(nodes: int, zones: int = 1) -> DictRecords:
    records = bootstrapped(shards=1, zone="zone-0")
    for number in range(1, nodes):
        add_node(records, zone=f"zone-{number % zones}")
    return records


@pytest.mark.parametrize(
    ("nodes", "voters"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5), (30, 5)]
)
def test_at_most_five_nodes_vote_in_the_meta_shard(nodes: int, voters: int) -> None:
    view = members(nodes).view
    wanted = wanted_members(view, 0)
    assert sorted(wanted.voters.values()) == list(range(1, voters + 1))
    assert sorted(wanted.learners.values()) == list(range(voters + 1, nodes + 1))


def test_all_replicas_of_a_data_shard_vote() -> None:
    records = members(4)
    records.call(Op.META_PLACE, 1, 1, [2, 3, 4])
    wanted = wanted_members(records.view, 1)
    assert sorted(wanted.voters.values()) == [2, 3, 4]
    assert wanted.learners == {}


def test_the_voters_of_the_meta_shard_are_spread_over_zones() -> None:
    records = bootstrapped(shards=1, zone="a")
    for zone in ("a", "a", "a", "a", "a", "b", "c"):
        add_node(records, zone)
    view = records.view
    zones = [view.nodes[node].zone for node in meta_voters(view).values()]
    assert {"a", "b", "c"} == set(zones)


def report_voters(records: DictRecords, view: MetaView, nodes: set[int]) -> None:
    replicas = [[r.replica, r.node, r.node in nodes] for r in view.shards[0].replicas]
    records.call(Op.META_REPORT, 0, records.index + 1, 1, replicas)


def test_those_who_vote_already_go_on_voting() -> None:
    records = members(7)
    report_voters(records, records.view, {3, 4, 5, 6, 7})
    assert set(meta_voters(records.view).values()) == {3, 4, 5, 6, 7}


@pytest.mark.parametrize("zones", [1, 2, 3])
def test_the_choice_of_voters_stays_once_it_was_carried_out(zones: int) -> None:
    records = members(7, zones)
    chosen = meta_voters(records.view)
    report_voters(records, records.view, set(chosen.values()))
    assert meta_voters(records.view) == chosen


def test_a_dead_voter_is_replaced_by_a_learner() -> None:
    view = members(6).view
    dead = attrs.evolve(view.nodes[2], dead=True)
    view = attrs.evolve(view, nodes={**view.nodes, 2: dead})
    assert set(meta_voters(view).values()) == {1, 3, 4, 5, 6}


def test_a_node_that_left_neither_votes_nor_counts() -> None:
    view = members(3).view
    left = attrs.evolve(view.nodes[2], state=NodeState.LEFT)
    view = attrs.evolve(view, nodes={**view.nodes, 2: left})
    assert set(meta_voters(view).values()) == {1, 3}


def test_before_the_bootstrap_nobody_votes() -> None:
    assert meta_voters(MetaView()) == {}


@pytest.mark.parametrize(
    "going",
    [{"dead": True}, {"state": NodeState.DRAINING}, {"state": NodeState.REMOVING}],
)
def test_with_four_others_three_vote_instead_of_five(going: dict[str, object]) -> None:
    view = with_node(members(5).view, 2, **going)
    assert set(meta_voters(view).values()) == {1, 3, 4}


def test_two_are_too_few_so_that_one_that_shall_go_votes_on() -> None:
    view = with_node(members(3).view, 2, state=NodeState.DRAINING)
    assert set(meta_voters(view).values()) == {1, 2, 3}


def test_of_those_that_shall_go_a_live_one_votes_rather_than_a_dead_one() -> None:
    view = with_node(members(4).view, 1, dead=True)
    view = with_node(view, 2, state=NodeState.REMOVING)
    assert set(meta_voters(view).values()) == {2, 3, 4}


def test_voters_that_come_back_take_nobodys_place() -> None:
    records = members(6)
    view = with_node(records.view, 2, dead=True)
    report_voters(records, view, set(meta_voters(view).values()))
    assert set(meta_voters(records.view).values()) == {1, 3, 4, 5, 6}


@pytest.mark.parametrize("nodes", range(1, 9))
def test_the_number_of_voters_is_odd_but_for_two_members(nodes: int) -> None:
    view = members(nodes).view
    assert len(meta_voters(view)) in ((2,) if nodes == 2 else (1, 3, 5))
    for node in range(2, nodes + 1):
        view = with_node(view, node, dead=True)
        assert len(meta_voters(view)) in ((2,) if nodes == 2 else (1, 3, 5))
