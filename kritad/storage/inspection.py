"""Looking into a store that no kritad is using: what is in it, and whether it is whole.

For the command line and for tests, not for a running node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError
from kritad.storage.extent import Extent
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.rows import Applied
from kritad.storage.snapshots import SnapshotReader

_VERIFY_BYTES = 1 << 20


def _verify_state(path: Path, at: Applied) -> None:
    """Read all of a shard's state. Raises Corrupt for what does not add up."""
    counted = Extent.decode(at.hash_lo, at.hash_hi, at.cells).emptied() if at.cells else None
    with contextlib.closing(SnapshotReader(path, at)) as reader:
        last = False
        while not last:
            chunk = reader.next_chunk(_VERIFY_BYTES)
            last = chunk.last
            for item in chunk.rows:
                match item:
                    case [bytes(key), _, bytes(value), *_, int(digest)] if counted is not None:
                        counted.count_row(counted.cell_of(key), key, digest, len(value))
    if counted is not None and counted.encode() != at.cells:
        raise Corrupt(
            at.shard,
            f"the cells of shard {at.shard} in {path} are not what its rows add up to",
            REBUILD_HINT,
        )


def verify_store(raft_path: Path, data_path: Path) -> Iterator[StorageError]:
    """Every damage that can be found, as the errors a start would have raised.

    Checks the WAL of raft.db, every entry, every row and session against its digest, and
    each shard's state against its state hash and its cells. The files must not be in use.
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
                _verify_state(data_path, at)
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
