"""A data.db of version 2, which knew no deadlines and no rows of the store's own."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import attrs
import pytest

from kritad.storage import data_reader
from kritad.storage.data_db import DataDatabase
from kritad.storage.database import open_writer
from kritad.storage.digests import row_digest
from kritad.storage.errors import FormatUnknown
from kritad.storage.extent import WHOLE_RING
from kritad.storage.migrations import DATA, migrate
from kritad.storage.rows import Row, ShardFlush
from tests.storage.state import applied, row, scanned

VERSION_2 = attrs.evolve(DATA, steps=DATA.steps[:2])
ROWS = {key: row(key, 3, b"value", "text/plain") for key in (b"a", b"b{c}", b"\xfe\xff")}


def store_of_version_2(path: Path, rows: dict[bytes, Row]) -> None:
    with contextlib.closing(open_writer(path, "NORMAL")) as connection:
        assert migrate(connection, path, VERSION_2) == 2
        connection.execute("INSERT INTO generation VALUES (1)")
        for key, one in rows.items():
            connection.execute(
                "INSERT INTO kv (generation, key, revision, value, content_type, digest)"
                " VALUES (1,?,?,?,?,?)",
                (key, one.revision, one.value, one.content_type, one.digest),
            )


def test_rows_of_version_2_last_for_ever_and_match_their_digests(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    store_of_version_2(path, ROWS)
    with contextlib.closing(DataDatabase.open(path)) as db:
        assert scanned(db, 1, None, 10) == sorted(ROWS.items())
        assert db.ending(1, WHOLE_RING, 0, 99, 9) == ([], 99)
        assert db.leased(1, WHOLE_RING) == []
        digest = row_digest(b"a", 4, b"v", None, 50, 6)
        db.flush([ShardFlush(applied(1, 1), {b"a": Row(4, b"v", None, digest, 50, 6)})])
        assert db.ending(1, WHOLE_RING, 0, 99, 9) == ([(50, b"a")], 99)
        assert db.leased(1, WHOLE_RING) == [(b"a", 6)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_rows_that_end_are_found_without_reading_any_others(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    store_of_version_2(path, ROWS)
    DataDatabase.open(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for query, values in (
            (data_reader._ENDS, (1, 0, 9)),
            (data_reader._NTH_END, (1, 0, 9, 5)),
            (data_reader._LEASED, (1,)),
        ):
            (plan,) = connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
            assert plan[3].startswith("SEARCH kv USING"), plan
            index = "INDEX kv_lease" if "lease" in query else "COVERING INDEX kv_ends"
            assert f"{index} (generation=?" in plan[3], plan


def test_deadlines_of_version_3_are_found_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    rows = {b"k%d" % n: Row(1, b"v", None, n, expires_ms=90 - n) for n in range(9)}
    store_of_version_2(path, {})
    with contextlib.closing(open_writer(path, "NORMAL")) as connection:
        assert migrate(connection, path, attrs.evolve(DATA, steps=DATA.steps[:3])) == 1
        connection.executemany(
            "INSERT INTO kv (generation, key, revision, value, digest, expires_ms)"
            " VALUES (1,?,1,x'',0,?)",
            [(key, one.expires_ms) for key, one in rows.items()],
        )
    with contextlib.closing(DataDatabase.open(path)) as db:
        assert db.ending(1, WHOLE_RING, 82, 99, 3) == (
            [(83, b"k7"), (84, b"k6"), (85, b"k5")],
            85,
        )


@pytest.mark.parametrize("key", [b"\xff", b"\xffhistory", b"\xff\xff\xff"])
def test_a_key_that_would_be_taken_for_the_store_s_own_stops_the_upgrade(
    tmp_path: Path, key: bytes
) -> None:
    """It would be looked for at another place of the ring, and swept away as nobody's."""
    path = tmp_path / "data.db"
    store_of_version_2(path, ROWS | {key: row(key, 3, b"v")})
    with pytest.raises(FormatUnknown, match="0xFF"):
        DataDatabase.open(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,), "as it was"
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(kv)")]
        assert "lease" not in columns


def test_a_migrated_file_is_not_migrated_again(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    store_of_version_2(path, ROWS)
    DataDatabase.open(path).close()
    with contextlib.closing(open_writer(path, "NORMAL")) as connection:
        assert migrate(connection, path, DATA) == 0
