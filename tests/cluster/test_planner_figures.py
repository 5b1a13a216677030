"""The planner's figures, swept over clusters of 3 to 30 nodes, and its promises
whatever happens to a cluster."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.cluster.model import NodeState
from kritad.cluster.moves import admissible
from kritad.cluster.planner import Placement, placements
from kritad.cluster.view import MetaView
from tests.cluster.views import (
    arrived,
    carried_out,
    copies,
    loads,
    node_record,
    plain,
    settled,
    unevenness,
    wanted_on,
    with_node,
    with_shard,
)

NODES_MAX = 30


@pytest.mark.parametrize("zones", [1, 3])
@pytest.mark.parametrize("shards", [64, 68, 256])  # 68 on 29 nodes is the worst of all
def test_growth_is_even_and_every_join_and_loss_moves_what_it_must(shards: int, zones: int) -> None:
    view = plain(shards, 3, zones)
    for node in range(4, NODES_MAX + 1):
        joined = with_node(view, node, zone=f"zone-{(node - 1) % zones}")
        plan = placements(joined)
        view = carried_out(joined, plan)
        replicas = 3 * shards
        # Copies go to the new node alone, and not more than a tenth above its share.
        assert copies(joined, plan) == loads(view)[node] <= 1.1 * replicas / node
        if zones == 1 or node % zones == 0:
            assert unevenness(view) <= 1.15, f"{node} nodes: {loads(view)}"
        if node > 4:
            for lost in (1, node // 2, node):
                plan = placements(with_node(view, lost, dead=True))
                assert copies(view, plan) <= 1.1 * loads(view)[lost], f"{lost} of {node}"


@pytest.mark.parametrize("nodes", [9, 15, 30])
def test_a_loss_leaves_the_others_even(nodes: int) -> None:
    view = settled(with_node(plain(64, nodes), 5, dead=True))
    counts = loads(view)
    assert max(counts.values()) - min(counts.values()) <= 1


def throttled(view: MetaView) -> tuple[MetaView, int, int]:
    """Carry the plan out two moves a node at a time; the copies made, and the rounds."""
    made = rounds = 0
    while plan := placements(view):
        begun = admissible(view, plan)
        assert begun, "there is a plan and nothing of it may begin"
        made += copies(view, begun)
        view = carried_out(view, begun)
        rounds += 1
    return view, made, rounds


@pytest.mark.parametrize(("nodes", "zones"), [(5, 1), (9, 3), (12, 1)])
def test_a_plan_carried_out_piece_by_piece_makes_no_more_copies(nodes: int, zones: int) -> None:
    view = plain(128, nodes, zones)
    joined = with_node(view, nodes + 1, zone=view.nodes[1].zone)
    after, made, _ = throttled(joined)
    assert made == copies(joined, placements(joined)) == loads(after)[nodes + 1]
    lost = with_node(view, 2, dead=True)
    _, made, _ = throttled(lost)
    assert made <= 1.1 * loads(view)[2]


def test_moves_that_finish_in_any_order_come_to_the_same_number_of_copies() -> None:
    view = with_node(plain(64, 6), 7, zone="zone-0")
    made = 0
    in_motion: list[int] = []
    for turn in range(1000):
        begun = admissible(view, placements(view))
        made += copies(view, begun)
        for placement in begun:
            view = wanted_on(view, placement.shard, placement.nodes)
            in_motion.append(placement.shard)
        if not in_motion:
            break
        assert len(in_motion) <= 2  # all of them onto node 7
        view = arrived(view, in_motion.pop(turn % len(in_motion)))
    assert placements(view) == []
    assert made == loads(view)[7]


# -- Whatever happens --------------------------------------------------------------

_EVENTS = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["dead", "back", "drain", "up", "left"]), st.integers(1, 12)),
    st.tuples(st.just("weigh"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["hold", "resume"]), st.integers(1, 24)),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("begin"), st.integers(1, 6)),
)
_CHANGES: dict[str, dict[str, object]] = {
    "dead": {"dead": True},
    "back": {"dead": False},
    "drain": {"state": NodeState.DRAINING},
    "up": {"state": NodeState.UP},
    "left": {"state": NodeState.LEFT},
    "weigh": {"weight": 3},
}


def happen(view: MetaView, event: str, number: int) -> MetaView:
    if event == "settle":
        return settled(view)
    if event == "begin":
        for placement in placements(view)[:number]:
            view = wanted_on(view, placement.shard, placement.nodes)
        return view
    if event == "join":
        node = max(view.nodes) + 1
        return attrs.evolve(view, nodes={**view.nodes, node: node_record(node, f"zone-{number}")})
    if event in ("hold", "resume"):
        return with_shard(view, number, held=event == "hold")
    if number not in view.nodes or view.nodes[number].left:
        return view
    return with_node(view, number, **_CHANGES[event])


def check_plan(view: MetaView, plan: Sequence[Placement]) -> None:
    usable = {node.node for node in view.usable_nodes}
    for placement in plan:
        record = view.shards[placement.shard]
        assert len(set(placement.nodes)) == len(placement.nodes), "two replicas on one node"
        assert set(placement.nodes) - set(record.nodes) <= usable
        live = sum(not view.nodes[node].left for node in record.nodes)
        assert len(placement.nodes) >= min(live, view.replication_factor), "given up for nothing"
        assert not record.held or any(view.nodes[node].left for node in record.nodes)


def check_spread(view: MetaView) -> None:
    zones = {node.zone for node in view.usable_nodes}
    usable = {node.node for node in view.usable_nodes}
    for record in view.data_shards:
        nodes = [node for node in record.nodes if node in usable]
        if record.held or len(nodes) < 3:
            continue
        spread = {view.nodes[node].zone for node in nodes}
        assert len(spread) == min(3, len(zones)), f"{record.nodes} in {sorted(spread)}"


@settings(derandomize=True, max_examples=150, deadline=None)
@given(zones=st.integers(1, 3), events=st.lists(_EVENTS, max_size=12))
def test_whatever_happens_a_plan_keeps_its_promises(
    zones: int, events: list[tuple[str, int]]
) -> None:
    view = plain(24, 5, zones)
    for event, number in events:
        view = happen(view, event, number)
        plan = placements(view)
        turned = attrs.evolve(
            view,
            nodes=dict(reversed(list(view.nodes.items()))),
            shards=dict(reversed(list(view.shards.items()))),
        )
        assert placements(turned) == plan, "the same input gave another output"
        check_plan(view, plan)
        after = carried_out(view, plan)
        check_spread(after)
        assert placements(after) == [], "a plan that was carried out leaves something to do"
