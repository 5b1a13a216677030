"""Looking into a store that no kritad is using: what is in it, and whether it is whole.

For the command line and for tests, not for a running node. sqlite_utils is imported
here only when called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kritad.storage.data_db import DataDatabase
from kritad.storage.database import open_reader
from kritad.storage.errors import StorageError
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.snapshots import SnapshotReader

_VERIFY_BYTES = 1 << 20


def count_rows(path: Path) -> dict[str, int]:
    """Rows of each table of one file. Raises StoreFailed, Corrupt and sqlite3.Error.
    Reads the whole file."""
    from sqlite_utils import Database  # late: 144 ms

    with contextlib.closing(open_reader(path)) as connection:
        db = Database(connection, execute_plugins=False)
        return {name: db.table(name).count for name in db.table_names()}


def verify_store(raft_path: Path, data_path: Path) -> Iterator[StorageError]:
    """Every damage that can be found, as the errors a start would have raised.

    Checks the WAL of raft.db, every entry, every row and session against its digest, and
    each shard's state against its state hash. The files must not be in use.
    """
    try:
        data = DataDatabase.open(data_path)
    except StorageError as error:
        yield error
        return
    with contextlib.closing(data):
        applied = data.applied()
        for shard, problem in sorted(data.damaged.items()):
            yield StorageError(problem, f"shard {shard}")
        for at in applied.values():
            try:
                with contextlib.closing(SnapshotReader(data_path, at)) as reader:
                    while not reader.next_chunk(_VERIFY_BYTES).last:
                        pass
            except StorageError as error:
                yield error
    try:
        raft = RaftDatabase.open(raft_path)
    except StorageError as error:
        yield error
        return
    with contextlib.closing(raft):
        for row in raft.replicas():
            try:
                raft.load(row.shard, applied[row.shard].index if row.shard in applied else 0)
            except StorageError as error:
                yield error
