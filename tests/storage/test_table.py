"""One shard's table: memtable, flushing rows, cache and SQLite read as one dict."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from krita.ring import token
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.rows import Row, ShardFlush, Stamp
from kritad.storage.table import ROW_OVERHEAD_BYTES, Table
from tests.storage.state import applied, row


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(tmp_path / "data.db")
    yield database
    database.close()


@pytest.fixture
def table(db: DataDatabase) -> Table:
    return Table(db, db.create_generation(), RowCache(1 << 20))


def flush(db: DataDatabase, table: Table, index: int = 1) -> None:
    db.flush([ShardFlush(applied(1, table.generation, index), table.freeze())])
    table.flushed()


def test_a_key_is_seen_at_every_stage_of_its_flush(db: DataDatabase, table: Table) -> None:
    stored = row(b"k", 1, b"v")
    table.put(b"k", stored)
    assert table.get(b"k") is stored
    rows = table.freeze()
    assert table.get(b"k") is stored
    db.flush([ShardFlush(applied(1, table.generation), rows)])
    assert table.get(b"k") is stored
    table.flushed()
    assert table.get(b"k") == stored
    assert table.get(b"k") == stored  # now from the cache


def test_a_delete_hides_the_key_at_every_stage_of_its_flush(db: DataDatabase, table: Table) -> None:
    table.put(b"k", row(b"k", 1, b"v"))
    flush(db, table)
    assert table.get(b"k") is not None  # fills the cache
    table.delete(b"k")
    assert table.get(b"k") is None
    rows = table.freeze()
    assert rows == {b"k": None}
    assert table.get(b"k") is None
    db.flush([ShardFlush(applied(1, table.generation, 2), rows)])
    table.flushed()
    assert table.get(b"k") is None


def test_a_write_during_a_flush_wins_over_the_row_being_flushed(
    db: DataDatabase, table: Table
) -> None:
    table.put(b"k", row(b"k", 1, b"old"))
    rows = table.freeze()
    table.put(b"k", row(b"k", 2, b"new"))
    db.flush([ShardFlush(applied(1, table.generation), rows)])
    table.flushed()
    found = table.get(b"k")
    assert found is not None
    assert found.value == b"new"
    assert table.freeze() == {b"k": found}


def test_a_cached_row_is_never_served_after_a_newer_one_was_flushed(
    db: DataDatabase, table: Table
) -> None:
    table.put(b"k", row(b"k", 1, b"old"))
    flush(db, table)
    table.get(b"k")
    table.put(b"k", row(b"k", 2, b"new"))
    flush(db, table, 2)
    found = table.get(b"k")
    assert found is not None
    assert found.value == b"new"


def test_freezing_twice_without_a_flush_between_is_our_bug(table: Table) -> None:
    table.freeze()
    with pytest.raises(AssertionError, match="before flushed"):
        table.freeze()


def test_size_counts_each_key_once_and_starts_again_with_a_freeze(table: Table) -> None:
    assert table.size_bytes == 0
    table.put(b"key", row(b"key", 1, bytes(100)))
    table.put(b"key", row(b"key", 2, bytes(40)))
    assert table.size_bytes == ROW_OVERHEAD_BYTES + 3 + 40
    table.delete(b"key")
    assert table.size_bytes == ROW_OVERHEAD_BYTES + 3
    table.put(b"key", row(b"key", 3, bytes(10)))
    assert table.size_bytes == ROW_OVERHEAD_BYTES + 13
    table.freeze()
    assert table.size_bytes == 0


@pytest.mark.parametrize("seed", range(5))
def test_reads_and_scans_equal_a_plain_dict_whatever_is_written_and_flushed(
    db: DataDatabase, table: Table, seed: int
) -> None:
    chance = random.Random(seed)
    model: dict[bytes, Row] = {}
    keys = [b"k%03d" % number for number in range(120)]
    frozen: Mapping[bytes, Row | None] | None = None
    for step in range(600):
        key = chance.choice(keys)
        if chance.random() < 0.4:
            table.delete(key)
            model.pop(key, None)
        else:
            stored = row(key, step + 1, chance.randbytes(5))
            table.put(key, stored)
            model[key] = stored
        if chance.random() < 0.03 and frozen is None:
            frozen = table.freeze()
        elif chance.random() < 0.05 and frozen is not None:
            db.flush([ShardFlush(applied(1, table.generation, step + 1), frozen)])
            table.flushed()
            frozen = None
        other = chance.choice(keys)
        assert table.get(other) == model.get(other)
        if step % 20 == 0:
            after = chance.choice([None, *keys])
            limit = chance.choice([1, 7, 80, 1000])
            expected = sorted(item for item in model.items() if after is None or item[0] > after)
            assert table.scan(after, limit) == expected[:limit]


def test_the_cache_keeps_to_its_bound_and_drops_what_was_used_least_recently() -> None:
    cache = RowCache(10_000)
    for number in range(100):
        key = b"%d" % number
        cache.put(1, key, row(key, 1, bytes(500)))
        cache.get(1, b"0")
        assert cache.size_bytes <= 10_000
    assert cache.get(1, b"0") is not None, "the key used all the time was dropped"
    assert cache.get(1, b"99") is not None
    assert cache.get(1, b"1") is None


def test_the_cache_tells_generations_apart_and_forgets_exactly() -> None:
    cache = RowCache(10_000)
    cache.put(1, b"k", row(b"k", 1, b"one"))
    cache.put(2, b"k", row(b"k", 1, b"two"))
    cache.put(2, b"k", row(b"k", 2, b"three"))
    cache.discard(1, b"k")
    assert cache.get(1, b"k") is None
    found = cache.get(2, b"k")
    assert found is not None
    assert found.value == b"three"
    cache.discard(2, b"k")
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_one_huge_row_does_not_empty_the_cache() -> None:
    cache = RowCache(10_000)
    cache.put(1, b"k", row(b"k", 1, b"v"))
    cache.put(1, b"huge", row(b"huge", 1, bytes(9_000)))
    assert cache.get(1, b"k") is not None
    assert cache.get(1, b"huge") is None


def test_stamps_fetched_together_are_those_that_are_read_one_by_one(
    db: DataDatabase, table: Table
) -> None:
    keys = [b"%d" % number for number in range(40)]  # more than one statement takes
    for key in keys[::2]:
        table.put(key, row(key, 7, b"v"))
    flush(db, table)
    expected = {key: db.stamp(table.generation, key) for key in keys}
    fresh = Table(db, table.generation, RowCache(0))
    fresh.fetch(keys)
    assert {key: fresh.stamp(key) for key in keys} == expected
    assert None in expected.values()


def test_a_stamp_is_read_once_however_often_a_write_asks(
    db: DataDatabase, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.put(b"k", row(b"k", 1, b"v"))
    flush(db, table)
    table = Table(db, table.generation, RowCache(0))
    stamp, absent = table.stamp(b"k"), table.stamp(b"absent")
    monkeypatch.setattr(db, "stamp", None)
    assert (table.stamp(b"k"), table.stamp(b"absent")) == (stamp, absent)


@pytest.mark.parametrize("together", [True, False])
def test_a_fetched_stamp_is_not_believed_after_a_write_of_the_key(
    db: DataDatabase, table: Table, together: bool
) -> None:
    table = Table(db, table.generation, RowCache(0))
    if together:
        table.fetch([b"k"])
    else:
        table.stamp(b"k")
    written = row(b"k", 2, b"v")
    table.put(b"k", written)
    assert table.stamp(b"k") is written
    rows = table.freeze()
    assert table.stamp(b"k") is written
    db.flush([ShardFlush(applied(1, table.generation), rows)])
    table.flushed()
    assert table.stamp(b"k") == Stamp(written.revision, written.digest, 1)


def test_what_memory_holds_is_not_fetched_from_the_database(
    db: DataDatabase, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    read = db.stamps

    def stamps(
        generation: int, keys: Sequence[bytes], shard: int | None = None
    ) -> dict[bytes, Stamp]:
        asked.extend(keys)
        return read(generation, keys, shard)

    monkeypatch.setattr(db, "stamps", stamps)
    held = row(b"held", 1, b"v")
    table.put(b"held", held)
    table.fetch([b"held", b"other"])
    assert asked == [b"other"]
    assert table.stamp(b"held") is held


def test_a_cut_table_and_its_other_half_know_how_much_they_hold(
    db: DataDatabase, table: Table
) -> None:
    keys = [b"%d" % number for number in range(40)]
    for key in keys[:30]:
        table.put(key, row(key, 1, bytes(50)))
    frozen = table.freeze()
    for key in keys[20:]:
        table.put(key, row(key, 2, bytes(70)))
    table.delete(keys[0])
    table.delete(keys[39])
    behind = table.cut(1 << 31, 9)
    for half, shard in ((table, None), (behind, 9)):
        assert half.shard == shard
        total = 0
        for key, held in half._active.items():
            lo, hi = half.arc
            assert lo <= token(key) < hi
            total += ROW_OVERHEAD_BYTES + len(key) + (0 if held is None else len(held.value))
        assert half.size_bytes == total > 0
    found = [key for half in (table, behind) for key, _ in half.scan(None, 100)]
    assert sorted(found) == sorted(keys[1:39])
    db.flush([ShardFlush(applied(1, table.generation), frozen)])
    table.flushed()
    again = [key for half in (table, behind) for key, _ in half.scan(None, 100)]
    assert again == found
