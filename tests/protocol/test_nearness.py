"""How near nodes are by what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.nearness import MEASURED_S, NEAR_SLACK_S, Nearness

TRIPS_S = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=30)


def measured(**round_trips_s: float) -> Nearness:
    nearness = Nearness()
    for address, seconds in round_trips_s.items():
        nearness.learn(address, seconds, 0.0)
    return nearness


def test_the_first_round_trip_is_the_estimate() -> None:
    assert measured(a=0.08).round_trip_s("a", 0.0) == 0.08
    assert measured(a=0.08).round_trip_s("b", 0.0) is None


def test_one_slow_answer_changes_the_estimate_by_an_eighth() -> None:
    nearness = measured(a=0.010)
    nearness.learn("a", 0.090, 1.0)
    assert nearness.round_trip_s("a", 1.0) == pytest.approx(0.020)


def test_an_estimate_follows_a_path_that_has_become_longer() -> None:
    nearness = measured(a=0.010)
    for second in range(30):
        nearness.learn("a", 0.200, float(second))
    assert nearness.round_trip_s("a", 30.0) == pytest.approx(0.200, rel=0.02)


def test_an_estimate_that_is_old_is_none_and_the_next_sample_begins_anew() -> None:
    nearness = measured(a=0.200)
    assert nearness.round_trip_s("a", MEASURED_S) == 0.200
    assert nearness.round_trip_s("a", MEASURED_S + 0.1) is None
    nearness.learn("a", 0.010, MEASURED_S + 0.1)
    assert nearness.round_trip_s("a", MEASURED_S + 0.1) == 0.010


def test_nodes_that_differ_by_little_are_equally_near_and_far_ones_keep_their_order() -> None:
    nearness = measured(a=0.001, b=0.001 + NEAR_SLACK_S, c=0.080, d=0.200)
    assert nearness.distances("abcde", 0.0) == {"a": 0, "b": 0, "c": 0.080, "d": 0.200, "e": 0}


def test_where_nothing_was_measured_everybody_is_near() -> None:
    assert Nearness().distances("ab", 0.0) == {"a": 0.0, "b": 0.0}
    assert Nearness().distances("", 0.0) == {}


@given(TRIPS_S)
def test_an_estimate_lies_between_the_fastest_and_the_slowest_answer(trips: list[float]) -> None:
    nearness = Nearness()
    for trip in trips:
        nearness.learn("a", trip, 0.0)
    estimate = nearness.round_trip_s("a", 0.0)
    assert estimate is not None
    assert min(trips) - 1e-9 <= estimate <= max(trips) + 1e-9


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 10.0), min_size=1))
def test_the_fastest_is_always_near(trips: dict[str, float]) -> None:
    distances = measured(**trips).distances(trips, 0.0)
    assert distances[min(trips, key=trips.__getitem__)] == 0.0
