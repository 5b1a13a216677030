"""When what was flushed is made durable, and what of the log may go afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from kritad.storage.errors import StoreFailed
from tests.host.flushing import KIB, Bench, Make, benches


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with benches(tmp_path) as make:
        yield make


def test_the_log_is_cut_behind_a_checkpoint_and_not_behind_a_flush(make: Make) -> None:
    bench = make()
    bench.database.durable = False
    bench.write(40, 10 * KIB)
    bench.pass_time(60_000)
    assert "checkpoint" in bench.database.did
    assert bench.cuts == []
    bench.database.durable = True
    bench.pass_time(60_000)
    assert len(bench.cuts) == 1
    assert 0 < bench.cut_at[0] <= bench.applied


def test_nothing_flushed_after_the_checkpoint_began_counts_as_durable(make: Make) -> None:
    bench = make(log_tail_bytes=1)
    bench.write(20, 10 * KIB)
    durable = bench.applied
    bench.flusher.when_flushed(lambda: None)
    bench.worker.run_one()
    assert bench.database.did == [f"flush {durable}"]
    assert bench.flusher.busy, "a checkpoint is due"
    bench.write(20, 10 * KIB)  # applied while the checkpoint is on its way
    bench.worker.run_one()
    assert bench.cut_at
    assert bench.cut_at[-1] <= durable


def test_a_tail_stays_for_followers_that_lag_a_little(make: Make) -> None:
    bench = make(log_tail_bytes=200 * KIB)
    bench.write(60, 10 * KIB)
    bench.pass_time(35_000)
    (at,) = bench.cut_at
    behind_bytes = (bench.applied - at) * 10 * KIB
    assert behind_bytes >= 200 * KIB


def test_a_log_no_longer_than_its_tail_is_left_alone(make: Make) -> None:
    bench = make(log_tail_bytes=10_000 * KIB)
    bench.write(40, 10 * KIB)
    bench.pass_time(35_000)
    assert bench.cuts == []


def test_checkpoints_have_their_turn_though_a_flush_is_always_due(make: Make) -> None:
    bench = make(memtable_bytes=1 << 20, log_tail_bytes=1)
    bench.write()
    bench.tick(2_000)
    for _ in range(60):
        bench.write()
        bench.node.clock.advance(2_000)  # this flush takes until its turn has come again
        bench.worker.run_one()
    assert 1 <= bench.database.did.count("checkpoint") <= 3
    assert bench.cuts


def test_of_much_that_was_flushed_a_checkpoint_comes_before_the_next_flush(make: Make) -> None:
    bench = make(memtable_bytes=20 * KIB)
    for _ in range(6):
        bench.write(20, 10 * KIB)  # enough for a flush by itself
        bench.tick()
        bench.write(20, 10 * KIB)
        bench.worker.run_one()
    assert len(bench.database.did) == 6
    assert bench.database.did[1::2] == ["checkpoint"] * 3


def test_what_others_write_to_the_database_is_moved_and_counts_as_promised(make: Make) -> None:
    bench = make()  # of 64 KiB: the WAL may hold four times as much
    bench.flusher.when_flushed(lambda: None)
    bench.pass_time(31_000)
    bench.database.did.clear()
    bench.database.sizes.unchecked_bytes = 255 * KIB
    bench.pass_time(1_000)
    assert bench.database.did == []
    assert bench.flusher.promised_bytes() == 255 * KIB
    bench.database.sizes.unchecked_bytes = 256 * KIB
    bench.pass_time(50)
    assert bench.database.did == ["checkpoint"]
    assert bench.flusher.promised_bytes() == 0
    bench.database.sizes.unchecked_bytes = 1
    bench.pass_time(31_000)
    assert bench.database.did == ["checkpoint"] * 2, "a little was left in the WAL for ever"


def test_what_is_on_its_way_to_the_disk_is_promised_too(make: Make) -> None:
    bench = make()
    bench.write(10, 10 * KIB)
    promised_bytes = bench.flusher.promised_bytes()
    assert promised_bytes > 200 * KIB
    bench.tick()
    assert bench.flusher.bytes_in_memory() == 0
    assert bench.flusher.promised_bytes() == promised_bytes
    bench.worker.run_one()
    assert bench.flusher.promised_bytes() == bench.database.sizes.unchecked_bytes > 100 * KIB


def follower(bench: Bench, *, match: int, active: bool = True) -> None:
    """Give the leader of one a follower that stands at ``match``."""
    progress = attrs.evolve(
        bench.node.raft.progress[1], replica=2, match=match, recent_active=active
    )
    bench.node.raft.progress[2] = progress


def test_a_follower_that_is_heard_from_pins_what_it_needs(make: Make) -> None:
    bench = make(log_tail_bytes=100 * KIB)
    bench.write(40, 10 * KIB)
    follower(bench, match=15)
    bench.pass_time(35_000)
    assert bench.cut_at == [15]


def test_a_follower_that_is_silent_pins_nothing(make: Make) -> None:
    bench = make(log_tail_bytes=100 * KIB)
    bench.write(40, 10 * KIB)
    follower(bench, match=15, active=False)
    bench.pass_time(35_000)
    assert bench.cut_at[0] > 15


def test_a_follower_that_is_far_behind_pins_no_more_than_a_few_tails(make: Make) -> None:
    bench = make(log_tail_bytes=20 * KIB)
    for _ in range(12):
        bench.write(5, 10 * KIB)  # the same keys again: the state stays small
    follower(bench, match=1)
    bench.pass_time(35_000)
    assert bench.cut_at[-1] > 1
    assert (bench.applied - bench.cut_at[-1]) * 10 * KIB >= 4 * 20 * KIB


def test_a_follower_may_pin_as_much_log_as_there_is_state_to_send_instead(make: Make) -> None:
    """Whoever has just got a snapshot could else never catch up with what was written
    while it was sent, and would need the next one."""
    bench = make(log_tail_bytes=1 * KIB)
    for _ in range(2):
        bench.write(40, 10 * KIB)
    follower(bench, match=45)
    bench.pass_time(35_000)
    assert bench.cut_at == [45]


def test_a_failed_checkpoint_is_fatal_too(make: Make) -> None:
    bench = make()
    bench.write(1)
    bench.pass_time(5000)
    bench.worker.fails_with = StoreFailed("I/O error")
    bench.pass_time(60_000)
    assert len(bench.failures) == 1
    assert bench.cuts == []


def test_a_checkpoint_that_a_reader_holds_up_is_not_tried_at_every_tick(make: Make) -> None:
    bench = make(memtable_bytes=1)
    bench.database.durable = False
    bench.write(5)
    bench.pass_time(5000)
    assert bench.database.did.count("checkpoint") <= 6


def test_a_poisoned_replicas_log_is_not_cut(make: Make) -> None:
    bench = make(log_tail_bytes=1)
    bench.write(40, 10 * KIB)
    bench.node.raft.poison("an invariant is broken")
    bench.pass_time(60_000)
    assert bench.cuts == []
    assert bench.failures == []
