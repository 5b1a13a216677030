"""A shard's state on its way between two stores in memory: kritad/storage/snapshots.py
without SQLite.

Chunks, their checksums, positions and digests are the product's own code, inherited: a bug
planted there is here as well. Only where rows are read from, and where the progress
of a transfer is written down, is other.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator

import attrs

from kritad.storage.data_db import DataDatabase
from kritad.storage.data_reader import DataReader
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.places import stored_token
from kritad.storage.rows import Applied, Row
from kritad.storage.snapshots import SnapshotReader, SnapshotRefused, SnapshotWriter, _Position
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.data_tables import Receipt


class _Moment(DataReader):
    """The rows and sessions of one state as they were at one moment. O(n) to make."""

    def __init__(self, db: MemoryDataDatabase, applied: Applied) -> None:
        held = db.generation(applied.rows)
        self._db = db
        self._keys = held.sorted_keys()
        self._held = dict(held.rows)
        self._sessions = sorted(db.generation(applied.generation).sessions.items())

    def scan(
        self,
        generation: int,
        after: bytes | None,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
    ) -> Iterator[tuple[bytes, Row]]:
        """See DataReader.scan. Damage is found when a row is reached."""
        for key in self._keys[bisect_right(self._keys, after or b"") :]:
            if arc[0] <= stored_token(key) < arc[1]:
                self._db.check_row(generation, key, shard)
                yield key, self._held[key]

    def scan_sessions(
        self,
        generation: int,  # noqa: ARG002
        after: int,
        limit: int,
        shard: int | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[int, bytes]]:
        """See DataReader.scan_sessions."""
        assert limit < 0, "a stream is read to its end"
        for session, blob in self._sessions:
            if session > after:
                yield session, blob


class MemorySnapshotReader(SnapshotReader):
    """See SnapshotReader. Close it: while it is open, checkpoints wait."""

    def __init__(self, db: MemoryDataDatabase, applied: Applied) -> None:
        """Begin to read the state of ``applied``. Raises SnapshotRefused when the shard
        has moved to another generation, Corrupt when how far it is cannot be read."""
        found = db.applied_row(applied.shard)
        if found is None or found.generation != applied.generation:
            raise SnapshotRefused(
                f"generation {applied.generation} of shard {applied.shard} is gone"
            )
        self.applied = found
        self._path = db.path
        self._positions = [_Position()]
        self._number = 0
        self._stream = None
        self._ahead = []
        self._rows = _Moment(db, found)
        self._db = db
        self._reading = db.begin_read()

    def close(self) -> None:
        """Let checkpoints go on."""
        self._stream = None
        self._db.end_read(self._reading)


class MemorySnapshotWriter(SnapshotWriter):
    """See SnapshotWriter."""

    def __init__(self, db: DataDatabase, applied: Applied) -> None:
        assert isinstance(db, MemoryDataDatabase), db
        super().__init__(db, applied)
        self._memory = db

    def _take_up(self, connection: sqlite3.Connection) -> bool | None:  # noqa: ARG002
        known = self._memory.receipt(self.applied.shard)
        if known is None or known.transfer != self._transfer or not self._continues(known.applied):
            return None
        brought = known.applied
        self.applied = attrs.evolve(
            self.applied, generation=brought.generation, rows=brought.rows, cells=brought.cells
        )
        self._extent = Extent.decode(*brought.arc, brought.cells)
        self.next_chunk, self._count = known.next_chunk, known.count
        self._digest_sum, self._last_seen = known.digest_sum, known.complete
        return known.complete

    def _last_key(self, connection: sqlite3.Connection, generation: int) -> bytes:  # noqa: ARG002
        keys = self._memory.generation(generation).sorted_keys()
        return keys[-1] if keys else b""

    def _rows_behind(
        self,
        connection: sqlite3.Connection,  # noqa: ARG002
        generation: int,
        after: bytes,
    ) -> Iterator[tuple[bytes, Row]]:
        held = self._memory.generation(generation)
        keys = held.sorted_keys()
        for key in keys[bisect_right(keys, after) :]:
            self._memory.check_row(generation, key, self.applied.shard)
            yield key, held.rows[key]

    def abandon(self) -> None:
        """See SnapshotWriter.abandon."""
        with self._memory.transaction():
            self._memory.write_receipt(self.applied.shard, None)
            self._memory.hold(self.applied.shard, None)
            self._memory.keep(self.applied.shard, None)
            self._memory.release(self.applied.generation)

    def _note(self, connection: sqlite3.Connection, *, complete: bool) -> None:  # noqa: ARG002
        self.applied = attrs.evolve(self.applied, cells=self._extent.encode())
        receipt = Receipt(
            self.applied,
            self._transfer,
            self.next_chunk,
            self._count,
            self._digest_sum,
            complete,
        )
        self._memory.write_receipt(self.applied.shard, receipt)
