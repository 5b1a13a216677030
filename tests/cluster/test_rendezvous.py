"""Wishes are even, weighted, and move little when nodes come and go."""

from __future__ import annotations

from collections import Counter

import pytest

from kritad.cluster.rendezvous import wish

SHARDS = range(1, 2001)


def favourites(weights: dict[int, int]) -> dict[int, int]:
    """Each shard's most wished node."""
    return {
        shard: max(weights, key=lambda node: wish(shard, node, weights[node])) for shard in SHARDS
    }


def test_equal_nodes_are_wished_equally_often() -> None:
    counts = Counter(favourites(dict.fromkeys(range(1, 6), 1)).values())
    assert all(count == pytest.approx(400, rel=0.15) for count in counts.values())


def test_a_node_of_three_times_the_weight_is_wished_three_times_as_often() -> None:
    counts = Counter(favourites({1: 1, 2: 1, 3: 3}).values())
    assert counts[3] == pytest.approx(1200, rel=0.1)


def test_a_new_node_takes_its_share_and_nothing_else_changes() -> None:
    before = favourites(dict.fromkeys(range(1, 5), 1))
    after = favourites(dict.fromkeys(range(1, 6), 1))
    changed = [shard for shard in SHARDS if before[shard] != after[shard]]
    assert {after[shard] for shard in changed} == {5}
    assert len(changed) == pytest.approx(400, rel=0.15)


def test_a_wish_is_the_same_in_every_process() -> None:
    # Stored nowhere, but a changed hash would move replicas for nothing after an upgrade.
    assert [round(wish(7, node), 6) for node in (1, 2, 3)] == [1.504836, 26.209171, 11.807656]
