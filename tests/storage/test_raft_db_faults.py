"""raft.db when bits flip, disks fill and files are not ours: refused, never a shorter log."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from kritad.raft.types import HardState, Save, SnapshotMeta
from kritad.storage import database
from kritad.storage.errors import Corrupt, FormatUnknown, StorageError, StoreFailed
from kritad.storage.raft_db import RaftDatabase
from tests.storage.faults import damage, file_size_limit
from tests.storage.model import ReplicaModel, configuration, copy_store, run

FIRST = SnapshotMeta(0, 0, configuration(1))


def make(path: Path, shards: int = 3) -> dict[int, ReplicaModel]:
    """A closed store with some entries in each shard, all of it in the main file."""
    db = RaftDatabase.open(path)
    db.initialise(b"c" * 16, 1, b"u" * 16)
    models = {}
    for shard in range(1, shards + 1):
        models[shard] = model = ReplicaModel(FIRST)
        db.create_replica(shard, 1, FIRST)
        for first in range(1, 40, 4):
            save = Save(1, HardState(2, 1, first), None, 0, run(first, first + 3, 2, 60))
            db.save([(shard, save)])
            model.apply(save)
    db.close()
    return models


def load_error(path: Path, shard: int) -> Corrupt:
    db = RaftDatabase.open(path)
    try:
        with pytest.raises(Corrupt) as caught:
            db.load(shard, 0)
        assert caught.value.shard == shard
        for other in {1, 2, 3} - {shard}:
            assert db.load(other, 0).last_index == 40, "damage to one replica hit another"
        return caught.value
    finally:
        db.close()


def test_no_flipped_bit_in_the_main_file_is_read_as_something_else(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    models = make(path)
    whole = path.read_bytes()
    chance = random.Random(1)
    noticed = 0
    for _ in range(150):
        bit = chance.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        for leftover in tmp_path.iterdir():
            leftover.unlink()
        path.write_bytes(damaged)
        try:
            db = RaftDatabase.open(path)
        except StorageError:
            noticed += 1
            continue
        try:
            assert len(db.replicas()) == 3, f"bit {bit} hid a replica"
            for shard, model in models.items():
                try:
                    boot = db.load(shard, 0)
                except Corrupt:
                    noticed += 1
                else:
                    assert boot == model.boot(0), f"bit {bit} changed shard {shard} unnoticed"
        finally:
            db.close()
    assert noticed > 50


@pytest.mark.parametrize(
    ("query", "finding"),
    [
        ("UPDATE hard SET term=1 WHERE shard=2", "term and vote"),
        ("UPDATE hard SET vote=3 WHERE shard=2", "term and vote"),
        ("DELETE FROM hard WHERE shard=2", "missing"),
        ("UPDATE first SET log_index=3 WHERE shard=2", "log's start"),
        ("DELETE FROM first WHERE shard=2", "missing"),
        ("DELETE FROM log WHERE shard=2 AND first_index=1", "entry 5 follows 0"),
        ("DELETE FROM log WHERE shard=2 AND first_index=17", "follows 16"),
        ("DELETE FROM log WHERE shard=2 AND first_index=37", "saved up to 40"),
        ("UPDATE log SET records=x'00' WHERE shard=2 AND first_index=9", "ends inside a header"),
        ("UPDATE log SET shard=2 WHERE shard=2 AND first_index=9 AND last_index=12", None),
    ],
)
def test_damage_to_a_replica_is_found_when_it_boots(
    tmp_path: Path, query: str, finding: str | None
) -> None:
    path = tmp_path / "raft.db"
    make(path)
    damage(path, query)
    if finding is None:  # the control: a change that changes nothing
        db = RaftDatabase.open(path)
        assert db.load(2, 0).last_index == 40
        db.close()
    else:
        assert finding in load_error(path, 2).message


def test_a_record_moved_to_another_shard_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path)
    damage(
        path,
        "UPDATE log SET records=(SELECT records FROM log WHERE shard=1 AND first_index=9)"
        " WHERE shard=2 AND first_index=9",
    )
    assert "checksum" in load_error(path, 2).message


def test_a_damaged_replica_can_be_removed_and_its_shard_placed_here_again(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path)
    damage(path, "DELETE FROM log WHERE shard=2 AND first_index=17")
    load_error(path, 2)
    db = RaftDatabase.open(path)
    db.remove_replica(2, 1)
    db.create_replica(2, 7, None)
    db.save([(2, Save(1, HardState(3, 0, 0), None, 0, run(1, 2, 3)))])
    db.close()
    db = RaftDatabase.open(path)
    assert db.load(2, 0).last_index == 2
    db.close()


def test_damage_found_by_a_read_while_running_names_the_shard(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path)
    db = RaftDatabase.open(path)
    damage(path, "UPDATE log SET records=x'01' WHERE shard=3 AND first_index=9")
    with pytest.raises(Corrupt) as caught:
        db.entries(3, 10, 11, 1000)
    assert caught.value.shard == 3
    db.close()


@pytest.mark.parametrize("table", ["store", "replica"])
def test_damage_to_what_the_whole_node_hangs_on_stops_the_start(tmp_path: Path, table: str) -> None:
    path = tmp_path / "raft.db"
    make(path, shards=1)
    damage(path, f"UPDATE {table} SET seal=seal+1")
    with pytest.raises(Corrupt) as caught:
        RaftDatabase.open(path)
    assert caught.value.shard is None


def test_a_store_that_cannot_be_opened_leaves_no_connection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raft.db"
    make(path, shards=1)
    damage(path, "UPDATE store SET seal=seal+1")
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connecting(*arguments: Any, **more: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **more))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connecting)
    with pytest.raises(Corrupt):
        RaftDatabase.open(path)
    assert len(opened) == 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_a_full_disk_fails_the_save_and_every_call_after_it(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path)
    db = RaftDatabase.open(path)
    db.save([(1, Save(1, HardState(2, 1, 0), None, 0, run(41, 41, 2)))])
    wal_bytes = path.with_name("raft.db-wal").stat().st_size
    with file_size_limit(wal_bytes + 1000), pytest.raises(StoreFailed, match="cannot write"):
        db.save([(1, Save(2, HardState(2, 1, 0), None, 0, run(42, 60, 2, 500)))])
    # The disk is well again, and still the store must not go on (fsyncgate).
    for call in (
        lambda: db.save([(1, Save(3, HardState(2, 1, 0), None, 0, run(42, 42, 2)))]),
        lambda: db.save([]),
        lambda: db.entries(1, 1, 2, 10),
        lambda: db.load(1, 0),
        lambda: db.compact([]),
        db.maybe_checkpoint,
        lambda: db.count_boot(b"n" * 16),
        db.replicas,
        db.identity,
    ):
        with pytest.raises(StoreFailed):
            call()
    db.close()
    db = RaftDatabase.open(path)
    assert db.load(1, 0).last_index == 41, "a failed save must not be seen after a restart"
    db.close()


def test_a_failed_checkpoint_is_as_fatal_as_a_failed_save(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path, shards=1)
    db = RaftDatabase.open(path)
    db.save([(1, Save(1, HardState(2, 1, 0), None, 0, run(41, 90, 2, 25_000)))])
    with file_size_limit(path.stat().st_size), pytest.raises(StoreFailed, match="checkpoint"):
        db.maybe_checkpoint()
    with pytest.raises(StoreFailed):
        db.save([(1, Save(2, HardState(2, 1, 0), None, 0, run(91, 91, 2)))])
    db.close()


def test_a_file_that_is_no_database_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    path.write_bytes(b"shopping list: eggs" * 300)
    with pytest.raises(Corrupt):
        RaftDatabase.open(path)
    assert path.read_bytes().startswith(b"shopping list")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE holiday (photo BLOB)")
    with pytest.raises(FormatUnknown, match="not a Krita"):
        RaftDatabase.open(path)


def test_a_file_of_a_newer_kritad_is_refused_with_its_format_named(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    make(path, shards=1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=9")
    with pytest.raises(FormatUnknown, match="has format 9; this kritad knows formats up to 2"):
        RaftDatabase.open(path)


def test_every_start_begins_a_fresh_wal_so_that_no_torn_leftover_lies_in_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "raft.db"
    make(path, shards=1)
    db = RaftDatabase.open(path)
    db.save([(1, Save(1, HardState(2, 1, 0), None, 0, run(41, 60, 2)))])
    crashed = RaftDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert crashed.path.with_name("raft.db-wal").stat().st_size == 0
    assert crashed.load(1, 0).last_index == 60
    crashed.close()
    db.close()


def test_a_store_that_another_program_reads_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.0)
    path = tmp_path / "raft.db"
    make(path, shards=1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM store").fetchall()
        damage(path, "DELETE FROM store")  # any change that the reader does not see yet
        with pytest.raises(StoreFailed, match="open in another program"):
            RaftDatabase.open(path)
