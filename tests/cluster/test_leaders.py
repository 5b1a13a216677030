"""Leaders are spread evenly over the nodes that hold replicas."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krita.operations import Op
from kritad.cluster.leaders import leader_transfers
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from tests.cluster.records import add_node, bootstrapped
from tests.cluster.views import view_of, with_node

SHARDS = 16


def placed(holders: list[list[int]], reported: bool = True) -> MetaView:
    """Shards 1.. on these nodes, all of them voters as far as is reported."""
    records = bootstrapped(shards=len(holders))
    for _ in range(max(max(nodes) for nodes in holders) - 1):
        add_node(records)
    for shard, nodes in enumerate(holders, start=1):
        records.call(Op.META_PLACE, shard, 1, nodes)
        replicas = records.view.shards[shard].replicas
        if reported:
            told = [[replica.replica, replica.node, True] for replica in replicas]
            records.call(Op.META_REPORT, shard, 5, 1, told)
    return records.view


def settled(
    view: MetaView,
    leaders: dict[int, int],
    zones: Sequence[str] = (),
    homes: Mapping[int, int] | None = None,
) -> dict[int, int]:
    """Where the leaders are once no transfer is proposed any more."""
    for _ in range(200):
        transfers = leader_transfers(view, leaders, view.nodes, zones, homes=homes or {})
        if not transfers:
            return leaders
        for shard, node in transfers:
            assert node in view.shards[shard].nodes
            assert node != leaders[shard]
            leaders[shard] = node
    raise AssertionError("the leaders never come to rest")


def test_leaders_that_are_all_on_one_node_become_even() -> None:
    view = placed([[1, 2, 3]] * SHARDS)
    leaders = settled(view, dict.fromkeys(range(SHARDS + 1), 1))
    counts = Counter(node for shard, node in leaders.items() if shard)
    assert sorted(counts.values()) == [5, 5, 6]


def test_the_meta_shard_keeps_its_leader() -> None:
    view = placed([[1, 2, 3]] * SHARDS)
    assert settled(view, dict.fromkeys(range(SHARDS + 1), 1))[0] == 1


def test_an_even_spread_stays_as_it_is() -> None:
    view = placed([[1, 2, 3]] * 4)
    assert leader_transfers(view, {1: 1, 2: 2, 3: 3, 4: 1}, view.nodes) == []


def test_only_a_few_transfers_are_made_at_once_and_none_twice() -> None:
    view = placed([[1, 2, 3]] * SHARDS)
    transfers = leader_transfers(view, dict.fromkeys(range(1, SHARDS + 1), 1), view.nodes, limit=3)
    assert len(transfers) == len({shard for shard, _ in transfers}) == 3


def test_a_node_that_holds_no_replica_never_leads() -> None:
    view = placed([[1, 2]] * 8 + [[3, 4]] * 8)
    leaders = settled(view, {shard: 1 if shard <= 8 else 3 for shard in range(1, 17)})
    assert Counter(leaders.values()) == {1: 4, 2: 4, 3: 4, 4: 4}


def test_a_replica_that_is_not_reported_to_vote_gets_no_leadership() -> None:
    view = placed([[1, 2, 3]] * 4, reported=False)
    assert leader_transfers(view, dict.fromkeys(range(1, 5), 1), view.nodes) == []


def test_a_replica_that_only_learns_gets_no_leadership() -> None:
    view = placed([[1, 2]] * 4)
    shards = {
        number: attrs.evolve(
            shard,
            report=attrs.evolve(
                shard.report,
                replicas=tuple(
                    attrs.evolve(member, voter=member.node == 1) for member in shard.report.replicas
                ),
            ),
        )
        for number, shard in view.shards.items()
    }
    view = attrs.evolve(view, shards=shards)
    assert leader_transfers(view, dict.fromkeys(range(1, 5), 1), view.nodes) == []


def test_a_node_that_shall_not_hold_the_shard_any_more_gets_no_leadership() -> None:
    view = placed([[1, 2]] * 4)
    moved = {
        number: attrs.evolve(shard, replicas=shard.replicas[:1])
        for number, shard in view.shards.items()
    }
    assert [shard.nodes for shard in moved.values()] == [(1,)] * 5
    view = attrs.evolve(view, shards=moved)
    assert leader_transfers(view, dict.fromkeys(range(1, 5), 1), view.nodes) == []


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.REMOVING])
def test_a_node_that_shall_go_gets_no_leadership(state: NodeState) -> None:
    view = placed([[1, 2]] * 4)
    going = attrs.evolve(view.nodes[2], state=state)
    view = attrs.evolve(view, nodes={**view.nodes, 2: going})
    assert leader_transfers(view, dict.fromkeys(range(1, 5), 1), view.nodes) == []


def test_a_node_that_cannot_be_reached_gets_no_leadership() -> None:
    view = placed([[1, 2, 3]] * 4)
    leaders = dict.fromkeys(range(1, 5), 1)
    assert {heir for _, heir in leader_transfers(view, leaders, {1, 2})} == {2}
    assert leader_transfers(view, leaders, {1}) == []


def test_a_damaged_replica_and_one_that_is_being_replaced_get_no_leadership() -> None:
    view = placed([[1, 2, 3]] * 8)
    leaders = dict.fromkeys(range(1, 9), 1)
    on_two = {(n, r.replica) for n in leaders for r in view.shards[n].replicas if r.node == 2}
    for _, node in leader_transfers(view, leaders, view.nodes, limit=9, damaged=on_two):
        assert node == 3
    for shard in leaders:
        record = view.shards[shard]
        anew = [attrs.evolve(r, replica=r.replica + 500 * (r.node == 2)) for r in record.replicas]
        record = attrs.evolve(record, replicas=tuple(anew))
        view = attrs.evolve(view, shards={**view.shards, shard: record})
    for _, node in leader_transfers(view, leaders, view.nodes, limit=9):
        assert node == 3


def test_shards_without_a_known_leader_are_left_alone() -> None:
    view = placed([[1, 2, 3]] * 4)
    assert leader_transfers(view, {1: 0, 2: 0, 99: 1}, view.nodes) == []


def test_the_same_input_gives_the_same_transfers() -> None:
    view = placed([[1, 2, 3]] * SHARDS)
    leaders = dict.fromkeys(range(1, SHARDS + 1), 2)
    turned = dict(reversed(leaders.items()))
    assert leader_transfers(view, leaders, view.nodes) == leader_transfers(view, turned, view.nodes)


def held_by(holders: list[list[int]]) -> MetaView:
    """Shards 1.. voted in by these nodes; any number of shards."""
    nodes = range(1, max(max(nodes) for nodes in holders) + 1)
    return view_of(dict(enumerate(holders, start=1)), dict.fromkeys(nodes, ""))


def counted(leaders: dict[int, int]) -> list[int]:
    counts = Counter(leaders.values())
    return [counts[node] for node in sorted(counts)]


def test_a_chain_of_transfers_evens_what_no_single_one_can() -> None:
    # 1 and 2 share shards, 2 and 3 do; nothing of 1 can go to 3.
    view = held_by([[1, 2]] * 4 + [[2, 3]] * 4)
    leaders = settled(view, dict.fromkeys(range(1, 5), 1) | dict.fromkeys(range(5, 9), 2))
    assert counted(leaders) == [3, 3, 2]


def test_a_long_chain_is_gone_to_its_end() -> None:
    # Node 1 leads three, 8 one, the rest two each; each can only hand to the next.
    holders = [[1, 2]] * 3 + [[node, node + 1] for node in range(2, 8) for _ in range(2)] + [[8]]
    view = held_by(holders)
    leaders = {shard: nodes[0] for shard, nodes in enumerate(holders, start=1)}
    assert counted(leaders) == [3, 2, 2, 2, 2, 2, 2, 1]
    transfers = leader_transfers(view, leaders, view.nodes, limit=100)
    assert len(transfers) == 7
    assert counted(settled(view, leaders)) == [2] * 8


def optimum(holders: list[list[int]], nodes: int) -> int:
    """The smallest possible sum of squares, by trying everything."""
    best = len(holders) ** 2
    for choice in itertools.product(*holders):
        counts = Counter(choice)
        best = min(best, sum(counts[node] ** 2 for node in range(1, nodes + 1)))
    return best


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    holders=st.lists(
        st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True), min_size=1, max_size=6
    ),
    first=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_leaders_come_to_be_as_even_as_transfers_can_make_them(
    holders: list[list[int]], first: list[int]
) -> None:
    view = held_by([*holders, [5]])
    everywhere = [*holders, [5]]
    leaders = {
        shard: nodes[first[shard % 6] % len(nodes)]
        for shard, nodes in enumerate(everywhere, start=1)
    }
    after = settled(view, leaders)
    counts = Counter(after.values())
    assert sum(number**2 for number in counts.values()) == optimum(everywhere, 5)


def in_zones(view: MetaView, zones: dict[int, str]) -> MetaView:
    nodes = {
        number: attrs.evolve(n, zone=zones.get(number, "")) for number, n in view.nodes.items()
    }
    return attrs.evolve(view, nodes=nodes)


def test_leaders_go_to_the_preferred_zone_and_are_even_within_it() -> None:
    view = in_zones(held_by([[1, 2, 3, 4]] * 8), {1: "eu", 2: "eu", 3: "us", 4: "asia"})
    leaders = settled(view, dict.fromkeys(range(1, 9), 4), zones=["eu", "us"])
    assert Counter(leaders.values()) == {1: 4, 2: 4}


def test_a_shard_without_a_voter_in_the_first_zone_is_led_in_the_second() -> None:
    view = in_zones(held_by([[3, 4], [4, 5], [1, 4]]), {1: "eu", 3: "us", 4: "asia", 5: ""})
    leaders = settled(view, {1: 4, 2: 4, 3: 4}, zones=["eu", "us"])
    assert (leaders[1], leaders[3]) == (3, 1)
    assert leaders[2] in (4, 5)  # no preferred zone has it: wherever it is best


def test_a_zone_whose_nodes_are_away_is_not_waited_for() -> None:
    view = in_zones(held_by([[1, 2, 3]] * 4), {1: "eu", 2: "us", 3: "us"})
    leaders = dict.fromkeys(range(1, 5), 1)
    assert leader_transfers(view, leaders, {2, 3}, zones=["eu", "us"])
    transfers = leader_transfers(view, leaders, {1, 2, 3}, zones=["eu", "us"])
    assert transfers == []


def test_the_preferred_zone_is_kept_although_others_lead_nothing() -> None:
    view = in_zones(held_by([[1, 2, 3]] * 8), {1: "eu", 2: "us", 3: "us"})
    assert settled(view, dict.fromkeys(range(1, 9), 1), zones=["eu"]) == dict.fromkeys(
        range(1, 9), 1
    )


@pytest.mark.parametrize(
    "going",
    [{"state": NodeState.DRAINING}, {"state": NodeState.REMOVING}, {"dead": True}],
)
def test_a_node_that_shall_go_hands_over_first(going: dict[str, object]) -> None:
    view = with_node(held_by([[1, 2, 3]] * 9), 2, **going)
    # 1 leads seven, but the one that 2 leads goes first.
    leaders = dict.fromkeys(range(1, 8), 1) | {8: 2, 9: 3}
    assert leader_transfers(view, leaders, view.nodes, limit=1) == [(8, 3)]
    assert set(settled(view, leaders).values()) == {1, 3}


def test_a_node_that_shall_go_hands_over_before_zones_are_seen_to() -> None:
    view = in_zones(held_by([[1, 2], [2, 3]]), {1: "eu", 3: "us"})
    view = with_node(view, 3, state=NodeState.DRAINING)
    assert leader_transfers(view, {1: 2, 2: 3}, view.nodes, ["eu"], limit=1) == [(2, 2)]


def test_a_node_that_shall_go_keeps_what_nobody_else_may_lead() -> None:
    view = with_node(held_by([[1]]), 1, state=NodeState.DRAINING)
    assert leader_transfers(view, {1: 1}, {1}) == []


def test_a_shard_is_led_at_its_home_and_the_others_even_out_around_it() -> None:
    view = placed([[1, 2, 3]] * 8)
    leaders = settled(view, {n: 1 + n % 3 for n in range(1, 9)}, homes=dict.fromkeys((1, 2, 3), 3))
    assert [leaders[shard] for shard in (1, 2, 3)] == [3, 3, 3]
    assert Counter(leaders.values()) == {1: 3, 2: 2, 3: 3}


def test_homes_win_over_an_even_spread() -> None:
    view = placed([[1, 2, 3]] * 8)
    leaders = settled(
        view, {n: 1 + n % 3 for n in range(1, 9)}, homes=dict.fromkeys(range(1, 9), 2)
    )
    assert set(leaders.values()) == {2}


def test_a_home_that_cannot_lead_the_shard_is_none() -> None:
    view = placed([[1, 2]] * 3 + [[3]])
    leaders = {1: 1, 2: 2, 3: 1, 4: 3}
    assert settled(view, dict(leaders), homes={1: 3, 2: 3}) == leaders


def test_a_home_outside_of_the_preferred_zone_is_none() -> None:
    view = in_zones(placed([[1, 2, 3]] * 4), {1: "eu", 2: "eu", 3: "us"})
    leaders = settled(view, {1: 1, 2: 2, 3: 2, 4: 2}, ["eu"], {1: 3, 2: 1})
    assert leaders[2] == 1, "a home within the zone is one"
    assert counted(leaders) == [2, 2]
