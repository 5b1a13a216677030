"""Leaders are spread evenly over the nodes that hold replicas."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest

from krita.operations import Op
from kritad.cluster.leaders import leader_transfers
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from tests.cluster.records import add_node, bootstrapped

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


def settled(view: MetaView, leaders: dict[int, int]) -> dict[int, int]:
    """Where the leaders are once no transfer is proposed any more."""
    for _ in range(200):
        transfers = leader_transfers(view, leaders, view.nodes)
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


def test_a_node_that_shall_not_hold_the_shard_any_more_gets_no_leadership() -> None:
    view = placed([[1, 2]] * 4)
    moved = {
        number: attrs.evolve(shard, replicas=shard.replicas[:1])
        for number, shard in view.shards.items()
    }
    assert [shard.nodes for shard in moved.values()] == [(1,)] * 5
    view = attrs.evolve(view, shards=moved)
    assert leader_transfers(view, dict.fromkeys(range(1, 5), 1), view.nodes) == []


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.DEAD])
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


def test_shards_without_a_known_leader_are_left_alone() -> None:
    view = placed([[1, 2, 3]] * 4)
    assert leader_transfers(view, {1: 0, 2: 0, 99: 1}, view.nodes) == []


def test_the_same_input_gives_the_same_transfers() -> None:
    view = placed([[1, 2, 3]] * SHARDS)
    leaders = dict.fromkeys(range(1, SHARDS + 1), 2)
    turned = dict(reversed(leaders.items()))
    assert leader_transfers(view, leaders, view.nodes) == leader_transfers(view, turned, view.nodes)
