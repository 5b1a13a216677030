"""What the stores in memory do at the simulator's bidding: power cuts, failures, damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from kritad.raft.types import Boot, HardState, Save, SnapshotMeta
from kritad.storage.catalog import Identity
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StoreFailed, Tombstoned
from kritad.storage.rows import Applied, ShardFlush
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.raft_store import MemoryRaftDatabase
from tests.simulator.snapshot_store import MemorySnapshotReader, MemorySnapshotWriter
from tests.storage.faults import damage
from tests.storage.model import ReplicaModel, configuration, entry, random_save, run
from tests.storage.state import StateModel, applied, fill, row, scanned

FIRST = SnapshotMeta(0, 0, configuration(1))
SEEDS = range(40)


def chance(seed: int = 1) -> random.Random:
    return random.Random(seed)


def append(db: MemoryRaftDatabase, first: int, last: int, term: int = 1, cut: int = 0) -> None:
    db.save([(1, Save(1, HardState(term, 1, 0), None, cut, run(first, last, term)))])


def one_replica() -> MemoryRaftDatabase:
    db = MemoryRaftDatabase()
    db.create_replica(1, 1, FIRST)
    return db


# --- raft.db ---------------------------------------------------------------------------


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_takes_nothing_that_a_method_of_raft_db_had_done(power: bool) -> None:
    for seed in SEEDS:
        db = one_replica()
        append(db, 1, 5)
        append(db, 4, 6, term=2, cut=4)
        expected = db.load(1, 0)
        assert db.crash(power=power, chance=chance(seed)).load(1, 0) == expected


def test_a_core_that_changes_what_it_was_booted_with_does_not_change_the_disk() -> None:
    db = one_replica()
    append(db, 1, 3)
    boot = db.load(1, 0)
    boot.hard_state.term = 99
    boot.entries.clear()
    assert (db.hard_state(1), db.last_index(1)) == (HardState(1, 1, 0), 3)


def test_after_a_crash_the_old_object_refuses_and_does_not_touch_the_new_one() -> None:
    db = one_replica()
    append(db, 1, 3)
    after = db.crash(power=False, chance=chance())
    with pytest.raises(StoreFailed, match="has crashed"):
        append(db, 4, 4)
    with pytest.raises(StoreFailed, match="has crashed"):
        db.load(1, 0)
    assert (db.replica_of(1), after.last_index(1)) == (None, 3)


@pytest.mark.parametrize("seed", range(10))
def test_a_lazy_store_loses_whole_transactions_from_the_end_at_a_power_cut(seed: int) -> None:
    dice = chance(seed)
    db = one_replica()
    db.create_replica(2, 1, FIRST)
    db.initialise(b"c" * 16, 1, b"u" * 16)
    db.lazy = True
    models = {shard: ReplicaModel(FIRST) for shard in (1, 2)}
    states = [(db.load(1, 0), db.load(2, 0), db.identity())]

    def boots(some: MemoryRaftDatabase) -> tuple[Boot, Boot, Identity | None]:
        return some.load(1, applied_of(some, 1)), some.load(2, applied_of(some, 2)), some.identity()

    for _ in range(40):
        action = dice.random()
        if action < 0.1:
            db.count_boot(dice.randbytes(16))
        elif action < 0.25 and models[1].entries:
            cut = dice.choice(models[1].entries)
            meta = SnapshotMeta(cut.index, cut.term, configuration(cut.index))
            models[1].compact(meta)
            db.compact([(1, meta)])
        else:
            batch = []
            for shard in dice.choices((1, 2), k=3):
                save = random_save(dice, models[shard])
                models[shard].apply(save)
                batch.append((shard, save))
            db.save(batch)
        states.append(boots(db))
    after = db.crash(power=True, chance=dice)
    assert boots(after) in states
    assert after.lazy, "the planted bug went away with the crash"


def applied_of(db: MemoryRaftDatabase, shard: int) -> int:
    return db.first_index(shard)


def test_a_lazy_store_keeps_what_was_synced_and_may_lose_everything_behind_it() -> None:
    ends = set()
    for seed in SEEDS:
        db = one_replica()
        db.lazy = True
        append(db, 1, 3)
        db.sync()
        for index in (4, 5, 6):
            append(db, index, index)
        ends.add(db.crash(power=True, chance=chance(seed)).last_index(1))
    assert ends == {3, 4, 5, 6}


def test_a_lazy_store_loses_nothing_when_only_the_process_dies() -> None:
    db = one_replica()
    db.lazy = True
    append(db, 1, 3)
    assert db.crash(power=False, chance=chance()).last_index(1) == 3


def test_a_lazy_removal_that_is_lost_brings_the_replica_back_without_its_tombstone() -> None:
    outcomes = set()
    for seed in SEEDS:
        db = one_replica()
        append(db, 1, 3)
        db.lazy = True
        db.remove_replica(1, 1)
        after = db.crash(power=True, chance=chance(seed))
        if after.replica_of(1) is None:
            with pytest.raises(Tombstoned):
                after.create_replica(1, 1, None)
            outcomes.add("removed")
        else:
            assert after.load(1, 0).last_index == 3
            after.remove_replica(1, 1)
            outcomes.add("back")
    assert outcomes == {"removed", "back"}


def test_a_batch_with_a_bug_in_it_leaves_nothing_behind() -> None:
    db = one_replica()
    append(db, 1, 3)
    before = db.load(1, 0)
    good = Save(2, HardState(5, 2, 0), None, 2, run(2, 9, 5))
    with pytest.raises(AssertionError):
        db.save([(1, good), (1, Save(3, None, None, 0, [entry(50, 5)]))])
    with pytest.raises(StoreFailed, match="broken off"):
        db.load(1, 0)
    assert db.crash(power=False, chance=chance()).load(1, 0) == before


def test_a_failing_disk_stores_nothing_of_the_write_and_is_not_asked_again() -> None:
    db = one_replica()
    append(db, 1, 3)
    db.fail_with = StoreFailed("no space")
    for _ in range(2):
        with pytest.raises(StoreFailed, match="no space"):
            append(db, 4, 4)
    with pytest.raises(StoreFailed, match="no space"):
        db.entries(1, 1, 3, 1000)
    after = db.crash(power=False, chance=chance())
    append(after, 4, 4)
    assert after.last_index(1) == 4


def test_the_observer_is_told_of_each_save_once_it_is_stored_also_after_a_crash() -> None:
    db = one_replica()
    seen: list[tuple[int, int]] = []
    stores = [db]
    db.observer = lambda shard, save: seen.append((save.sequence, stores[-1].last_index(shard)))
    db.save([(1, Save(1, None, None, 0, run(1, 2))), (1, Save(2, None, None, 0, run(3, 3)))])
    db.save([(1, Save(3, HardState(0, 0, 1)))])  # nothing to be stored
    stores.append(db.crash(power=True, chance=chance()))
    stores[-1].save([(1, Save(4, HardState(2, 0, 0), sync_hard_state=True))])
    assert seen == [(1, 2), (2, 3), (4, 3)]


def test_a_damaged_replica_is_corrupt_until_it_is_removed() -> None:
    db = one_replica()
    append(db, 1, 3)
    db.damage(1)
    db = db.crash(power=False, chance=chance())
    reads: list[Callable[[], object]] = [lambda: db.load(1, 0), lambda: db.entries(1, 1, 3, 100)]
    for read in reads:
        with pytest.raises(Corrupt, match="replica 1 of shard 1 is damaged") as caught:
            read()
        assert caught.value.shard == 1
    db.remove_replica(1, 1)
    db.create_replica(1, 2, None)
    assert db.load(1, 0) == Boot()


# --- data.db ---------------------------------------------------------------------------


def flush(db: DataDatabase, at: Applied, model: StateModel) -> Applied:
    """Flush one more change: some rows and a session set, others deleted."""
    index = at.index + 1
    new, old = b"k%d" % index, b"k%d" % (index - 2)
    model.rows[new] = row(new, index, b"v")
    model.sessions[index] = b"s"
    model.rows.pop(old, None)
    model.sessions.pop(index - 2, None)
    at = attrs.evolve(at, index=index, state_hash=model.state_hash)
    rows, sessions = {new: model.rows[new], old: None}, [(index, b"s"), (index - 2, None)]
    db.flush([ShardFlush(at, rows, sessions)])
    return at


def check_whole(db: DataDatabase, shard: int = 1) -> Applied:
    """The rows must be those that belong to how far the shard is said to be."""
    at = db.applied()[shard]
    model = StateModel(dict(scanned(db, at.generation, None, 1000)))
    model.sessions = dict(db.scan_sessions(at.generation, -1, 1000))
    assert model.state_hash == at.state_hash, "a transaction is there in part"
    return at


def test_a_power_cut_takes_whole_flushes_from_the_end_up_to_the_checkpoint() -> None:
    ends = set()
    for seed in SEEDS:
        db = MemoryDataDatabase()
        model = StateModel()
        at = applied(1, db.create_generation(), 0)
        for number in range(6):
            at = flush(db, at, model)
            if number == 2:
                assert db.checkpoint()
        ends.add(check_whole(db.crash(power=True, chance=chance(seed))).index)
    assert ends == {3, 4, 5, 6}


def test_a_crash_of_the_process_alone_takes_no_flush() -> None:
    db = MemoryDataDatabase()
    model = StateModel()
    at = flush(db, applied(1, db.create_generation(), 0), model)
    after = db.crash(power=False, chance=chance())
    assert check_whole(after) == at
    with pytest.raises(StoreFailed, match="has crashed"):
        db.get(at.generation, b"k1")


def test_after_a_restart_the_power_takes_nothing_of_an_earlier_life() -> None:
    for seed in SEEDS:
        db = MemoryDataDatabase()
        at, _ = fill(db, 1, 20)
        db = db.crash(power=False, chance=chance()).crash(power=True, chance=chance(seed))
        assert db.applied() == {1: at}


def test_an_installed_snapshot_is_durable_with_all_that_came_before() -> None:
    for seed in SEEDS:
        db = MemoryDataDatabase()
        other, _ = fill(db, 2, 20)
        generation = db.create_generation()
        db.write_rows(generation, [(b"k", row(b"k", 9, b"v"))])
        db.install(applied(1, generation, 99))
        after = db.crash(power=True, chance=chance(seed))
        assert after.applied() == {1: applied(1, generation, 99), 2: other}
        assert after.get(generation, b"k") == row(b"k", 9, b"v")


def test_a_sweep_that_is_lost_brings_its_rows_back() -> None:
    outcomes = set()
    for seed in SEEDS:
        db = MemoryDataDatabase()
        at, model = fill(db, 1, 30)
        db.checkpoint()
        db.drop(1)
        while db.sweep(10):
            pass
        after = db.crash(power=True, chance=chance(seed))
        outcomes.add(1 in after.applied())
        if 1 in after.applied():
            assert scanned(after, at.generation, None, 100) == model.items()
        else:
            while after.sweep(10):
                pass
            assert scanned(after, at.generation, None, 100) == []
        assert after.create_generation() > at.generation
    assert outcomes == {True, False}


def test_a_transfer_that_lost_chunks_to_a_power_cut_goes_on_where_it_is() -> None:
    starts = set()
    for seed in SEEDS:
        source, db = MemoryDataDatabase(), MemoryDataDatabase()
        at, model = fill(source, 1, 30)
        reader = MemorySnapshotReader(source, at)
        writer = MemorySnapshotWriter(db, at)
        writer.begin(b"t")
        for _ in range(4):
            writer.write(reader.next_chunk(500))
        db = db.crash(power=True, chance=chance(seed))
        writer = MemorySnapshotWriter(db, at)
        starts.add(writer.begin(b"t"))
        reader.seek(writer.next_chunk)
        while True:
            chunk = reader.next_chunk(500)
            writer.write(chunk)
            if chunk.last:
                break
        generation = writer.finish()
        after = db.crash(power=True, chance=chance(seed))
        assert after.received(generation) == writer.applied
        after.install(writer.applied)
        assert check_whole(after).state_hash == model.state_hash
    assert starts == {0, 1, 2, 3, 4}


def test_an_open_snapshot_reader_holds_checkpoints_back_until_it_is_closed() -> None:
    db = MemoryDataDatabase()
    at, _ = fill(db, 1, 10)
    reader = MemorySnapshotReader(db, at)
    assert db.hold_checkpoints == 1
    fill(db, 2, 10)
    assert db.checkpoint() is False
    reader.close()
    reader.close()
    assert (db.hold_checkpoints, db.checkpoint()) == (0, True)


def test_a_failing_data_db_stores_nothing_of_the_write_and_is_not_asked_again() -> None:
    db = MemoryDataDatabase()
    at, _ = fill(db, 1, 10)
    db.fail_with = StoreFailed("an I/O error")
    with pytest.raises(StoreFailed, match="an I/O error"):
        fill(db, 2, 10)
    refused: list[Callable[[], object]] = [
        lambda: db.get(1, b"k"), lambda: db.stamp(1, b"k"), lambda: scanned(db, 1, None, 1),
        db.applied, db.checkpoint, lambda: db.sweep(1),
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(StoreFailed, match="an I/O error"):
            call()
    assert db.crash(power=False, chance=chance()).applied() == {1: at}


def test_a_transaction_that_is_broken_off_leaves_nothing_behind() -> None:
    db = MemoryDataDatabase()
    at = flush(db, applied(1, db.create_generation(), 0), StateModel())
    bad = applied(2, 0, 1)
    db.install(attrs.evolve(bad, generation=at.generation + 5))
    newer = attrs.evolve(at, index=9)
    with pytest.raises(AssertionError):
        db.flush([ShardFlush(newer, {b"x": row(b"x", 9, b"")}, [(3, b"")]), ShardFlush(bad)])
    after = db.crash(power=False, chance=chance())
    assert check_whole(after) == at


def test_a_damaged_row_is_corrupt_as_in_the_real_one_and_heals_when_it_is_written(
    tmp_path: Path,
) -> None:
    real, memory = DataDatabase.open(tmp_path / "data.db"), MemoryDataDatabase(tmp_path / "data.db")
    for db in (real, memory):
        at, model = fill(db, 3, 20)
    key = model.items()[5][0]
    damage(real.path, f"UPDATE kv SET value=x'00' WHERE key=x'{key.hex()}'")
    memory.corrupt_keys.add((at.generation, key))
    for db in (real, memory):
        for read in (db.get, lambda g, _, db=db: scanned(db, g, None, 100)):
            with pytest.raises(Corrupt, match=r"shard 3 is damaged .* not match its digest") as e:
                read(at.generation, key)
            assert e.value.shard == 3
        assert scanned(db, at.generation, key, 100) == model.items()[6:]
        stamp = db.stamp(at.generation, key)
        assert stamp is not None
        assert stamp.digest == model.rows[key].digest
        db.flush([ShardFlush(at, {key: model.rows[key]})])
        assert db.get(at.generation, key) == model.rows[key]
    real.close()


def test_a_row_that_sqlite_cannot_read_is_corrupt_for_whoever_asks() -> None:
    db = MemoryDataDatabase()
    at, model = fill(db, 3, 20)
    key = model.items()[5][0]
    db.unreadable_keys.add((at.generation, key))
    reader = MemorySnapshotReader(db, at)
    reads: list[Callable[[], object]] = [
        lambda: db.get(at.generation, key), lambda: db.stamp(at.generation, key),
        lambda: scanned(db, at.generation, None, 100), lambda: reader.next_chunk(1 << 20),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(Corrupt, match="malformed") as caught:
            read()
        assert caught.value.shard == 3
    assert db.get(at.generation, model.items()[6][0]) == model.items()[6][1]


def test_a_shard_whose_applied_row_is_damaged_is_left_out_by_the_next_start() -> None:
    db = MemoryDataDatabase()
    fill(db, 1, 10)
    at, _ = fill(db, 2, 10)
    db.damage_applied(1)
    db = db.crash(power=False, chance=chance())
    assert (db.applied(), list(db.damaged)) == ({2: at}, [1])
    assert db.sweep(1000) == 11
    db.drop(1)
    assert db.crash(power=False, chance=chance()).damaged == {}


def test_a_store_that_was_closed_cleanly_lost_nothing_and_opens_again() -> None:
    for seed in SEEDS:
        data, raft = MemoryDataDatabase(), one_replica()
        at, _ = fill(data, 1, 10)
        raft.lazy = True
        append(raft, 1, 3)
        data.close()
        raft.close()
        with pytest.raises(StoreFailed, match="closed"):
            data.applied()
        with pytest.raises(StoreFailed, match="closed"):
            raft.load(1, 0)
        assert data.crash(power=True, chance=chance(seed)).applied() == {1: at}
        assert raft.crash(power=True, chance=chance(seed)).last_index(1) == 3
