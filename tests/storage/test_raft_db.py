"""raft.db: what was saved is there after a crash, whatever was cut and compacted since."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.raft.configuration import encode_configuration
from kritad.raft.types import Boot, Entry, EntryKind, HardState, Save, SnapshotMeta
from kritad.storage import database, migrations, raft_db
from kritad.storage.digests import seal
from kritad.storage.errors import Corrupt, StoreFailed, Tombstoned
from kritad.storage.raft_db import Identity, RaftDatabase, ReplicaRow
from tests.storage.model import (
    ReplicaModel,
    configuration,
    copy_store,
    entry,
    random_save,
    run,
)

FIRST = SnapshotMeta(0, 0, configuration(1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft.db"


@pytest.fixture
def db(path: Path) -> Iterator[RaftDatabase]:
    database = RaftDatabase.open(path)
    yield database
    database.close()


def reload(path: Path, tmp_path: Path, shard: int = 1, applied: int = 0) -> Boot:
    """The shard as a start after a crash at this moment would find it."""
    database = RaftDatabase.open(copy_store(path, tmp_path / "crashed"))
    try:
        return database.load(shard, applied)
    finally:
        database.close()


def count_rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM log").fetchone()[0]
    return count


def save_of(entries: list[Entry], term: int = 1, truncate_from: int = 0) -> Save:
    return Save(1, HardState(term, 1, 0), None, truncate_from, entries, sync_hard_state=True)


def test_a_new_store_has_no_identity_and_no_replicas(db: RaftDatabase) -> None:
    assert db.identity() is None
    assert db.replicas() == []


def test_identity_survives_a_crash_right_after_it_was_written(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.initialise(b"", 0, b"u" * 16)
    db.count_boot(b"1" * 16)
    db.initialise(b"c" * 16, 7, b"u" * 16)
    crashed = RaftDatabase.open(copy_store(path, tmp_path / "crashed"))
    assert crashed.identity() == Identity(b"c" * 16, 7, b"u" * 16, 1, (b"1" * 16,))
    assert crashed.count_boot(b"2" * 16).boot_counter == 2
    crashed.close()


def test_nonces_of_boots_are_kept_until_one_is_acknowledged(db: RaftDatabase, path: Path) -> None:
    db.initialise(b"c" * 16, 7, b"u" * 16)
    first, second, third = (bytes([number]) * 16 for number in range(3))
    db.count_boot(first)
    db.count_boot(second)
    db.acknowledge_boot()
    assert db.count_boot(third).nonces == (second, third)
    crashed = RaftDatabase.open(copy_store(path, path.parent / "crashed"))
    assert crashed.identity() == Identity(b"c" * 16, 7, b"u" * 16, 3, (second, third))
    crashed.close()


def test_a_boot_that_follows_sixteen_unanswered_ones_is_the_last_of_them_again(
    db: RaftDatabase,
) -> None:
    db.initialise(b"c" * 16, 7, b"u" * 16)
    for number in range(16):
        last = db.count_boot(bytes([number]) * 16)
    assert len(last.nonces) == last.boot_counter == 16
    assert db.count_boot(b"n" * 16) == last
    db.acknowledge_boot()
    assert db.count_boot(b"n" * 16).boot_counter == 17


def test_a_store_from_before_there_were_nonces_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = attrs.evolve(migrations.RAFT, steps=migrations.RAFT.steps[:1])
    with contextlib.closing(database.open_writer(path, "FULL")) as connection:
        migrations.migrate(connection, path, old)
        fields = (b"c" * 16, 7, b"u" * 16, 5)
        connection.execute("INSERT INTO store VALUES (1,?,?,?,?,?)", (*fields, seal(*fields)))
    db = RaftDatabase.open(path)
    assert db.identity() == Identity(*fields)
    assert db.count_boot(b"n" * 16) == Identity(b"c" * 16, 7, b"u" * 16, 6, (b"n" * 16,))
    db.close()


def test_a_recovery_puts_its_entry_behind_the_log_and_keeps_its_record(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 4, FIRST)
    db.save([(1, save_of(run(1, 3)))])
    conf = attrs.evolve(configuration(4), version=1_000_000)
    forced = Entry(4, 1_000_001, EntryKind.CONF, encode_configuration(conf))
    db.recover([(1, Save(0, HardState(1_000_001, 0, 2), entries=[forced]))], b"why")
    boot = reload(path, tmp_path)
    assert (boot.last_index, boot.terms[-1]) == (4, (4, 1_000_001))
    assert boot.configurations == [(4, conf)]
    assert boot.hard_state == HardState(1_000_001, 0, 2)
    again = RaftDatabase.open(copy_store(path, tmp_path / "again"))
    assert again.recoveries() == db.recoveries() == [b"why"]
    again.close()


def test_a_node_id_once_given_cannot_be_changed(db: RaftDatabase) -> None:
    db.initialise(b"c" * 16, 7, b"u" * 16)
    with pytest.raises(AssertionError):
        db.initialise(b"c" * 16, 8, b"u" * 16)


def test_a_created_replica_boots_with_the_configuration_it_was_given(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 4, FIRST)
    assert db.replicas() == [ReplicaRow(1, 4)]
    assert reload(path, tmp_path) == Boot(snapshot=FIRST)


def test_a_removed_replica_never_comes_back_under_its_id(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 4, FIRST)
    db.save([(1, save_of(run(1, 3)))])
    db.remove_replica(1, 4)
    assert db.replicas() == []
    crashed = RaftDatabase.open(copy_store(path, tmp_path / "crashed"))
    for dead in (3, 4):
        with pytest.raises(Tombstoned, match="never reused"):
            crashed.create_replica(1, dead, None)
    crashed.create_replica(1, 5, None)
    assert crashed.load(1, 0) == Boot()
    crashed.close()


def test_removing_a_replica_that_was_never_here_still_leaves_a_tombstone(db: RaftDatabase) -> None:
    db.remove_replica(1, 9)
    with pytest.raises(Tombstoned):
        db.create_replica(1, 9, None)
    db.create_replica(1, 10, None)
    db.remove_replica(1, 2)  # an old message: must not take the living one with it
    assert db.replicas() == [ReplicaRow(1, 10)]


def test_saved_entries_and_votes_are_there_after_a_crash(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    entries = [*run(1, 2), entry(3, 1, kind=EntryKind.CONF), *run(4, 5, term=2)]
    db.save([(1, Save(1, HardState(2, 3, 1), None, 0, entries))])
    boot = reload(path, tmp_path, applied=1)
    assert boot.hard_state == HardState(2, 3, 1)
    assert boot.entries == entries[1:]
    assert boot.terms == [(1, 1), (4, 2)]
    assert boot.configurations == [(3, configuration(3))]


def test_truncation_cuts_the_run_it_falls_into_and_drops_its_configuration(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    db.save([(1, save_of([*run(1, 4), entry(5, 1, kind=EntryKind.CONF), *run(6, 8)]))])
    db.save([(1, save_of(run(9, 12)))])
    db.save([(1, save_of(run(5, 6, term=2), 2, truncate_from=5))])
    boot = reload(path, tmp_path)
    assert [(e.index, e.term) for e in boot.entries] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 2),
        (6, 2),
    ]
    assert boot.configurations == []
    assert db.entries(1, 3, 99, 1 << 20) == boot.entries[2:]


def test_a_snapshot_replaces_the_whole_log(db: RaftDatabase, path: Path, tmp_path: Path) -> None:
    db.create_replica(1, 1, FIRST)
    db.save([(1, save_of(run(1, 8)))])
    meta = SnapshotMeta(20, 3, configuration(2), generation=5)
    save = Save(2, HardState(3, 0, 20), meta, 0, run(21, 22, term=3))
    db.save([(1, save)])
    boot = reload(path, tmp_path, applied=20)
    assert (boot.snapshot, boot.entries, boot.last_index) == (meta, save.entries, 22)
    assert db.entries(1, 5, 8, 1000) == []


def test_several_saves_of_one_replica_in_one_batch_are_done_in_order(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    db.create_replica(2, 1, FIRST)
    db.save(
        [
            (1, save_of(run(1, 4))),
            (2, save_of(run(1, 1))),
            (1, save_of(run(3, 5, term=2), 2, truncate_from=3)),
            (1, save_of(run(6, 6, term=2), 2)),
            (2, save_of(run(2, 2))),
        ]
    )
    assert [(e.index, e.term) for e in reload(path, tmp_path).entries] == [
        (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2),
    ]  # fmt: skip
    assert reload(path, tmp_path, shard=2).last_index == 2


def test_a_batch_without_anything_to_sync_writes_nothing(db: RaftDatabase, path: Path) -> None:
    db.create_replica(1, 1, FIRST)
    before = path.with_name("raft.db-wal").read_bytes()
    db.save([(1, Save(1, HardState(0, 0, 0))), (1, Save(2))])
    assert path.with_name("raft.db-wal").read_bytes() == before


def test_a_commit_index_rides_along_with_other_saves(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    db.create_replica(2, 1, FIRST)
    db.save([(1, save_of(run(1, 2)))])
    db.save([(1, Save(2, HardState(1, 1, 2))), (2, save_of(run(1, 1)))])
    assert reload(path, tmp_path).hard_state.commit == 2


def test_large_appends_are_split_so_that_reading_some_does_not_read_all(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    entries = [entry(i, 1, bytes(300_000)) for i in range(1, 6)]
    db.save([(1, save_of(entries))])
    found = db.entries(1, 2, 5, 600_000)
    assert [e.index for e in found] == [2, 3]
    assert reload(path, tmp_path).entries == entries
    assert count_rows(path) == 5


def statements_of(db: RaftDatabase, batch: list[tuple[int, Save]]) -> list[str]:
    """The first words of what SQLite is told to do for a save. It is told of once more for
    each trigger."""
    said: list[str] = []
    db._writer.set_trace_callback(said.append)
    db.save(batch)
    db._writer.set_trace_callback(None)
    return [statement.split()[0] for statement in dict.fromkeys(said)]


def test_an_ordinary_save_is_one_statement_and_any_other_one_transaction(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    shards = range(1, 21)
    for shard in shards:
        db.create_replica(shard, 1, FIRST)
    vote_only = Save(1, HardState(1, 1, 0), sync_hard_state=True)
    assert statements_of(db, [(1, save_of(run(1, 3))), (2, vote_only)]) == ["INSERT"]
    many = [(shard, save_of(run(1, 1))) for shard in shards if shard > 2]
    whole = ["BEGIN", *["INSERT"] * 2, "COMMIT"]
    assert statements_of(db, many) == whole, "more shards than one statement has rows"
    large = [entry(i, 1, bytes(300_000)) for i in (4, 5)]
    assert statements_of(db, [(1, save_of(large))]) == ["BEGIN", "INSERT", "COMMIT"]
    cut = statements_of(db, [(1, save_of(run(4, 4, term=2), 2, truncate_from=4))])
    assert (cut[0], cut[-1]) == ("BEGIN", "COMMIT")
    assert [(e.index, e.term) for e in reload(path, tmp_path).entries] == [
        (1, 1), (2, 1), (3, 1), (4, 2),
    ]  # fmt: skip
    assert reload(path, tmp_path, shard=2).hard_state == HardState(1, 1, 0)
    assert reload(path, tmp_path, shard=20).last_index == 1


def test_a_save_that_fails_half_way_through_its_one_statement_has_saved_nothing(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    for shard in (1, 2):
        db.create_replica(shard, 1, FIRST)
    db._writer.execute(
        "CREATE TEMP TRIGGER broken BEFORE INSERT ON main.hard WHEN NEW.shard = 2"
        " BEGIN SELECT RAISE(ABORT, 'the disk is not what it was'); END"
    )
    with pytest.raises(StoreFailed):
        db.save([(1, save_of(run(1, 2))), (2, save_of(run(1, 2)))])
    for shard in (1, 2):
        boot = reload(path, tmp_path, shard=shard)
        assert (boot.last_index, boot.hard_state) == (0, HardState())
    with pytest.raises(StoreFailed):
        db.save([(1, save_of(run(1, 2)))])


def test_entries_returns_at_least_one_entry_however_large(db: RaftDatabase) -> None:
    db.create_replica(1, 1, FIRST)
    db.save([(1, save_of([entry(1, 1, bytes(9000)), entry(2, 1, bytes(9000))]))])
    assert [e.index for e in db.entries(1, 1, 2, 10)] == [1]
    assert [e.index for e in db.entries(1, 2, 2, 10)] == [2]
    assert db.entries(1, 3, 9, 10) == []
    assert db.entries(2, 1, 9, 10) == []


def test_entries_spanning_several_rows_come_back_contiguous(db: RaftDatabase) -> None:
    db.create_replica(1, 1, FIRST)
    for first in range(1, 30, 3):
        db.save([(1, save_of(run(first, first + 2)))])
    assert [e.index for e in db.entries(1, 5, 17, 1 << 20)] == list(range(5, 18))


def test_compaction_keeps_a_run_that_reaches_over_the_cut(
    db: RaftDatabase, path: Path, tmp_path: Path
) -> None:
    db.create_replica(1, 1, FIRST)
    db.save([(1, save_of(run(1, 4)))])
    db.save([(1, save_of(run(5, 9)))])
    meta = SnapshotMeta(6, 1, configuration(1))
    assert db.compact([(1, meta)]) is True
    boot = reload(path, tmp_path, applied=6)
    assert (boot.snapshot, [e.index for e in boot.entries]) == (meta, [7, 8, 9])
    assert boot.terms == [(7, 1)]
    assert db.entries(1, 2, 9, 1 << 20) == []


def test_compaction_in_slices_leaves_a_store_that_boots_between_them(
    db: RaftDatabase, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft_db, "COMPACT_ROWS_MAX", 4)
    db.create_replica(1, 1, FIRST)
    for index in range(1, 11):
        db.save([(1, save_of(run(index, index)))])
    meta = SnapshotMeta(9, 1, configuration(1))
    outcomes = []
    for _ in range(3):
        outcomes.append(db.compact([(1, meta)]))
        assert [e.index for e in reload(path, tmp_path, applied=9).entries] == [10]
    assert outcomes == [False, False, True]
    assert count_rows(path) == 1


@pytest.mark.parametrize("data_bytes", [100, 400_000])
def test_compaction_writes_no_more_pages_than_are_counted_of_it(
    db: RaftDatabase, data_bytes: int
) -> None:
    """Free pages are not written: with secure_delete it was all that had been deleted."""
    db.create_replica(1, 1, FIRST)
    for index in range(1, 65):
        db.save([(1, save_of([entry(index, 1, bytes(data_bytes))]))])
    database.checkpoint(db._writer, "PASSIVE")
    before = db._wal_pages
    db.compact([(1, SnapshotMeta(64, 1, configuration(64)))])
    written = database.checkpoint(db._writer, "PASSIVE").frames
    assert 0 < written <= db._wal_pages - before


def test_state_older_than_the_log_is_corrupt_unless_a_received_snapshot_explains_it(
    db: RaftDatabase,
) -> None:
    db.create_replica(1, 1, SnapshotMeta(50, 2, configuration(1)))
    with pytest.raises(Corrupt, match="log begins behind 50") as caught:
        db.load(1, 40)
    assert caught.value.shard == 1
    db.create_replica(2, 1, SnapshotMeta(50, 2, configuration(1), generation=3))
    assert db.load(2, 40).snapshot.generation == 3


def test_state_ahead_of_the_log_is_corrupt(db: RaftDatabase) -> None:
    db.create_replica(1, 1, FIRST)
    db.save([(1, save_of(run(1, 3)))])
    with pytest.raises(Corrupt, match="has applied 4, the log ends at 3"):
        db.load(1, 4)


def test_the_wal_does_not_grow_without_bound(db: RaftDatabase, path: Path) -> None:
    db.create_replica(1, 1, FIRST)
    for index in range(1, 301):
        db.save([(1, save_of([entry(index, 1, bytes(100_000))]))])
    wal_bytes = path.with_name("raft.db-wal").stat().st_size
    assert wal_bytes < 2.5 * raft_db.CHECKPOINT_PAGES_FORCED * 4096


def test_maybe_checkpoint_does_nothing_until_one_is_due(db: RaftDatabase, path: Path) -> None:
    db.create_replica(1, 1, FIRST)
    before = path.stat().st_size
    db.maybe_checkpoint()
    assert path.stat().st_size == before
    db.save([(1, save_of([entry(i, 1, bytes(10_000)) for i in range(1, 251)]))])
    db.maybe_checkpoint()
    assert path.stat().st_size > 2_000_000


def test_an_append_that_leaves_a_gap_is_our_bug_and_ends_the_store(db: RaftDatabase) -> None:
    db.create_replica(1, 1, FIRST)
    with pytest.raises(AssertionError):
        db.save([(1, save_of(run(2, 3)))])
    with pytest.raises(StoreFailed, match="broken off"):
        db.save([(1, save_of(run(1, 1)))])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_saved_compacted_and_crashed_load_returns_what_a_model_says(seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "raft.db"
        db = RaftDatabase.open(path)
        models = {shard: ReplicaModel(FIRST) for shard in (1, 2, 5)}
        for shard in models:
            db.create_replica(shard, 1, FIRST)
        for step in range(25):
            batch = []
            for _ in range(chance.randrange(1, 6)):
                shard = chance.choice(list(models))
                save = random_save(chance, models[shard])
                models[shard].apply(save)
                batch.append((shard, save))
            db.save(batch)
            if chance.random() < 0.2:
                shard = chance.choice(list(models))
                model = models[shard]
                if model.entries:
                    cut = chance.choice(model.entries)
                    meta = SnapshotMeta(cut.index, cut.term, configuration(cut.index))
                    db.compact([(shard, meta)])
                    model.compact(meta)
            if chance.random() < 0.2:
                crashed = copy_store(path, Path(name) / f"crash{step}")
                db.close()
                path = crashed
                db = RaftDatabase.open(path)
            for shard, model in models.items():
                applied = chance.randrange(model.first.index, model.last_index + 1)
                assert db.load(shard, applied) == model.boot(applied)
                if model.entries:
                    first = chance.choice(model.entries).index
                    expected = [e for e in model.entries if first <= e.index <= first + 5]
                    assert db.entries(shard, first, first + 5, 1 << 20) == expected
        db.close()
