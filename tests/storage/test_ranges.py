"""Ranges of a table: memtables and SQLite read as one sorted dict, in both directions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from krita.ring import token
from kritad.storage import table as table_module
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import row_digest
from kritad.storage.extent import WHOLE_RING, Arc
from kritad.storage.rows import Row, ShardFlush
from kritad.storage.table import Table
from tests.storage.state import applied, row
from tests.storage.test_table import flush


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(tmp_path / "data.db")
    yield database
    database.close()


@pytest.fixture
def table(db: DataDatabase) -> Table:
    return Table(db, db.create_generation(), RowCache(1 << 20))


class Ranges:
    """A table and the dict that it should equal, driven at random."""

    def __init__(self, db: DataDatabase, seed: int) -> None:
        self.db = db
        self.chance = random.Random(seed)
        self.table = Table(db, db.create_generation(), RowCache(1 << 12))
        self.model: dict[bytes, Row] = {}
        self.frozen: Mapping[bytes, Row | None] | None = None
        self.index = 1

    def write(self) -> None:
        key = b"k%03d" % self.chance.randrange(200)
        self.index += 1
        if self.chance.random() < 0.3:
            self.table.delete(key)
            self.model.pop(key, None)
        else:
            self.model[key] = row(key, self.index, b"v" * self.chance.randrange(300))
            self.table.put(key, self.model[key])

    def flush_begins_or_ends(self) -> None:
        if self.frozen is None:
            self.frozen = self.table.freeze()
        else:
            at = applied(1, self.table.generation, self.index)
            self.db.flush([ShardFlush(at, self.frozen)])
            self.table.flushed()
            self.frozen = None

    def check(self, arc: Arc = WHOLE_RING) -> None:
        start, stop = sorted(b"k%03d" % self.chance.randrange(201) for _ in range(2))
        bound = self.chance.choice([stop, None, b""])
        wanted = self.chance.choice([1, 3, 64])
        expected = [
            (key, one)
            for key, one in sorted(self.model.items())
            if start <= key and (bound is None or key < bound) and arc[0] <= token(key) < arc[1]
        ]
        assert list(self.table.between(start, bound, wanted=wanted)) == expected
        back = self.table.between(start, bound, reverse=True, wanted=wanted)
        assert list(back) == expected[::-1]
        for reverse in (False, True):
            keys = [key for key, there in self.table.keys(start, bound, reverse=reverse) if there]
            assert keys == [key for key, _ in (expected[::-1] if reverse else expected)]


@pytest.mark.parametrize("seed", range(6))
def test_ranges_equal_those_of_a_plain_dict_in_both_directions(
    db: DataDatabase, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "_SCAN_BYTES", 1_000)  # a few rows at a time
    ranges = Ranges(db, seed)
    for _ in range(150):
        for _ in range(ranges.chance.randrange(12)):
            ranges.write()
        if ranges.chance.random() < 0.3:
            ranges.flush_begins_or_ends()
        ranges.check()


@pytest.mark.parametrize("flushing", [False, True])
def test_ranges_of_a_cut_table_have_the_keys_of_its_own_arc(
    db: DataDatabase, flushing: bool
) -> None:
    ranges = Ranges(db, 1)
    for number in range(300):
        ranges.write()
        if number == 100:
            ranges.flush_begins_or_ends()
            ranges.flush_begins_or_ends()
            ranges.check()  # its keys are sorted from here on
    if flushing:
        ranges.flush_begins_or_ends()
        for _ in range(30):
            ranges.write()
    at = 1 << 31
    kept, behind = ranges.table, ranges.table.cut(at, 2)
    for _ in range(20):
        ranges.table = kept
        ranges.check((0, at))
        ranges.table = behind
        ranges.check((at, 1 << 32))


def test_one_row_that_is_wanted_does_not_read_the_others(db: DataDatabase, table: Table) -> None:
    for number in range(100):
        key = b"k%02d" % number
        table.put(key, row(key, 1, b"v"))
    flush(db, table)
    asked: list[int] = []
    between = db.between

    def counted(*args: Any, **more: Any) -> list[tuple[bytes, Row | None]]:
        found = between(*args, **more)
        asked.append(len(found))
        return found

    db.between = counted  # type: ignore[method-assign]
    assert next(table.between(b"k", None, wanted=1))[0] == b"k00"
    assert asked == [1]


def ending_row(key: bytes, expires_ms: int, lease: int = 0) -> Row:
    digest = row_digest(key, 1, b"v", None, expires_ms, lease)
    return Row(1, b"v", None, digest, expires_ms, lease)


def test_rows_that_end_by_themselves_are_found_again_by_their_arc(
    db: DataDatabase, table: Table
) -> None:
    keys = [b"k%d" % number for number in range(12)]
    for number, key in enumerate(keys):
        table.put(key, ending_row(key, number % 2 * 1000, number % 3))
    flush(db, table)
    for arc in (WHOLE_RING, (0, 1 << 31)):
        table.arc = arc
        ours = [(n, key) for n, key in enumerate(keys) if arc[0] <= token(key) < arc[1]]
        assert sorted(table.leased()) == sorted((key, n % 3) for n, key in ours if n % 3)
        ends, upto_ms = table.ending(0, 1000)
        assert (sorted(ends), upto_ms) == (sorted((1000, key) for n, key in ours if n % 2), 1000)
        assert table.ending(1000, 2000) == ([], 2000)


def test_what_ends_is_found_in_memory_and_in_data_db_with_the_newest_deadline(
    db: DataDatabase, table: Table
) -> None:
    for key in (b"stored", b"later", b"deleted", b"frozen", b"ends-no-more"):
        table.put(key, ending_row(key, 10))
    flush(db, table)
    table.put(b"frozen", ending_row(b"frozen", 12))
    table.put(b"ends-no-more", ending_row(b"ends-no-more", 0))
    table.put(b"twice", ending_row(b"twice", 13))
    table.freeze()
    table.put(b"later", ending_row(b"later", 30))
    table.put(b"twice", ending_row(b"twice", 14))
    table.put(b"new", ending_row(b"new", 15))
    table.delete(b"deleted")
    ends, _ = table.ending(0, 20)
    assert sorted(ends) == [(10, b"stored"), (12, b"frozen"), (14, b"twice"), (15, b"new")]
    assert table.ending(20, 40) == ([(30, b"later")], 40)


def test_of_very_many_rows_that_end_some_are_told_and_up_to_when(
    db: DataDatabase, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "_ENDING_ROWS", 3)
    for number in range(20):
        key = b"k%02d" % number
        table.put(key, ending_row(key, 100 + number // 5))
    flush(db, table)
    table.put(b"new", ending_row(b"new", 102))
    found: list[tuple[int, bytes]] = []
    after_ms, calls = 0, 0
    while after_ms < 200:
        ends, upto_ms = table.ending(after_ms, 200)
        assert all(after_ms < end_ms <= upto_ms for end_ms, _ in ends)
        found += ends
        after_ms, calls = upto_ms, calls + 1
    assert sorted(found) == sorted(
        [(102, b"new"), *((100 + n // 5, b"k%02d" % n) for n in range(20))]
    )
    assert calls == 5, "those of one time are told together"
