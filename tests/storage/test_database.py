"""Opening SQLite as Krita needs it: versions, modes, permissions, migrations."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kritad.storage.data_db import DataDatabase
from kritad.storage.database import execute_rows, open_reader, open_writer, version_warnings
from kritad.storage.errors import Corrupt, DirectoryRefused, StorageError, StoreFailed
from kritad.storage.migrations import DATA, RAFT, migrate
from kritad.storage.raft_db import RaftDatabase


def test_an_old_sqlite_is_warned_about_and_a_very_old_one_refused() -> None:
    assert version_warnings((3, 51, 3)) == []
    assert "3.51.3" in version_warnings((3, 51, 2))[0]
    assert "3.40.1" in version_warnings((3, 40, 1))[0]
    with pytest.raises(StorageError, match=r"3\.39\.4 is too old"):
        version_warnings((3, 39, 4))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 127, 128, 129, 300])
def test_every_row_is_inserted_once_whatever_their_number(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    rows = [(number, b"%d" % number) for number in range(count)]
    execute_rows(connection, "INSERT INTO t", rows)
    assert connection.execute("SELECT a, b FROM t ORDER BY a").fetchall() == rows
    connection.close()


def test_a_file_system_that_cannot_keep_a_wal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own way of files without shared memory: it answers, and goes on otherwise."""
    connect = sqlite3.connect

    def without_shared_memory(path: Path, **settings: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = connect(f"file:{path}?vfs=unix-none", uri=True, **settings)
        return opened

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    for database in (RaftDatabase, DataDatabase):
        with pytest.raises(DirectoryRefused, match="cannot have a write-ahead log"):
            database.open(tmp_path / "x.db")


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    RaftDatabase.open(tmp_path / "raft.db").close()
    reader = open_reader(tmp_path / "raft.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM log")
    reader.close()


def test_database_files_are_readable_by_us_alone(tmp_path: Path) -> None:
    raft, data = RaftDatabase.open(tmp_path / "raft.db"), DataDatabase.open(tmp_path / "data.db")
    raft.initialise(b"", 0, b"u" * 16)
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name
    raft.close()
    data.close()


def test_the_log_is_synced_at_every_commit_and_checkpointed_by_us_alone(tmp_path: Path) -> None:
    raft, data = RaftDatabase.open(tmp_path / "raft.db"), DataDatabase.open(tmp_path / "data.db")
    for database, synchronous in ((raft, 2), (data, 1)):
        for pragma, value in (
            ("synchronous", synchronous),
            ("wal_autocheckpoint", 0),
            ("secure_delete", 0),
            ("journal_mode", "wal"),
        ):
            assert database._writer.execute(f"PRAGMA {pragma}").fetchone() == (value,)
        database.close()


def test_a_file_that_is_damaged_as_a_whole_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(Corrupt, match=r"move the data directory away and start with --join_ip"):
        open_writer(path, "NORMAL")


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"missing/raft\.db"):
        RaftDatabase.open(tmp_path / "missing" / "raft.db")


@pytest.mark.parametrize("schema", [RAFT, DATA])
def test_migrating_twice_does_nothing_the_second_time(tmp_path: Path, schema: object) -> None:
    chosen = RAFT if schema is RAFT else DATA
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    assert migrate(connection, tmp_path / "x.db", chosen) == chosen.version
    assert migrate(connection, tmp_path / "x.db", chosen) == 0
    connection.close()


def test_opening_an_existing_store_does_not_import_sqlite_utils(tmp_path: Path) -> None:
    RaftDatabase.open(tmp_path / "raft.db").close()
    DataDatabase.open(tmp_path / "data.db").close()
    code = (
        "import sys; from pathlib import Path;"
        "from kritad.storage.raft_db import RaftDatabase;"
        "from kritad.storage.data_db import DataDatabase;"
        "RaftDatabase.open(Path(sys.argv[1]) / 'raft.db').close();"
        "DataDatabase.open(Path(sys.argv[1]) / 'data.db').close();"
        "sys.exit('sqlite_utils' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
