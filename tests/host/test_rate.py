"""How many bytes may leave: what a rate grants, and when."""

from __future__ import annotations

import pytest

from kritad.host.rate import ByteRate


def test_a_rate_grants_what_it_says_and_no_more() -> None:
    rate = ByteRate(1000)
    waits = [rate.reserve(250, 100.0) for _ in range(6)]
    assert waits == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0], "half a second's worth is there at once"
    assert rate.reserve(250, 101.0) == pytest.approx(0.25)
    assert rate.reserve(250, 1000.0) == 0.0, "what was not used is not kept"
    assert rate.reserve(250, 1000.0) == 0.0
    assert rate.reserve(250, 1000.0) == 0.25


def test_a_slice_larger_than_the_bucket_waits_once_and_delays_those_behind() -> None:
    rate = ByteRate(100)
    assert rate.reserve(1000, 5.0) == pytest.approx(9.5)
    assert rate.reserve(1, 5.0) == pytest.approx(9.51)


def test_without_a_limit_nobody_waits() -> None:
    rate = ByteRate(0)
    assert [rate.reserve(1 << 40, 0.0) for _ in range(3)] == [0.0] * 3


def test_two_who_share_a_rate_get_half_of_it_each() -> None:
    rate = ByteRate(1000)
    ends_s = {"one": 0.0, "other": 0.0}
    for _ in range(10):
        for who in ends_s:
            ends_s[who] += rate.reserve(1000, ends_s[who])
    assert ends_s == pytest.approx({"one": 19.5, "other": 19.5}, abs=1.1)
