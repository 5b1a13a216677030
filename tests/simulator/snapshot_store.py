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
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.rows import Applied, Row
from kritad.storage.snapshots import SnapshotReader, SnapshotRefused, SnapshotWriter, _Position
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.data_tables import Receipt


class _Moment(DataReader):
    """The rows of one generation as they were at one moment. O(n) to make."""

    def __init__(self, db: MemoryDataDatabase, generation: int) -> None:
        held = db.generation(generation)
        self._db = db
        self._keys = held.sorted_keys()
        self._held = dict(held.rows)
        self._sessions = sorted(held.sessions.items())

    def scan(self, generation: int, after: bytes | None, limit: int) -> Iterator[tuple[bytes, Row]]:
        """See DataReader.scan. Damage is found when a row is reached."""
        assert limit < 0, "a stream is read to its end"
        for key in self._keys[bisect_right(self._keys, after or b"") :]:
            self._db.check_row(generation, key)
            yield key, self._held[key]

    def scan_sessions(self, generation: int, after: int, limit: int) -> Iterator[tuple[int, bytes]]:  # noqa: ARG002
        """See DataReader.scan_sessions."""
        assert limit < 0, "a stream is read to its end"
        for session, blob in self._sessions:
            if session > after:
                yield session, blob


class MemorySnapshotReader(SnapshotReader):
    """See SnapshotReader. Close it: while it is open, checkpoints wait."""

    def __init__(self, db: MemoryDataDatabase, applied: Applied) -> None:
        """Begin to read the generation of ``applied``. Raises SnapshotRefused when the shard
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
        self._rows = _Moment(db, applied.generation)
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

    def begin(self, transfer: bytes) -> int:
        """See SnapshotWriter.begin."""
        self._transfer = transfer
        wanted = self.applied
        with self._memory.transaction() as connection:
            known = self._memory.receipt(wanted.shard)
            if known is not None and self._is_same(known):
                generation, self.next_chunk = known.applied.generation, known.next_chunk
                self._count, self._digest_sum = known.count, known.digest_sum
            else:
                known = None
                generation = self._memory.insert_generation(connection)
                self.next_chunk = self._count = self._digest_sum = 0
            self._last_seen = complete = known is not None and known.complete
            self.applied = attrs.evolve(wanted, generation=generation)
            self._memory.hold(wanted.shard, generation)
            self._note(connection, complete=complete)
        return self.next_chunk

    def _is_same(self, known: Receipt) -> bool:
        """Whether that is the transfer which begins or goes on now."""
        brought, wanted = known.applied, self.applied
        return known.transfer == self._transfer and (
            (brought.index, brought.term, brought.state_hash)
            == (wanted.index, wanted.term, wanted.state_hash % HASH_MODULUS)
        )

    def abandon(self) -> None:
        """See SnapshotWriter.abandon."""
        with self._memory.transaction():
            self._memory.write_receipt(self.applied.shard, None)
            self._memory.hold(self.applied.shard, None)
            self._memory.release(self.applied.generation)

    def _note(self, connection: sqlite3.Connection, *, complete: bool) -> None:  # noqa: ARG002
        receipt = Receipt(
            self.applied,
            self._transfer,
            self.next_chunk,
            self._count,
            self._digest_sum,
            complete,
        )
        self._memory.write_receipt(self.applied.shard, receipt)
