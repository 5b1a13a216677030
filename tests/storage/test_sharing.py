"""Two shards with their rows in one generation: neither sees, harms or outlives the other."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.ring import token
from kritad.storage import sweeping
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StoreFailed
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.inspection import verify_store
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.rows import Applied, ShardFlush
from kritad.storage.snapshots import SnapshotReader, SnapshotRefused, SnapshotWriter
from tests.storage.faults import damage
from tests.storage.model import copy_store
from tests.storage.state import StateModel, applied, extent_of, fill, row, scanned

MIDDLE = 1 << 31
LOWER, UPPER = (0, MIDDLE), (MIDDLE, 1 << 32)
OLD, NEW = 1, 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


@pytest.fixture
def db(path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(path)
    yield database
    database.close()


def half(model: StateModel, arc: Arc) -> StateModel:
    rows = {key: one for key, one in model.rows.items() if arc[0] <= token(key) < arc[1]}
    return StateModel(rows, dict(model.sessions))


def applied_half(at: Applied, model: StateModel, arc: Arc, generation: int) -> Applied:
    extent = extent_of(model.rows, Extent(*arc, 1 << 24, 128))
    return attrs.evolve(
        at, generation=generation, index=at.index + 1, state_hash=model.state_hash,
        hash_lo=arc[0], hash_hi=arc[1], cells=extent.encode(),
    )  # fmt: skip


def split(db: DataDatabase, count: int = 60) -> tuple[Applied, StateModel, Applied, StateModel]:
    """A shard of ``count`` rows, cut in two: how far both are, and what is in them."""
    at, model = fill(db, OLD, count)
    lower, upper = half(model, LOWER), half(model, UPPER)
    old = applied_half(at, lower, LOWER, at.generation)
    new = attrs.evolve(applied_half(at, upper, UPPER, db.reserve_generation()), shard=NEW)
    sessions = list(model.sessions.items())
    db.flush([ShardFlush(old), ShardFlush(new, {}, list(sessions))], durable=True)
    return old, lower, new, upper


def sweep_all(db: DataDatabase, limit: int = 7) -> int:
    """Sweep to the end; the largest slice."""
    slices = []
    while done := db.sweep(limit):
        slices.append(done)
        assert len(slices) < 1000, "it does not come to an end"
    return max(slices, default=0)


def stored(db: DataDatabase) -> tuple[int, int]:
    """How many rows and sessions there are in the file."""
    query = "SELECT (SELECT count(*) FROM kv), (SELECT count(*) FROM sessions)"
    ((rows, sessions),) = db._reader.execute(query).fetchall()
    return rows, sessions


def check(db: DataDatabase, at: Applied, model: StateModel) -> None:
    assert scanned(db, at.rows, None, 1000, at.arc, at.shard) == model.items()
    assert db.scan_sessions(at.generation, -1, 1000) == sorted(model.sessions.items())


def test_nothing_is_copied_and_nothing_swept_while_both_are_there(db: DataDatabase) -> None:
    old, lower, new, upper = split(db)
    assert old.rows == new.rows
    assert stored(db) == (60, 12)
    assert db.sweep(1000) == 0
    check(db, old, lower)
    check(db, new, upper)


def test_both_halves_survive_a_restart_and_go_on(
    db: DataDatabase, path: Path, tmp_path: Path
) -> None:
    old, lower, new, upper = split(db)
    again = DataDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert again.applied() == {OLD: old, NEW: new}
    key = upper.items()[0][0]
    upper.rows[key] = row(key, 99, b"newer")
    again.flush([ShardFlush(attrs.evolve(new, index=99), {key: upper.rows[key]}, [(5, b"s")])])
    upper.sessions[5] = b"s"
    check(again, old, lower)
    check(again, attrs.evolve(new, index=99), upper)
    assert again.create_generation() > new.generation
    again.close()


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("gone", [OLD, NEW])
def test_a_half_that_is_dropped_is_swept_and_the_other_is_not_touched(
    db: DataDatabase, gone: int, limit: int
) -> None:
    old, lower, new, upper = split(db)
    db.drop(gone)
    at, model = (new, upper) if gone == OLD else (old, lower)
    assert 0 < sweep_all(db, limit) <= limit
    assert stored(db) == (len(model.rows), 6)
    check(db, at, model)
    assert db.sweep(limit) == 0


def test_a_slice_is_of_so_many_bytes(db: DataDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rows of 32 MiB in one piece would have kept all flushes waiting for minutes."""
    old, lower, _, upper = split(db)
    size = max(len(one.value) for _, one in upper.items())
    monkeypatch.setattr(sweeping, "SLICE_BYTES", 2 * size)
    db.drop(NEW)
    before, largest = stored(db)[0], 0
    while db.sweep(1000):
        after = stored(db)[0]
        largest, before = max(largest, before - after), after
    assert 2 <= largest < len(upper.rows) / 2
    check(db, old, lower)
    db.drop(OLD)
    while db.sweep(1000):
        after = stored(db)[0]
        largest, before = max(largest, before - after), after
    assert largest < len(upper.rows) / 2
    assert stored(db) == (0, 0)


@pytest.mark.parametrize("moved", [OLD, NEW])
def test_a_half_that_gets_a_snapshot_leaves_its_rows_to_be_swept(
    db: DataDatabase, moved: int
) -> None:
    old, lower, new, upper = split(db)
    before, other, model = (old, new, upper) if moved == OLD else (new, old, lower)
    generation = db.create_generation()
    db.write_rows(generation, [(b"k", row(b"k", 9, b"v"))])
    db.install(attrs.evolve(before, generation=generation, rows=generation, index=999))
    sweep_all(db)
    assert stored(db) == (len(model.rows) + 1, 6)
    check(db, other, model)


def test_both_halves_gone_leave_nothing(db: DataDatabase) -> None:
    split(db)
    db.drop(OLD)
    db.sweep(5)
    db.drop(NEW)
    sweep_all(db)
    assert stored(db) == (0, 0)


def test_a_shard_that_was_cut_without_another_here_loses_what_it_gave_away(
    db: DataDatabase,
) -> None:
    at, model = fill(db, OLD, 60)
    lower = half(model, LOWER)
    old = applied_half(at, lower, LOWER, at.generation)
    db.flush([ShardFlush(old)])
    sweep_all(db)
    assert stored(db) == (len(lower.rows), 6)
    check(db, old, lower)


def test_a_sweep_goes_on_after_a_crash_where_it_was(
    db: DataDatabase, path: Path, tmp_path: Path
) -> None:
    old, lower, _, _ = split(db, 200)
    db.drop(NEW)
    while stored(db)[1] > 20:
        assert db.sweep(20)  # the sessions go first
    for _ in range(3):
        assert db.sweep(20) == 20
    rows_left = stored(db)[0]
    assert len(lower.rows) < rows_left < 200
    assert db.checkpoint()
    again = DataDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert stored(again)[0] == rows_left
    slices = 0
    while again.sweep(20):
        slices += 1
    assert slices == 7  # of the ten that there are in all
    assert stored(again) == (len(lower.rows), 20)
    check(again, old, lower)
    again.close()


def test_one_that_leaves_while_a_sweep_is_under_way_is_swept_too(db: DataDatabase) -> None:
    old, lower, _, _ = split(db, 200)
    db.drop(NEW)
    while stored(db)[0] == 200:
        db.sweep(20)
    # The first key gone over belongs to the part that is given away now.
    first, second = (0, MIDDLE // 2), (MIDDLE // 2, MIDDLE)
    rest = half(lower, first)
    db.flush([ShardFlush(applied_half(old, rest, first, old.generation))])
    assert half(lower, second).rows
    sweep_all(db)
    assert stored(db)[0] == len(rest.rows)
    check(db, db.applied()[OLD], rest)


def test_a_half_is_split_again_without_a_sweep(db: DataDatabase) -> None:
    _, _, new, upper = split(db)
    edge = 3 << 30
    parts = [half(upper, (MIDDLE, edge)), half(upper, (edge, 1 << 32))]
    third = attrs.evolve(
        applied_half(new, parts[1], (edge, 1 << 32), db.reserve_generation()), shard=3
    )
    new = applied_half(new, parts[0], (MIDDLE, edge), new.generation)
    db.flush([ShardFlush(new), ShardFlush(third, {}, list(parts[1].sessions.items()))])
    assert db.sweep(1000) == 0
    check(db, new, parts[0])
    check(db, third, parts[1])
    db.drop(NEW)
    sweep_all(db)
    check(db, third, parts[1])


def test_a_damaged_row_is_laid_to_the_shard_that_owns_it(db: DataDatabase, path: Path) -> None:
    old, lower, new, upper = split(db)
    key = upper.items()[0][0]
    damage(path, f"UPDATE kv SET value=x'00' WHERE key=x'{key.hex()}'")
    for read in (
        lambda: db.get(new.rows, key, NEW),
        lambda: scanned(db, new.rows, None, 1000, UPPER, NEW),
    ):
        with pytest.raises(Corrupt, match="shard 2") as caught:
            read()
        assert caught.value.shard == NEW
    assert scanned(db, old.rows, None, 1000, LOWER, OLD) == lower.items()
    with contextlib.closing(SnapshotReader(path, old)) as reader:
        assert reader.next_chunk(1 << 20).last
    with contextlib.closing(SnapshotReader(path, new)) as reader, pytest.raises(Corrupt) as caught:
        reader.next_chunk(1 << 20)
    assert caught.value.shard == NEW


@pytest.mark.parametrize("change", ["revision=NULL", "digest='x'", "value=NULL"])
def test_a_stamp_that_is_no_numbers_is_damage(db: DataDatabase, path: Path, change: str) -> None:
    at, model = fill(db, 3, 20)
    key = model.items()[0][0]
    with contextlib.closing(RawTable(path)) as raw:
        raw.damage(change, key)
    for read in (lambda: db.stamp(at.rows, key, 3), lambda: db.stamps(at.rows, [key], 3)):
        with pytest.raises(Corrupt) as caught:
            read()
        assert caught.value.shard == 3


class RawTable:
    """kv with the types unchecked, as a flipped bit leaves them."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA writable_schema=1")
        self._connection.execute(
            "UPDATE sqlite_schema SET sql=replace(replace(sql, 'STRICT', ''), 'NOT NULL', '')"
            " WHERE name='kv'"
        )
        self._connection.commit()
        self._connection.execute("PRAGMA writable_schema=RESET")

    def damage(self, change: str, key: bytes) -> None:
        done = self._connection.execute(f"UPDATE kv SET {change} WHERE key=?", (key,))
        assert done.rowcount == 1
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("which", [OLD, NEW])
def test_each_half_s_snapshot_brings_its_rows_and_its_arc(
    db: DataDatabase, tmp_path: Path, which: int
) -> None:
    old, lower, new, upper = split(db)
    at, model = (old, lower) if which == OLD else (new, upper)
    receiver = DataDatabase.open(tmp_path / "receiver.db")
    announced = attrs.evolve(at, cells=Extent.decode(*at.arc, at.cells).emptied().encode())
    writer = SnapshotWriter(receiver, announced)
    writer.begin(b"t")
    with contextlib.closing(SnapshotReader(db.path, at)) as reader:
        last = False
        while not last:
            chunk = reader.next_chunk(500)
            last = chunk.last
            if chunk.number == 3:  # the receiver is started again
                writer = SnapshotWriter(receiver, announced)
                assert writer.begin(b"t") == 3
            writer.write(chunk)
    writer.finish()
    receiver.install(writer.applied)
    got = receiver.applied()[which]
    assert got.cells == at.cells
    assert (got.arc, got.state_hash) == (at.arc, model.state_hash)
    check(receiver, got, model)
    receiver.close()


def test_a_row_from_outside_of_the_announced_arc_is_refused(
    db: DataDatabase, tmp_path: Path
) -> None:
    at, _ = fill(db, OLD, 20)
    receiver = DataDatabase.open(tmp_path / "receiver.db")
    narrow = Extent(0, MIDDLE, 1 << 24, 128)
    writer = SnapshotWriter(receiver, attrs.evolve(at, hash_hi=MIDDLE, cells=narrow.encode()))
    writer.begin(b"t")
    with contextlib.closing(SnapshotReader(db.path, at)) as reader:
        chunk = reader.next_chunk(1 << 20)
    with pytest.raises(SnapshotRefused, match="outside"):
        writer.write(chunk)
    assert writer.next_chunk == 0
    receiver.close()


def test_a_transfer_whose_note_is_damaged_begins_anew(db: DataDatabase, tmp_path: Path) -> None:
    at, model = fill(db, OLD, 40)
    path = tmp_path / "receiver.db"
    receiver = DataDatabase.open(path)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    with contextlib.closing(SnapshotReader(db.path, at)) as reader:
        writer.write(reader.next_chunk(2000))
        damage(path, "UPDATE receiving SET cells=CAST(substr(cells, 2) || x'07' AS BLOB)")
        writer = SnapshotWriter(receiver, at)
        assert writer.begin(b"t") == 0
        reader.seek(0)
        last = False
        while not last:
            chunk = reader.next_chunk(2000)
            last = chunk.last
            writer.write(chunk)
    writer.finish()
    assert Extent.decode(*WHOLE_RING, writer.applied.cells) == model.extent
    receiver.close()


def test_a_writer_that_begins_anew_counts_anew(db: DataDatabase, tmp_path: Path) -> None:
    at, model = fill(db, OLD, 40)
    receiver = DataDatabase.open(tmp_path / "receiver.db")
    writer = SnapshotWriter(receiver, at)
    for transfer in (b"t1", b"t2"):
        assert writer.begin(transfer) == 0
        with contextlib.closing(SnapshotReader(db.path, at)) as reader:
            writer.write(reader.next_chunk(1 << 20))
    writer.finish()
    assert Extent.decode(*WHOLE_RING, writer.applied.cells) == model.extent
    receiver.close()


def test_a_reserved_number_is_listed_with_its_first_flush_and_never_given_again(
    path: Path,
) -> None:
    db = DataDatabase.open(path)
    first, second = db.reserve_generation(), db.create_generation()
    assert first != second
    assert db.listed() == [second]
    db.flush([ShardFlush(applied(1, first))])
    assert db.listed() == [first, second]
    unused = db.reserve_generation()
    db.close()
    db = DataDatabase.open(path)
    assert db.create_generation() == unused, "nothing on the disk knows of it"
    db.close()


def test_a_durable_flush_is_synced(db: DataDatabase) -> None:
    statements: list[str] = []
    db._writer.set_trace_callback(statements.append)
    db.flush([ShardFlush(applied(1, db.reserve_generation(), 1))], durable=True)
    order = [s for s in statements if s.startswith(("PRAGMA sync", "BEGIN", "COMMIT"))]
    assert order == [
        "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=NORMAL",
    ]  # fmt: skip
    db._writer.set_trace_callback(None)


def test_what_a_damaged_half_had_is_swept_and_the_other_keeps_its_own(path: Path) -> None:
    db = DataDatabase.open(path)
    _, _, new, upper = split(db)
    db.close()
    damage(path, f"UPDATE applied SET log_index=999 WHERE shard={OLD}")
    db = DataDatabase.open(path)
    assert list(db.damaged) == [OLD]
    sweep_all(db)
    assert stored(db) == (len(upper.rows), 6)
    check(db, new, upper)
    db.close()


def test_verify_finds_cells_that_do_not_add_up_in_either_half(path: Path, tmp_path: Path) -> None:
    db = DataDatabase.open(path)
    _, _, new, _ = split(db)
    raft_path = tmp_path / "raft.db"
    RaftDatabase.open(raft_path).close()
    db.checkpoint()
    assert list(verify_store(raft_path, path)) == []
    wrong = Extent.decode(*new.arc, new.cells)
    wrong.count(3, 0, 0, 1)
    db.flush([ShardFlush(attrs.evolve(new, cells=wrong.encode()))])
    db.close()
    (found,) = verify_store(raft_path, path)
    assert "cells" in str(found)
    assert "shard 2" in str(found)


def test_a_sweep_that_fails_ends_the_store(db: DataDatabase) -> None:
    split(db)
    db.drop(NEW)
    db._writer.execute("DROP TABLE orphans")
    with pytest.raises(StoreFailed):
        sweep_all(db)
