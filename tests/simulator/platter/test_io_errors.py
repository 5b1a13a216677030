"""Every single I/O operation of a workload fails in turn, once or for good."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import apsw
import attrs
import pytest

from kritad.storage import walscan
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import StorageError, StoreFailed
from kritad.storage.raft_db import RaftDatabase
from tests.simulator.platter.data_life import DataLife
from tests.simulator.platter.power import MAKERS, Life, Origin, running
from tests.simulator.platter.raft_life import RaftLife
from tests.simulator.platter.vfs import Disk, Fault, Operation
from tests.storage.state import scanned

BEFORE = 40  # steps that made the store
STEPS = {"raft.db": 20, "data.db": 6, "both": 25}  # of the workload


@attrs.define
class Run:
    """One workload, and how it ended."""

    closing: bool = False  # it came to the end, where errors are not reported
    error: StorageError | None = None

    def do(self, life: Life, steps: int) -> None:
        """Start, work, stop. Whatever is not a StorageError escapes."""
        try:
            life.boot()
            for _ in range(steps):
                life.step()
            self.closing = True
            life.close()
        except StorageError as error:
            self.error = error


def refuse(life: Life) -> None:
    """After a failed write nothing is done any more, though the disk is well again."""
    calls: list[Callable[[], object]]
    if isinstance(life, RaftLife):
        raft = life.db
        calls = [
            lambda: raft.save([]), lambda: raft.entries(1, 1, 1, 1), lambda: raft.load(1, 0),
            lambda: raft.compact([]), raft.maybe_checkpoint, raft.replicas,
            lambda: raft.count_boot(b"n" * 16), raft.acknowledge_boot,
            lambda: raft.remove_replica(1, 99),
        ]  # fmt: skip
    else:
        assert isinstance(life, DataLife)
        data = life.db
        calls = [
            lambda: data.flush([]), lambda: data.get(1, b""), lambda: data.stamp(1, b""),
            lambda: scanned(data, 1, None, 1), lambda: data.sweep(1), lambda: data.drop(1),
            data.checkpoint, data.applied, data.create_generation, lambda: data.received(1),
        ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreFailed):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("store", MAKERS)
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_every_failing_operation_stops_the_store_and_loses_nothing(
    store: str, sticky: bool, tmp_path: Path
) -> None:
    origin = Origin.make(MAKERS[store], tmp_path, 5, BEFORE)
    with running(Disk(random.Random(1), origin.files)) as disk:
        Run().do(origin.life(), STEPS[store])
        operations = disk.operations
    assert operations > 150
    unheard = 0
    for number in range(1, operations + 1):
        with running(Disk(random.Random(number), origin.files)) as disk:
            life, run = origin.life(), Run()
            disk.fail(Fault(number, sticky))
            run.do(life, STEPS[store])
            assert disk.faulted
            if run.error is None:
                assert run.closing, f"operation {number} failed and nobody was told"
                unheard += 1
            else:
                assert isinstance(run.error, StoreFailed), f"operation {number}: {run.error}"
            if number % 2:  # what a failed sync forgot is then really gone
                disk.cut()
            disk.restart()
            life.boot()
    assert unheard < 30  # those of the last checkpoint, in close()


@pytest.mark.parametrize("store", ["raft.db", "data.db"])
@pytest.mark.parametrize("kind", [Operation.WRITE, Operation.SYNC])
def test_after_a_failed_write_the_object_refuses_every_call(
    store: str, kind: Operation, tmp_path: Path
) -> None:
    origin = Origin.make(MAKERS[store], tmp_path, 6, BEFORE)
    refused = 0
    for number in range(1, 40):
        with running(Disk(random.Random(number), origin.files)) as disk:
            life = origin.life()
            life.boot()
            disk.fail(Fault(number, kinds=(kind,)))
            try:
                for _ in range(60):
                    life.step()
            except StoreFailed:
                refuse(life)
                refused += 1
    assert refused > 5


@pytest.mark.parametrize("store", MAKERS)
def test_a_disk_that_fills_up_stops_the_store_and_loses_nothing(store: str, tmp_path: Path) -> None:
    origin = Origin.make(MAKERS[store], tmp_path, 7, BEFORE)
    used = sum(len(file.content) for file in origin.files.values())
    full = 0
    for number in range(40):
        with running(Disk(random.Random(number), origin.files)) as disk:
            life, run = origin.life(), Run()
            disk.capacity_bytes = used + 5_000 * number
            run.do(life, 40)
            if run.error is not None:
                assert disk.faulted
                assert isinstance(run.error, StoreFailed)
                full += 1
            if number % 2:
                disk.cut()
            disk.restart()
            life.boot()
    assert full > 10


@pytest.mark.parametrize("open_store", [RaftDatabase.open, DataDatabase.open])
def test_a_file_that_cannot_be_opened_or_read_is_a_failed_store(
    open_store: Callable[[Path], object], tmp_path: Path
) -> None:
    """sqlite3.connect reads the file's first bytes: its error must not escape as it is."""
    for number in (1, 2):
        with running(Disk(random.Random(1))) as disk:
            disk.fail(Fault(number))
            with pytest.raises(StoreFailed, match="cannot open"):
                open_store(tmp_path / "some.db")


def test_a_failed_operation_has_the_code_that_sqlite_gives_it(tmp_path: Path) -> None:
    with running(Disk(random.Random(1))) as disk:
        connection = disk.connect(tmp_path / "some.db")
        disk.fail(Fault(1, kinds=(Operation.WRITE,)))
        with pytest.raises(Exception) as caught:  # noqa: PT011
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        assert getattr(caught.value, "sqlite_errorcode", 0) == apsw.SQLITE_IOERR_WRITE


def restarts_after_failed_syncs(store: str, directory: Path) -> int:
    """How often a power cut, in or after the start that follows a failed sync, did harm."""
    origin = Origin.make(MAKERS[store], directory, 5, BEFORE)
    harmed = 0
    for number in range(1, 81):
        chance = random.Random(number)
        with running(Disk(chance, origin.files)) as disk:
            life = origin.life()
            disk.fail(Fault(1 + number % 25, kinds=(Operation.SYNC,)))
            Run().do(life, 40)
            disk.restart()
            disk.stop_in(chance.randrange(1, 120))
            with contextlib.suppress(StoreFailed):
                life.boot()
            if disk.alive:
                disk.cut()
            disk.restart()
            try:
                life.boot()
            except (AssertionError, StorageError):
                harmed += 1
    return harmed


@pytest.mark.parametrize("store", MAKERS)
def test_a_power_cut_in_the_start_after_a_failed_sync_does_no_harm(
    store: str, tmp_path: Path
) -> None:
    """The start finds a transaction that the failed sync has forgotten, and is about to
    copy it into the main file."""
    assert restarts_after_failed_syncs(store, tmp_path) == 0


def test_without_writing_the_wal_again_it_would_do_harm(tmp_path: Path) -> None:
    with mock.patch.object(Disk, "rewrite_wal"):
        assert restarts_after_failed_syncs("raft.db", tmp_path) > 5


def test_a_wal_is_rewritten_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "raft.db-wal"
    walscan.rewrite_wal(path)
    assert not path.exists()
    content = random.Random(1).randbytes(100_000)
    path.write_bytes(content)
    walscan.rewrite_wal(path)
    assert path.read_bytes() == content
    with pytest.raises(StoreFailed, match="cannot write"):
        walscan.rewrite_wal(tmp_path)
