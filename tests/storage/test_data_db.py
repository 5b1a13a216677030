"""data.db: what is flushed is found again, whole, and what is damaged is never read as absent."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kritad.storage import space
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StoreFailed
from kritad.storage.rows import Row, ShardFlush
from kritad.storage.snapshots import SnapshotReader
from tests.simulator.platter.power import running
from tests.simulator.platter.vfs import Disk
from tests.storage.faults import damage, file_size_limit
from tests.storage.model import copy_store
from tests.storage.state import applied, fill, row, scanned


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


@pytest.fixture
def db(path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(path)
    yield database
    database.close()


def test_a_flushed_row_is_read_back_with_everything_it_had(db: DataDatabase) -> None:
    generation = db.create_generation()
    stored = row(b"k", 3, b"\x00value", "text/plain")
    db.flush([ShardFlush(applied(1, generation), {b"k": stored})])
    assert db.get(generation, b"k") == stored
    assert db.get(generation, b"other") is None
    assert db.get(generation + 1, b"k") is None


def test_a_flush_overwrites_deletes_and_ends_sessions(db: DataDatabase) -> None:
    generation = db.create_generation()
    first = [(key, row(key, 1, b"old")) for key in (b"a", b"b", b"c")]
    db.flush([ShardFlush(applied(1, generation, 1), dict(first), [(5, b"five"), (6, b"six")])])
    new = row(b"b", 2, b"new")
    changes: dict[bytes, Row | None] = {b"a": None, b"b": new, b"nowhere": None}
    db.flush([ShardFlush(applied(1, generation, 2), changes, [(5, None), (6, b"sechs")])])
    assert scanned(db, generation, None, 10) == [(b"b", new), first[2]]
    assert db.scan_sessions(generation, 0, 10) == [(6, b"sechs")]
    assert db.applied()[1].index == 2


def test_scan_goes_on_behind_a_key_and_keeps_to_its_generation(db: DataDatabase) -> None:
    at, model = fill(db, 1, 50)
    fill(db, 2, 50, seed=2)
    items = model.items()
    assert scanned(db, at.generation, None, 20) == items[:20]
    assert scanned(db, at.generation, items[19][0], 100) == items[20:]


def test_rows_and_how_far_they_are_survive_a_crash_together(
    db: DataDatabase, path: Path, tmp_path: Path
) -> None:
    at, model = fill(db, 1, 40)
    crashed = DataDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert crashed.applied() == {1: at}
    assert scanned(crashed, at.generation, None, 100) == model.items()
    crashed.close()


@pytest.mark.parametrize("state_hash", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_every_state_hash_is_stored_exactly(
    db: DataDatabase, path: Path, tmp_path: Path, state_hash: int
) -> None:
    at = applied(1, db.create_generation(), 5, state_hash)
    db.flush([ShardFlush(at)])
    crashed = DataDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert crashed.applied() == {1: at}
    crashed.close()


def test_a_point_read_leaves_no_read_transaction_behind(db: DataDatabase) -> None:
    at, model = fill(db, 1, 10)
    assert db.get(at.generation, next(iter(model.rows))) is not None
    assert db.get(at.generation, b"absent") is None
    scanned(db, at.generation, None, 3)
    db.scan_sessions(at.generation, 0, 1)
    # TRUNCATE succeeds only when no reader holds the WAL.
    busy, *_ = db._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


def test_checkpoint_is_complete_unless_a_snapshot_is_being_read(
    db: DataDatabase, path: Path
) -> None:
    at, _ = fill(db, 1, 10)
    assert db.checkpoint() is True
    assert db.checkpoint() is True
    with contextlib.closing(SnapshotReader(path, at)):
        fill(db, 2, 10)
        assert db.checkpoint() is False
    assert db.checkpoint() is True


def test_whatever_is_written_counts_as_unchecked_until_a_checkpoint_has_moved_it(
    db: DataDatabase, path: Path
) -> None:
    wal = path.with_name(path.name + "-wal")
    fill(db, 1)
    assert db.sizes.unchecked_bytes == wal.stat().st_size > 30_000
    assert db.checkpoint()
    assert db.sizes.unchecked_bytes == 0
    db.sweep(100)
    assert db.sizes.unchecked_bytes == 0, "there was nothing to be swept"
    db.drop(1)
    dropped_bytes = db.sizes.unchecked_bytes
    db.sweep(100)
    assert db.sizes.unchecked_bytes == wal.stat().st_size > dropped_bytes > 0


def test_what_a_reader_keeps_in_the_wal_does_not_count_as_unchecked_when_it_was_moved(
    db: DataDatabase, path: Path
) -> None:
    at, _ = fill(db, 1)
    with contextlib.closing(SnapshotReader(path, at)):
        assert db.checkpoint()
        assert path.with_name(path.name + "-wal").stat().st_size > 30_000
        assert db.sizes.unchecked_bytes == 0
        db.create_generation()
        assert not db.checkpoint()
        assert db.sizes.unchecked_bytes > 0
    assert db.checkpoint()
    assert db.sizes.unchecked_bytes == 0


def test_what_was_deleted_is_spare(db: DataDatabase, path: Path) -> None:
    fill(db, 1, 1000)
    db.checkpoint()
    sizes = db.sizes
    assert sizes.spare_bytes == 0
    assert sizes.file_bytes == path.stat().st_size
    db.drop(1)
    while db.sweep(1000):
        pass
    assert sizes.file_bytes * 0.7 < sizes.spare_bytes < sizes.file_bytes
    db.checkpoint()
    assert sizes.file_bytes == path.stat().st_size


def test_a_checkpoint_that_would_not_fit_takes_none_of_the_room_and_comes_later(
    db: DataDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, model = fill(db, 1)
    size_bytes, free_bytes = path.stat().st_size, 20_000
    monkeypatch.setattr(space, "free_bytes", lambda _path: free_bytes)
    assert db.checkpoint() is False
    assert path.stat().st_size == size_bytes
    assert db.sizes.unchecked_bytes > 20_000
    assert scanned(db, at.generation, None, 1000) == model.items()
    copy = copy_store(path, path.with_name("copy"))
    with contextlib.closing(DataDatabase.open(copy)) as again:
        assert copy.stat().st_size == size_bytes, "opening it has taken the room"
        assert again.sizes.unchecked_bytes == db.sizes.unchecked_bytes
        assert scanned(again, at.generation, None, 1000) == model.items()
        free_bytes = 1 << 40
        assert again.checkpoint() is True
    assert db.checkpoint() is True


def test_a_checkpoint_that_finds_the_disk_full_ends_neither_the_store_nor_the_next_start(
    tmp_path: Path,
) -> None:
    with running(Disk(random.Random(1))) as disk:
        db = DataDatabase.open(tmp_path / "data.db")
        at, model = fill(db, 1)
        disk.capacity_bytes = sum(len(file.content) for file in disk.files.values()) + 20_000
        assert db.checkpoint() is False
        assert disk.faulted
        assert scanned(db, at.generation, None, 1000) == model.items()
        disk.stop_in(1, power=False)
        with pytest.raises(StoreFailed):
            db.create_generation()
        capacity_bytes = disk.capacity_bytes
        disk.restart()
        disk.capacity_bytes = capacity_bytes
        again = DataDatabase.open(tmp_path / "data.db")
        assert scanned(again, at.generation, None, 1000) == model.items()
        assert again.sizes.unchecked_bytes > 20_000
        disk.capacity_bytes = None
        assert again.checkpoint() is True
        again.close()


def test_what_a_complete_checkpoint_covers_is_in_the_main_file(
    db: DataDatabase, path: Path, tmp_path: Path
) -> None:
    at, model = fill(db, 1, 30)
    assert db.checkpoint()
    crashed_path = copy_store(path, tmp_path / "crashed")
    crashed_path.with_name("data.db-wal").unlink()  # all that a power cut could take
    crashed = DataDatabase.open(crashed_path)
    assert crashed.applied() == {1: at}
    assert scanned(crashed, at.generation, None, 100) == model.items()
    crashed.close()


@pytest.mark.parametrize(
    "change",
    [
        "value=x'00'", "revision=revision+1", "content_type='x/y'", "digest=digest+1",
        "key=cast(key||x'00' AS BLOB)",
    ],
)  # fmt: skip
def test_a_damaged_row_is_corrupt_and_never_missing_or_wrong(
    db: DataDatabase, path: Path, change: str
) -> None:
    at, model = fill(db, 3, 20)
    key = model.items()[5][0]
    damage(path, f"UPDATE kv SET {change} WHERE key=x'{key.hex()}'")
    with pytest.raises(Corrupt, match="does not match its digest") as caught:
        scanned(db, at.generation, None, 100)
    assert caught.value.shard == 3
    if not change.startswith("key"):
        with pytest.raises(Corrupt):
            db.get(at.generation, key)


def test_a_damaged_session_is_corrupt(db: DataDatabase, path: Path) -> None:
    at, _ = fill(db, 3, 20)
    damage(path, "UPDATE sessions SET blob=x'00' WHERE id=1")
    with pytest.raises(Corrupt, match="session 1"):
        db.scan_sessions(at.generation, 0, 10)


def test_a_shard_whose_applied_row_is_damaged_is_left_out_and_named(
    path: Path,
) -> None:
    db = DataDatabase.open(path)
    fill(db, 1, 10)
    at, _ = fill(db, 2, 10)
    db.close()
    damage(path, "UPDATE applied SET log_index=99 WHERE shard=1")
    db = DataDatabase.open(path)
    assert db.applied() == {2: at}
    assert list(db.damaged) == [1]
    db.close()


def test_installing_a_generation_moves_the_shard_and_lets_the_old_rows_be_swept(
    db: DataDatabase,
) -> None:
    old, _ = fill(db, 1, 25)
    other, other_model = fill(db, 2, 10)
    generation = db.create_generation()
    db.write_rows(generation, [(b"k", row(b"k", 9, b"v"))])
    new = applied(1, generation, 99)
    db.install(new)
    assert db.applied()[1] == new
    swept = []
    while deleted := db.sweep(10):
        swept.append(deleted)
    assert sum(swept) == 25 + 2
    assert max(swept) <= 10
    assert scanned(db, old.generation, None, 10) == []
    assert scanned(db, generation, None, 10) == [(b"k", row(b"k", 9, b"v"))]
    assert scanned(db, other.generation, None, 100) == other_model.items()


def test_an_install_is_synced_and_ordinary_flushes_are_not(db: DataDatabase) -> None:
    generation = db.create_generation()
    statements: list[str] = []
    db._writer.set_trace_callback(statements.append)
    db.flush([ShardFlush(applied(1, generation, 1))])
    assert not any("synchronous" in statement for statement in statements)
    statements.clear()
    db.install(applied(1, generation, 2))
    order = [s for s in statements if s.startswith(("PRAGMA sync", "BEGIN", "COMMIT"))]
    assert order == [
        "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=NORMAL",
    ]  # fmt: skip
    db._writer.set_trace_callback(None)


def test_sweeping_spares_a_generation_that_was_just_made(db: DataDatabase) -> None:
    generation = db.create_generation()
    db.write_rows(generation, [(b"k", row(b"k", 1, b"v"))])
    assert db.sweep(100) == 0
    db.release(generation)
    assert db.sweep(100) == 1


def test_a_generation_nobody_took_up_is_swept_after_a_restart(path: Path) -> None:
    db = DataDatabase.open(path)
    generation = db.create_generation()
    db.write_rows(generation, [(b"k", row(b"k", 1, b"v"))])
    db.close()
    db = DataDatabase.open(path)
    assert db.sweep(100) == 1
    db.close()


def test_a_generation_number_is_never_given_twice(path: Path) -> None:
    # The row cache and raft.db's log starts remember numbers.
    given = []
    for _ in range(3):
        db = DataDatabase.open(path)
        given += [db.create_generation(), db.create_generation()]
        for generation in given:
            db.release(generation)
        db.sweep(100)
        db.close()
    assert len(set(given)) == len(given)


def test_a_dropped_shard_leaves_nothing(db: DataDatabase) -> None:
    fill(db, 1, 20)
    at, model = fill(db, 2, 20)
    db.drop(1)
    assert list(db.applied()) == [2]
    while db.sweep(1000):
        pass
    assert db._reader.execute("SELECT count(*) FROM kv").fetchall() == [(20,)]
    assert scanned(db, at.generation, None, 100) == model.items()


def test_a_flush_to_a_full_disk_fails_whole_and_ends_the_store(path: Path) -> None:
    db = DataDatabase.open(path)
    at, model = fill(db, 1, 20)
    limit = path.with_name("data.db-wal").stat().st_size + 1000
    rows = {b"%05d" % number: row(b"%05d" % number, 2, bytes(500)) for number in range(200)}
    with file_size_limit(limit), pytest.raises(StoreFailed):
        db.flush([ShardFlush(applied(1, at.generation, 500), rows)])
    reads = (lambda: db.get(1, b"k"), lambda: scanned(db, 1, None, 1))
    for call in (*reads, db.applied, db.checkpoint):
        with pytest.raises(StoreFailed):
            call()
    db.close()
    db = DataDatabase.open(path)
    assert db.applied() == {1: at}
    assert scanned(db, at.generation, None, 1000) == model.items()
    db.close()
