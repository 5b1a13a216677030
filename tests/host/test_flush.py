"""When state goes to disk, and what of the log may go afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.operations import Op
from kritad.host.flush import Flusher
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.types import SnapshotMeta
from kritad.state.machine import ShardState
from kritad.storage.data_db import ShardFlush
from kritad.storage.errors import StoreFailed
from tests.host.lone import SHARD, LoneNode, Replies
from tests.host.worker import QueuedWorker

KIB = 1 << 10


class Database:
    """data.db as the flusher sees it, in front of the real one."""

    def __init__(self, node: LoneNode) -> None:
        self._db = node.data_db
        self.durable = True  # what a checkpoint says
        self.did: list[str] = []
        self.rows_unused = 0

    def flush(self, batch: list[ShardFlush], durable: bool = False) -> None:
        how = " durably" if durable else ""
        self.did.append(f"flush {max(item.applied.index for item in batch)}{how}")
        self._db.flush(batch, durable=durable)

    def checkpoint(self) -> bool:
        self.did.append("checkpoint")
        return self.durable

    def sweep(self, limit: int) -> int:
        swept = min(limit, self.rows_unused)
        self.rows_unused -= swept
        return swept


@attrs.define
class Bench:
    """A leader of a group of one, its flusher, and the cuts it has asked for."""

    node: LoneNode
    database: Database
    worker: QueuedWorker
    flusher: Flusher
    cuts: list[tuple[Replica, SnapshotMeta]]
    failures: list[BaseException]

    def write(self, count: int = 1, size: int = 10) -> None:
        for number in range(count):
            body = encode_body(Op.PUT, 0, 0, 0, b"k%d" % number, b"x" * size)
            request = Request(Op.PUT, body, b"k", SHARD, Replies(), 1e12, write=True)
            self.node.replica.propose(request, 1000)
            self.node.drive.mark(self.node.replica)
            self.node.settle()

    def tick(self, ms: int = 50) -> None:
        self.node.clock.advance(ms)
        self.flusher.tick()

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 50):
            self.tick()
            self.worker.run_all()

    @property
    def cut_at(self) -> list[int]:
        return [meta.index for _, meta in self.cuts]

    @property
    def applied(self) -> int:
        return self.node.replica.state.index


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    nodes: list[LoneNode] = []

    def bench(
        *, voters: int = 1, memtable_bytes: int = 64 * KIB, log_tail_bytes: int = 16 * KIB
    ) -> Bench:
        node = LoneNode(tmp_path, voters=voters)
        nodes.append(node)
        node.lead()
        database, worker = Database(node), QueuedWorker()
        cuts: list[tuple[Replica, SnapshotMeta]] = []
        failures: list[BaseException] = []
        flusher = Flusher(
            database,
            worker,
            node.clock,
            node=0,
            memtable_bytes=memtable_bytes,
            log_tail_bytes=log_tail_bytes,
            flush_interval_ms=2000.0,  # the product's own numbers are a matter of speed
            checkpoint_interval_ms=30_000.0,
            compact=cuts.extend,
            on_failure=failures.append,
        )
        flusher.adopt(node.replica, 0)
        return Bench(node, database, worker, flusher, cuts, failures)

    yield bench
    for node in nodes:
        node.close()


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
    bench = make(log_tail_bytes=1)
    bench.write()
    bench.tick(2_000)
    for _ in range(60):
        bench.write()
        bench.node.clock.advance(2_000)  # this flush takes until its turn has come again
        bench.worker.run_one()
    assert 1 <= bench.database.did.count("checkpoint") <= 3
    assert bench.cuts


def test_of_much_that_was_flushed_a_checkpoint_comes_before_the_next_flush(make: Make) -> None:
    bench = make(memtable_bytes=100 * KIB)
    for _ in range(6):
        bench.write(20, 10 * KIB)  # enough for a flush by itself
        bench.tick()
        bench.write(20, 10 * KIB)
        bench.worker.run_one()
    assert len(bench.database.did) == 6
    assert bench.database.did[1::2] == ["checkpoint"] * 3


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


def test_a_poisoned_replicas_log_is_not_cut(make: Make) -> None:
    bench = make(log_tail_bytes=1)
    bench.write(40, 10 * KIB)
    bench.node.raft.poison("an invariant is broken")
    bench.pass_time(60_000)
    assert bench.cuts == []
    assert bench.failures == []


def test_a_failed_flush_is_reported_once_and_nothing_is_written_any_more(make: Make) -> None:
    bench = make()
    bench.write(1)
    bench.worker.fails_with = StoreFailed("I/O error")
    bench.flusher.when_flushed(lambda: pytest.fail("it was not flushed"))
    bench.worker.run_all()
    bench.pass_time(60_000)
    assert [str(failure) for failure in bench.failures] == ["I/O error"]


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


def test_what_a_snapshot_left_behind_is_swept_without_waiting_for_half_a_minute_each_time(
    make: Make,
) -> None:
    bench = make()
    bench.database.rows_unused = 20_000
    bench.pass_time(2000)
    assert bench.database.rows_unused == 0


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
