"""How many failures are tolerated now, and what a change to a node would do."""

from __future__ import annotations

import attrs
import pytest

from krita.errors import BadRequest
from kritad.cluster.forecast import Flow, forecast
from kritad.cluster.model import NodeState, Split
from kritad.cluster.planner import placements
from kritad.cluster.tolerance import planned_tolerance, tolerance
from kritad.cluster.view import MetaView
from tests.cluster.views import copies, plain, settled, view_of, wanted_on, with_node, with_shard

REMOVE, DRAIN, UP = int(NodeState.REMOVING), int(NodeState.DRAINING), int(NodeState.UP)


def sizes_of(view: MetaView, size: int = 100) -> dict[int, int]:
    return {record.shard: size for record in view.data_shards}


# -- What is tolerated ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "up", "tolerated"),
    [
        (1, {1}, (0, 0)),
        (3, {1, 2, 3}, (1, 2)),
        (3, {1, 2}, (0, 1)),
        (3, {1}, (-1, 0)),
        (3, set(), (-1, -1)),
        (6, {1, 2, 3, 4, 5, 6}, (1, 2)),
    ],
)
def test_the_shard_that_can_spare_the_fewest_decides(
    nodes: int, up: set[int], tolerated: tuple[int, int]
) -> None:
    assert tolerance(plain(16, nodes), up) == tolerated


def test_who_votes_counts_and_not_who_is_wanted() -> None:
    view = wanted_on(view_of({1: [1, 2]}, {1: "", 2: "", 3: ""}), 1, [1, 2, 3])
    assert tolerance(view, {1, 2, 3}) == (0, 1)


def test_a_replica_that_lags_saves_nothing() -> None:
    view = plain(1, 3)
    assert tolerance(view, {1, 2, 3}, behind={(1, 3)}) == (1, 1)


def test_a_damaged_replica_is_neither_a_vote_nor_a_copy() -> None:
    view = plain(1, 3)
    assert tolerance(view, {1, 2, 3}, damaged={(1, 3)}) == (0, 1)
    assert tolerance(view, {1, 2}, damaged={(1, 3)}) == (0, 1), "the same node, counted once"


def test_the_meta_shard_counts_too() -> None:
    view = view_of({1: [1, 2, 3]}, dict.fromkeys(range(1, 6), ""))
    assert tolerance(view, {1, 2, 3}) == (0, 2)  # five vote in the meta shard
    assert planned_tolerance(view, {1: [1, 2, 3]}, {1, 2, 3}) == (0, 2)


def test_a_cluster_that_is_not_there_tolerates_nothing() -> None:
    assert tolerance(MetaView(), set()) == (0, 0)


# -- What a change would do ----------------------------------------------------------


def test_a_forecast_says_what_the_planner_would_do() -> None:
    view = plain(32, 5)
    had = [record.shard for record in view.data_shards if 2 in record.nodes]
    found = forecast(view, sizes_of(view), 2, REMOVE)
    assert found.refused == ""
    assert list(found.shards) == had
    assert found.replicas == sum(flow.replicas for flow in found.flows) == len(had)
    assert found.size_bytes == 100 * len(had)
    assert {flow.source for flow in found.flows} == {2}
    assert {flow.target for flow in found.flows} == {1, 3, 4, 5}
    assert (found.before, found.after) == ((1, 2), (1, 2))
    assert found.warnings == ()
    changed = with_node(view, 2, state=NodeState.REMOVING)
    assert found.replicas == copies(changed, placements(changed))


def test_a_forecast_changes_nothing() -> None:
    view = plain(8, 4)
    nodes, shards = dict(view.nodes), dict(view.shards)
    forecast(view, {}, 2, DRAIN)
    assert (view.nodes, view.shards) == (nodes, shards)


def test_a_replacement_shows_all_going_to_the_successor() -> None:
    view = with_node(plain(32, 4), 5, zone="zone-0")
    had = sum(2 in record.nodes for record in view.data_shards)
    found = forecast(view, sizes_of(view), 2, REMOVE, successor=5)
    assert Flow(2, 5, had, 100 * had) in found.flows
    assert found.successor == 5


def test_too_few_nodes_left_is_said_and_what_is_tolerated_then() -> None:
    view = plain(3, 3)
    found = forecast(view, sizes_of(view), 3, REMOVE)
    assert (found.replicas, found.stays) == (0, 3)
    assert found.warnings == (
        "3 replicas stay where they are: only 2 nodes are left for a replication factor of 3",
    )
    assert (found.before, found.after) == ((1, 2), (0, 1))


@pytest.mark.parametrize(
    ("node", "state", "successor", "why"),
    [
        (2, DRAIN, 3, "node 3 cannot be the successor"),
        (4, UP, None, "node 4 has been removed"),
    ],
)
def test_what_the_entry_would_refuse_is_a_forecast_too(
    node: int, state: int, successor: int | None, why: str
) -> None:
    view = with_node(plain(8, 5), 3, dead=True)
    view = with_node(view, 4, state=NodeState.LEFT)
    found = forecast(view, {}, node, state, successor)
    assert why in found.refused
    assert (found.replicas, found.before) == (0, found.after)
    assert found.to_document()["refusals"] == [found.refused]


@pytest.mark.parametrize(
    ("node", "state", "successor"), [(9, DRAIN, None), (1, 3, None), (1, 9, None), (1, DRAIN, 1)]
)
def test_what_makes_no_sense_is_no_forecast(node: int, state: int, successor: int | None) -> None:
    with pytest.raises(BadRequest):
        forecast(plain(8, 3), {}, node, state, successor)


def test_warnings_name_what_people_should_know() -> None:
    view = plain(8, 5)
    on_two = [record.shard for record in view.data_shards if 2 in record.nodes]
    held, splitting, *others = on_two
    view = with_shard(view, held, held=True)
    view = with_shard(view, splitting, split=Split(99, ()))
    view = attrs.evolve(view, paused=True)
    sizes = sizes_of(view)
    del sizes[others[0]]
    found = forecast(view, sizes, 2, DRAIN)
    assert found.stays == 2
    assert found.warnings == (
        f"2 shards on the node are held or being split, and will not move until that ends: "
        f"{held}, {splitting}",
        "moves are paused: nothing happens until they are resumed",
        f"the size of 1 shard is not known: {others[0]}",
    )


def test_a_zone_that_goes_is_named() -> None:
    view = plain(6, 4, zones=3)
    found = forecast(view, sizes_of(view), 3, DRAIN)
    assert "only 2 zones are left: some shards will have more than one replica in a zone" in (
        found.warnings
    )


def test_what_is_to_be_moved_in_any_case_is_named() -> None:
    view = with_node(plain(32, 4), 2, state=NodeState.DRAINING)
    pending = copies(view, placements(view))
    found = forecast(view, sizes_of(view), 3, UP)
    assert found.replicas == pending
    assert f"{pending} replicas are to be moved in any case" in found.warnings[0]


def test_a_node_taken_back_gets_its_share_again() -> None:
    view = settled(with_node(plain(32, 4), 2, state=NodeState.DRAINING))
    found = forecast(view, sizes_of(view), 2, UP)
    assert found.replicas == 24
    assert {flow.target for flow in found.flows} == {2}


def test_a_forecast_is_a_plain_document() -> None:
    view = plain(4, 4)
    document = forecast(view, sizes_of(view), 2, REMOVE, successor=None).to_document()
    assert document["state"] == "removing"
    assert document["successor"] is None
    assert document["before"] == {"availability": 1, "data": 2}
    moves = document["moves"]
    assert isinstance(moves, list)
    assert set(moves[0]) == {"from", "to", "replicas", "bytes"}


def test_who_gives_and_who_gets_is_paired_by_succession() -> None:
    view = view_of({1: [1, 2, 3]}, dict.fromkeys(range(1, 6), ""))
    view = with_node(view, 2, state=NodeState.DRAINING)
    found = forecast(view, {1: 7}, 1, REMOVE, successor=5)
    assert found.flows == (Flow(1, 5, 1, 7), Flow(2, 4, 1, 7))
