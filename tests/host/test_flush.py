"""When state goes to disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.operations import Op
from kritad.host.request import Request
from kritad.state.machine import ShardState
from kritad.storage.errors import StoreFailed
from tests.host.flushing import KIB, Bench, Make, benches
from tests.host.lone import SHARD


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with benches(tmp_path) as make:
        yield make


def test_a_little_is_flushed_once_in_each_interval(make: Make) -> None:
    bench = make()
    for _ in range(40):
        bench.write()
        bench.pass_time(250)
    assert len(bench.database.did) == 5


def test_much_is_flushed_at_once(make: Make) -> None:
    bench = make()
    bench.write(10, 10 * KIB)
    bench.tick()
    assert len(bench.worker.jobs) == 1


def test_less_than_much_is_flushed_and_moved_at_once_where_there_is_little_room(
    make: Make,
) -> None:
    bench = make(memtable_bytes=64 << 20)
    bench.write(30, 100 * KIB)
    assert bench.flusher.promised_bytes() > 60 * 100 * KIB
    bench.pass_time(100)
    assert bench.database.did == []
    bench.flusher.room_bytes = 16 << 20
    bench.pass_time(100)
    assert bench.database.did == [f"flush {bench.applied}", "checkpoint"]
    assert bench.flusher.promised_bytes() == 0
    bench.flusher.room_bytes = 0
    bench.write(5, 100 * KIB)
    bench.pass_time(100)
    assert len(bench.database.did) == 2, "it would do nothing but flush"


def test_a_delete_is_promised_pages_and_not_its_few_bytes(make: Make) -> None:
    bench = make()
    bench.database.sizes.file_bytes = 1 << 30
    bench.write(10)
    assert 10 * 3 * 4096 < bench.flusher.promised_bytes() < 10 * 4 * 4096
    bench.database.sizes.file_bytes = 8192
    assert bench.flusher.promised_bytes() < 20_000, "a page was promised more than once"


def test_nothing_new_is_no_flush(make: Make) -> None:
    bench = make()
    bench.write()
    bench.pass_time(2100)
    flushed = len(bench.database.did)
    assert flushed
    bench.pass_time(10_000)
    assert bench.database.did[flushed:] == []


def test_there_is_one_flush_at_a_time(make: Make) -> None:
    bench = make()
    bench.write(10, 10 * KIB)
    bench.tick()
    bench.write(10, 10 * KIB)
    bench.tick(5000)
    assert len(bench.worker.jobs) == 1
    assert bench.flusher.busy
    bench.worker.run_one()
    assert len(bench.worker.jobs) == 1, "what came meanwhile was not flushed next"


def test_a_key_is_read_from_memory_while_it_is_being_flushed_and_from_disk_afterwards(
    make: Make,
) -> None:
    bench = make()
    bench.write(1)
    bench.flusher.when_flushed(lambda: None)
    table = bench.node.replica.state.table
    assert table.get(b"k0") is not None
    assert bench.flusher.bytes_in_memory() == 0
    bench.worker.work()
    assert table.get(b"k0") is not None
    bench.worker.report()
    row = table.get(b"k0")
    assert row is not None
    assert row.value == b"x" * 10


def test_who_waits_for_a_flush_is_called_when_all_that_was_applied_is_written(make: Make) -> None:
    bench = make()
    bench.write(1)
    called: list[int] = []
    bench.flusher.when_flushed(lambda: called.append(1))
    bench.write(1)
    bench.flusher.when_flushed(lambda: called.append(2))  # while the first is on its way
    assert called == []
    bench.worker.run_one()
    assert called == [1]
    bench.worker.run_one()
    assert called == [1, 2]
    assert bench.node.data_db.applied()[SHARD].index == bench.applied


def test_who_waits_when_there_is_nothing_to_flush_is_called_at_once(make: Make) -> None:
    bench = make()
    bench.flusher.when_flushed(lambda: None)
    bench.worker.run_all()
    called: list[int] = []
    bench.flusher.when_flushed(lambda: called.append(1))
    assert called == [1]


def test_a_failed_flush_is_reported_once_and_nothing_is_written_any_more(make: Make) -> None:
    bench = make()
    bench.write(1)
    bench.worker.fails_with = StoreFailed("I/O error")
    bench.flusher.when_flushed(lambda: pytest.fail("it was not flushed"))
    bench.worker.run_all()
    bench.pass_time(60_000)
    assert [str(failure) for failure in bench.failures] == ["I/O error"]


def test_what_a_snapshot_left_behind_is_swept_without_waiting_for_half_a_minute_each_time(
    make: Make,
) -> None:
    bench = make()
    bench.database.rows_unused = 20_000
    bench.pass_time(2000)
    assert bench.database.rows_unused == 0


def test_nothing_else_is_begun_while_a_sweep_runs_and_one_that_fails_is_the_end(
    make: Make,
) -> None:
    bench = make()
    bench.database.rows_unused = 1
    bench.tick()
    bench.write(3)
    bench.tick(2000)
    assert len(bench.worker.jobs) == 1
    bench.worker.fails_with = StoreFailed("I/O error")
    bench.pass_time(4000)
    assert [str(failure) for failure in bench.failures] == ["I/O error"]
    assert bench.database.did == []


def test_a_flush_of_a_state_that_was_replaced_meanwhile_does_not_count_for_the_new_one(
    make: Make,
) -> None:
    bench = make()
    bench.write(3)
    bench.flusher.when_flushed(lambda: None)
    bench.flusher.forget(bench.node.replica)
    bench.worker.run_all()
    assert bench.flusher.bytes_in_memory() == 0
    bench.flusher.adopt(bench.node.replica, 99)
    assert bench.flusher._states[bench.node.replica].durable_index == 99


def cut_off(bench: Bench, number: int = 2) -> tuple[ShardState, list[bool]]:
    """A state that was just cut off from the bench's replica, and what is said of it."""
    state = bench.node.replica.state
    at = state.extent.halving()
    assert at is not None
    body = encode_body(Op.SPLIT, SHARD, number, at, 1, [[1, 10 + number, 1]])
    request = Request(Op.SPLIT, body, b"", SHARD, None, 0.0, write=True)
    bench.node.replica.propose(request, 1000)
    bench.node.drive.mark(bench.node.replica)
    bench.node.settle()
    offspring = bench.node.world.split_off[-1]
    told: list[bool] = []
    bench.flusher.adopt_unborn(bench.node.replica, offspring.state, told.append)
    return offspring.state, told


def test_an_unborn_state_is_flushed_at_once_durably_and_with_the_one_it_was_cut_from(
    make: Make,
) -> None:
    bench = make()
    bench.write(20)
    _, told = cut_off(bench)
    assert bench.flusher.urgent
    bench.tick()
    assert bench.flusher.busy
    assert not bench.flusher.urgent
    bench.worker.work()
    assert bench.database.did == [f"flush {bench.applied} durably"]
    applied = bench.node.data_db.applied()
    assert applied[SHARD].index == applied[2].index == bench.applied
    assert applied[SHARD].hash_hi == applied[2].hash_lo
    assert told == []
    bench.worker.report()
    assert told == [True]


def test_no_flush_that_is_under_way_or_begins_meanwhile_has_one_half_only(make: Make) -> None:
    bench = make()
    bench.write(20)
    bench.flusher.when_flushed(lambda: None)  # as of before the split
    bench.write(5)
    _, told = cut_off(bench)
    called: list[str] = []
    bench.flusher.when_flushed(lambda: called.append("flushed"))
    bench.write(5, 30 * KIB)  # enough for a flush by itself
    bench.worker.run_one()
    assert 2 not in bench.node.data_db.applied()
    while bench.worker.jobs:
        bench.worker.work()
        applied = bench.node.data_db.applied()
        behind = applied[SHARD].hash_hi < 1 << 32
        assert behind == (2 in applied), applied
        bench.worker.report()
    assert told == [True]
    assert called == ["flushed"]
    assert bench.node.data_db.applied()[SHARD].index == bench.applied


def test_what_was_cut_off_in_two_splits_is_flushed_together(make: Make) -> None:
    bench = make()
    bench.write(40)
    (_, first), (_, second) = cut_off(bench, 2), cut_off(bench, 3)
    bench.tick()
    bench.worker.run_one()
    assert (first, second) == ([True], [True])
    assert {SHARD, 2, 3} == set(bench.node.data_db.applied())
    assert len(bench.database.did) == 1


def test_an_unborn_state_goes_with_the_replica_it_was_cut_from(make: Make) -> None:
    bench = make()
    bench.write(20)
    _, told = cut_off(bench)
    held = bench.flusher.bytes_in_memory()
    bench.flusher.forget(bench.node.replica)
    assert told == [False]
    assert 0 == bench.flusher.bytes_in_memory() < held
    bench.pass_time(10_000)
    assert bench.database.did == []


def test_one_that_is_on_its_way_to_the_disk_already_is_kept(make: Make) -> None:
    bench = make()
    bench.write(20)
    _, told = cut_off(bench)
    bench.tick()
    bench.flusher.forget(bench.node.replica)
    assert told == []
    bench.worker.run_all()
    assert told == [True]
    assert 2 in bench.node.data_db.applied()
