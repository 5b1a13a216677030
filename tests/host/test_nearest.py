"""Where a node sends stale reads of shards that it has no replica of."""

from __future__ import annotations

import attrs
import pytest

from kritad.cluster.model import ReportedReplica
from kritad.cluster.view import MetaView
from kritad.host.leaders import NO_NODE
from kritad.host.nearest import nearest_voter
from tests.cluster.records import add_node, bootstrapped

ALL = {1, 2, 3, 4, 5}


def view_of(
    zones: tuple[str, ...], voters: tuple[int, ...], learners: tuple[int, ...] = ()
) -> MetaView:
    """Node n is in the n-th zone; all shards have these members."""
    records = bootstrapped(shards=4, zone=zones[0])
    for zone in zones[1:]:
        add_node(records, zone)
    view = records.view
    members = tuple(
        ReportedReplica(100 + node, node, node in voters) for node in sorted((*voters, *learners))
    )
    shards = {
        number: attrs.evolve(record, report=attrs.evolve(record.report, replicas=members))
        for number, record in view.shards.items()
    }
    return attrs.evolve(view, shards=shards)


def test_a_voter_in_the_nodes_own_zone_is_asked() -> None:
    view = view_of(("eu", "us", "asia", "us"), voters=(1, 2, 3))
    assert nearest_voter(view, 1, node=4, reachable=ALL, leader=1) == 2


def test_without_one_in_its_zone_the_read_takes_its_usual_way() -> None:
    view = view_of(("eu", "us", "asia", "africa"), voters=(1, 2, 3))
    assert nearest_voter(view, 1, node=4, reachable=ALL, leader=1) == NO_NODE


def test_nodes_without_zones_are_not_near_one_another() -> None:
    view = view_of(("", "", "", ""), voters=(1, 2, 3))
    assert nearest_voter(view, 1, node=4, reachable=ALL, leader=1) == NO_NODE


@pytest.mark.parametrize("leader", [NO_NODE, 1])
def test_without_a_leader_to_go_to_any_voter_answers(leader: int) -> None:
    view = view_of(("eu", "us", "asia", "africa"), voters=(1, 2, 3))
    assert nearest_voter(view, 1, node=4, reachable=ALL - {1}, leader=leader) in {2, 3}


def test_a_voter_that_cannot_be_reached_is_not_asked() -> None:
    view = view_of(("eu", "us", "asia", "us"), voters=(1, 2, 3))
    assert nearest_voter(view, 1, node=4, reachable=ALL - {2}, leader=1) == NO_NODE
    assert nearest_voter(view, 1, node=4, reachable={4}, leader=1) == NO_NODE


def test_a_replica_that_is_still_being_filled_is_not_asked() -> None:
    view = view_of(("eu", "us", "asia", "us"), voters=(1, 3), learners=(2,))
    assert nearest_voter(view, 1, node=4, reachable=ALL, leader=1) == NO_NODE


def test_the_reads_of_several_shards_are_spread_over_a_zones_voters() -> None:
    view = view_of(("us", "us", "us", "us"), voters=(1, 2, 3))
    chosen = [nearest_voter(view, shard, node=4, reachable=ALL, leader=1) for shard in (1, 2, 3)]
    assert sorted(chosen) == [1, 2, 3]


def test_what_is_not_known_is_nobodys() -> None:
    view = view_of(("us", "us"), voters=(1, 2))
    assert nearest_voter(view, 99, node=1, reachable=ALL, leader=1) == NO_NODE
    assert nearest_voter(view, 1, node=77, reachable=ALL, leader=1) == NO_NODE
