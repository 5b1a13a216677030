"""The scrub's pace, and whom what it finds is laid to."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import pytest

from kritad.host.bootstrap import META_SHARD
from kritad.host.scrubber import Scrubber
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StoreFailed
from kritad.storage.scrubbing import Scrubbed
from tests.host.clock import VirtualClock
from tests.host.cluster import SETTINGS, Cluster, Node, key_in
from tests.host.worker import QueuedWorker

DAY_MS = 86_400_000.0


class Rows:
    """So many rows, numbered from 1 on, of which none is damaged."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[tuple[int, int]] = []
        self.fails_behind: dict[int, Exception] = {}

    def scrub(self, behind_id: int, rows_max: int) -> Scrubbed:
        self.asked.append((behind_id, rows_max))
        if behind_id in self.fails_behind:
            raise self.fails_behind[behind_id]
        last = min(behind_id + rows_max, self.count)
        return Scrubbed(last - behind_id, last, self.count, ())


@attrs.define
class Bench:
    rows: Rows
    scrubber: Scrubber
    clock: VirtualClock
    worker: QueuedWorker
    failures: list[BaseException]

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            self.clock.advance(50)
            self.scrubber.tick()
            self.worker.run_all()


def bench(count: int, *, pass_ms: float = DAY_MS, begins_at: float = 0.0) -> Bench:
    rows, clock, worker = Rows(count), VirtualClock(), QueuedWorker()
    failures: list[BaseException] = []
    scrubber = Scrubber(
        cast(DataDatabase, rows),
        worker,
        clock,
        {},
        pass_ms=pass_ms,
        begins_at=begins_at,
        on_damage=lambda _replica, _problem: None,
        on_failure=failures.append,
    )
    return Bench(rows, scrubber, clock, worker, failures)


def test_all_rows_are_read_again_and_again_a_slice_a_second() -> None:
    here = bench(150)
    here.run(3)
    assert here.rows.asked == [(0, 64), (0, 64), (64, 64)], "the first tells how many there are"
    here.run(1)
    assert (here.scrubber.passes, here.scrubber.rows) == (1, 64 + 150)


def test_it_is_as_fast_as_a_pass_in_its_time_needs() -> None:
    here = bench(86_400_000)
    here.run(3)
    assert [count for _, count in here.rows.asked] == [64, 1001, 1001]


def test_it_begins_somewhere_so_that_all_is_read_by_who_is_started_each_day() -> None:
    here = bench(1_000, begins_at=0.5)
    here.run(3)
    assert here.rows.asked == [(0, 64), (500, 64), (564, 64)]


def test_it_reads_nothing_where_people_want_it_so() -> None:
    here = bench(150, pass_ms=0.0)
    here.run(10)
    assert here.rows.asked == []


def test_no_slice_is_begun_while_one_waits_for_the_disk() -> None:
    here = bench(150)
    here.worker.held = True
    here.run(10)
    assert len(here.worker.jobs) == 1


def test_what_cannot_be_read_is_told_once_a_pass_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = bench(500)
    here.rows.fails_behind = {64: Corrupt(None, "malformed"), 128: Corrupt(None, "malformed")}
    here.run(6)
    assert [behind for behind, _ in here.rows.asked] == [0, 0, 64, 128, 192, 256]
    assert [record.getMessage() for record in caplog.records] == [
        "data.db is damaged at rows behind 64, and whose they are cannot be told: malformed"
    ]
    assert not here.failures


def test_a_disk_that_fails_fails_the_node() -> None:
    here = bench(500)
    here.rows.fails_behind = {0: StoreFailed("cannot read")}
    here.run(1)
    assert [str(error) for error in here.failures] == ["cannot read"]


# --- whose it is ---------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Node:
    settings = attrs.evolve(SETTINGS, scrub_pass_ms=DAY_MS)
    cluster = Cluster(tmp_path, shards=2, factor=1, settings=settings)
    cluster.run(1_000)
    return cluster.nodes[0]


def find(node: Node, monkeypatch: pytest.MonkeyPatch, unsound: tuple[int, bytes]) -> None:
    monkeypatch.setattr(node.data_db, "scrub", lambda *_: Scrubbed(1, 1, 1, (unsound,)))
    node.cluster.run(1_500)
    monkeypatch.undo()
    node.cluster.close()


def test_a_damaged_row_costs_its_replica_its_life_and_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(node, monkeypatch, (node.replica(2).state.table.generation, key_in(node, 2)))
    assert list(node.host.damaged) == [2]
    assert node.replica(2).raft.poisoned
    assert not node.replica(1).raft.poisoned


def test_a_row_of_the_meta_shard_is_laid_to_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    find(node, monkeypatch, (node.replica(META_SHARD).state.table.generation, b"cluster"))
    assert list(node.host.damaged) == [META_SHARD]


@pytest.mark.parametrize("shard", [None, 2])
def test_a_row_of_a_half_that_has_moved_away_is_nobody_s_matter(
    node: Node, monkeypatch: pytest.MonkeyPatch, shard: int | None
) -> None:
    """Or one whose key is damaged as well."""
    key = b"" if shard is None else key_in(node, shard)
    find(node, monkeypatch, (node.replica(1).state.table.generation, key))
    assert not node.host.damaged


def test_of_two_that_share_a_generation_it_is_whose_key_it_is(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = node.replica(1).state.table.generation
    monkeypatch.setattr(node.replica(2).state.table, "generation", shared)
    find(node, monkeypatch, (shared, key_in(node, 2)))
    assert list(node.host.damaged) == [2]


def test_what_no_replica_uses_is_nobody_s_matter(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(node, monkeypatch, (10**6, b"key"))
    assert not node.host.damaged
