"""Counting what is asked, and how fast it is seen and forgotten."""

from __future__ import annotations

from kritad.host.demand import Demand


def lived(seconds: int, asked_per_s: int = 0, served_per_s: int = 0, shard: int = 7) -> Demand:
    demand = Demand(0.0)
    go_on(demand, 0, seconds, asked_per_s, served_per_s, shard)
    return demand


def go_on(
    demand: Demand, since_s: int, seconds: int, asked: int, served: int = 0, shard: int = 7
) -> None:
    for second in range(since_s + 1, since_s + seconds + 1):
        for _ in range(asked):
            demand.asked(shard)
        for _ in range(served):
            demand.served(shard)
        demand.step(second * 1000.0)


def test_a_steady_load_is_told_as_it_is() -> None:
    assert lived(30, asked_per_s=200, served_per_s=1000).rows() == [(7, 200, 1000)]


def test_a_load_is_seen_within_two_seconds_and_forgotten_within_twenty() -> None:
    demand = lived(2, asked_per_s=100)
    ((_, asked, _),) = demand.rows()
    assert asked >= 50
    go_on(demand, 2, 20, 0)
    assert demand.rows() == []


def test_what_came_in_half_a_second_is_not_told_yet() -> None:
    demand = Demand(0.0)
    demand.asked(7)
    demand.step(500.0)
    assert demand.rows() == []


def test_a_second_that_was_longer_counts_as_what_it_was() -> None:
    demand = Demand(0.0)
    for _ in range(1000):
        demand.asked(7)
    demand.step(10_000.0)  # the process was stopped meanwhile
    ((_, asked, _),) = demand.rows()
    assert asked == 30


def test_shards_are_told_by_their_number() -> None:
    demand = Demand(0.0)
    for shard in (9, 3, 5):
        for _ in range(10):
            demand.served(shard)
    demand.step(1000.0)
    assert [shard for shard, _, _ in demand.rows()] == [3, 5, 9]
