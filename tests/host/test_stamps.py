"""What time a leader writes into entries: its own, or slowly on from one that is far ahead."""

from __future__ import annotations

import pytest

from kritad.host.stamps import FAR_AHEAD_MS, Stamps
from tests.host.clock import VirtualClock

DAY_MS = 86_400_000


@pytest.mark.parametrize("ahead_ms", [-DAY_MS, 0, FAR_AHEAD_MS])
def test_a_shards_clock_that_is_not_far_ahead_changes_nothing(ahead_ms: int) -> None:
    clock, stamps = VirtualClock(), Stamps()
    assert stamps.now_ms(clock, clock.wall_ms() + ahead_ms) == clock.wall_ms()
    clock.advance(500)
    assert stamps.now_ms(clock, clock.wall_ms() + ahead_ms) == clock.wall_ms()


def test_a_shards_clock_that_is_far_ahead_goes_on_at_half_speed() -> None:
    clock, stamps = VirtualClock(), Stamps()
    shard_ms = clock.wall_ms() + DAY_MS
    told = [stamps.now_ms(clock, shard_ms)]
    for _ in range(4):
        clock.advance(1_000)
        told.append(stamps.now_ms(clock, told[-1]))
    assert [one - shard_ms for one in told] == [0, 500, 1_000, 1_500, 2_000]


def test_it_goes_on_while_nobody_writes_and_does_not_make_up_for_what_others_wrote() -> None:
    clock, stamps = VirtualClock(), Stamps()
    shard_ms = clock.wall_ms() + DAY_MS
    stamps.now_ms(clock, shard_ms)
    clock.advance(60_000)
    assert stamps.now_ms(clock, shard_ms) == shard_ms + 30_000
    moved_ms = shard_ms + DAY_MS  # another leader's doing
    assert stamps.now_ms(clock, moved_ms) == moved_ms
    clock.advance(100)
    assert stamps.now_ms(clock, moved_ms) == moved_ms + 50


def test_the_two_come_together_and_the_wall_clock_is_followed_again() -> None:
    clock, stamps = VirtualClock(), Stamps()
    shard_ms = clock.wall_ms() + 3 * FAR_AHEAD_MS
    for _ in range(4 * FAR_AHEAD_MS // 1_000):
        shard_ms = max(shard_ms, stamps.now_ms(clock, shard_ms))
        clock.advance(1_000)
    assert 0 < shard_ms - clock.wall_ms() <= FAR_AHEAD_MS
    clock.advance(FAR_AHEAD_MS)
    assert stamps.now_ms(clock, shard_ms) == clock.wall_ms() >= shard_ms


def test_a_wall_clock_that_is_set_right_is_followed_at_once() -> None:
    clock, stamps = VirtualClock(), Stamps()
    shard_ms = clock.wall_ms()
    clock.jump(-DAY_MS)
    clock.advance(1_000)
    assert stamps.now_ms(clock, shard_ms) == shard_ms
    clock.jump(DAY_MS)
    assert stamps.now_ms(clock, shard_ms) == clock.wall_ms()
