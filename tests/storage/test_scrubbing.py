"""Reading everything once: each row in its turn, and what hides from readers is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt
from tests.storage.state import fill, row

ALL = 1 << 20
PAGE_BYTES = 4096


@contextmanager
def filled(path: Path) -> Iterator[tuple[DataDatabase, int, list[bytes]]]:
    """A store of 300 rows, their generation, and their keys."""
    with closing(DataDatabase.open(path)) as db:
        at, model = fill(db, 1)
        db.checkpoint()
        yield db, at.generation, sorted(model.rows)


def leaf_of(path: Path, owner: str, key: bytes) -> int:
    """Where the key is in the leaf page of an index or a table: a place in the file."""
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute(
            "SELECT pageno FROM dbstat WHERE name=? AND pagetype='leaf'", (owner,)
        ).fetchall()
    content = path.read_bytes()
    for (page,) in pages:
        at = content.find(key, (page - 1) * PAGE_BYTES, page * PAGE_BYTES)
        if at >= 0:
            return at
    raise AssertionError(f"{owner} has no {key!r}")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_every_row_is_read_once_a_slice_at_a_time(tmp_path: Path) -> None:
    with filled(tmp_path / "data.db") as (db, _, keys):
        behind, slices = 0, []
        while True:
            found = db.scrub(behind, 70)
            slices.append(found.rows)
            behind = found.id_last
            assert not found.unsound
            if found.id_last >= found.id_max:
                break
        assert slices == [70, 70, 70, 70, 20]
        assert sum(slices) == len(keys)


def test_of_large_rows_a_slice_has_few(tmp_path: Path) -> None:
    with closing(DataDatabase.open(tmp_path / "data.db")) as db:
        generation = db.create_generation()
        value = bytes(1 << 20)
        keys = [b"%d" % number for number in range(8)]
        db.write_rows(generation, [(key, row(key, 1, value)) for key in keys])
        first = db.scrub(0, 100)
        assert (first.rows, db.scrub(first.id_last, 100).rows) == (4, 4)


def test_nothing_is_read_of_nothing(tmp_path: Path) -> None:
    with closing(DataDatabase.open(tmp_path / "data.db")) as db:
        found = db.scrub(0, 100)
        assert (found.rows, found.id_last, found.id_max) == (0, 0, 0)


def test_a_key_that_the_index_has_lost_is_found(tmp_path: Path) -> None:
    """To a reader it is absent: that no digest can tell."""
    path = tmp_path / "data.db"
    with filled(path) as (_, generation, keys):
        lost = keys[100]
    flip(path, leaf_of(path, "kv_key", lost) + len(lost) - 1)
    with closing(DataDatabase.open(path)) as db:
        assert db.get(generation, lost) is None
        assert db.scrub(0, ALL).unsound == ((generation, lost),)


@pytest.mark.parametrize("index", ["kv_ends", "kv_lease"])
def test_a_key_that_would_outlive_its_end_is_found(tmp_path: Path, index: str) -> None:
    path = tmp_path / "data.db"
    with filled(path) as (db, generation, _):
        ending = row(b"ends", 1, b"v", None, 1 << 41, 6)
        db.write_rows(generation, [(b"ends", ending)])
        assert db.scrub(0, ALL).unsound == ()
    if index == "kv_ends":
        flip(path, leaf_of(path, index, b"ends") + 2)
    else:
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT pageno FROM dbstat WHERE name=?"
            ((page,),) = connection.execute(query, (index,)).fetchall()
        content = bytearray(path.read_bytes())
        content[page * PAGE_BYTES - 1] ^= 4  # the number of the row, the last that was put there
        path.write_bytes(content)
    with closing(DataDatabase.open(path)) as db:
        assert db.get(generation, b"ends") == ending
        assert db.scrub(0, ALL).unsound == ((generation, b"ends"),)


def test_a_row_that_does_not_match_its_digest_is_found(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with filled(path) as (_, generation, keys):
        pass
    flip(path, leaf_of(path, "kv", keys[7]) + len(keys[7]) + 5)  # a byte of its value
    with closing(DataDatabase.open(path)) as db:
        assert db.scrub(0, ALL).unsound == ((generation, keys[7]),)


def test_a_page_of_the_table_that_cannot_be_read_is_nobody_s(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with filled(path) as (_, _, keys):
        pass
    page = leaf_of(path, "kv", keys[7]) // PAGE_BYTES
    content = bytearray(path.read_bytes())
    content[page * PAGE_BYTES] = 99  # no kind of page
    path.write_bytes(content)
    with closing(DataDatabase.open(path)) as db:
        with pytest.raises(Corrupt) as caught:
            db.scrub(0, ALL)
        assert caught.value.shard is None
        assert db.applied(), "the store is of use for all else"


def test_a_page_of_the_index_that_cannot_be_read_is_laid_to_those_whose_keys_it_has(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data.db"
    with filled(path) as (_, generation, keys):
        pass
    page = leaf_of(path, "kv_key", keys[7]) // PAGE_BYTES
    content = bytearray(path.read_bytes())
    content[page * PAGE_BYTES] = 99
    path.write_bytes(content)
    with closing(DataDatabase.open(path)) as db:
        unsound = db.scrub(0, ALL).unsound
        assert (generation, keys[7]) in unsound
        assert 1 < len(unsound) < len(keys)
