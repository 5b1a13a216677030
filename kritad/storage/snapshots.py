"""A shard's state on its way to another replica: read in chunks, received in chunks.

What a chunk is, stands in snapshot_chunks.py. At the end the digests must add up to the
state hash the sender announced. Rows are those of the shard's arc; the receiver counts
anew what is in which cell of it, and refuses a row from elsewhere.

The sender reads the shard's generations in one read transaction, which is the state at one
applied index however long it takes; it holds back checkpoints of data.db for that
time, so the host sets it a deadline (raft.md B35).

The receiver writes into a generation of its own and notes in the same transaction
which chunk comes next, so that a transfer goes on after a restart of the receiver
(raft.md B33). Nothing of it is seen until DataDatabase.install.

A transfer that is begun anew (the sender was started again, or another one leads now) is of
another moment: the state has gone on. But most rows are as they were. So what the one
before has brought is kept, and a row that is there with the digest that the sender names
need not be sent: it is copied, and verified on the way as any other. What is kept is
forgotten when this node is started again.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import attrs

from kritad.storage.applied_rows import APPLIED_COLUMNS, applied_row, read_applied
from kritad.storage.data_db import DataDatabase
from kritad.storage.data_reader import NO_LIMIT, DataReader
from kritad.storage.database import execute_rows, failure, open_reader
from kritad.storage.digests import HASH_MODULUS, session_digest, to_signed
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError
from kritad.storage.extent import OUTSIDE, WHOLE_RING, Extent
from kritad.storage.rows import Applied, Row
from kritad.storage.snapshot_chunks import (
    SnapshotChunk,
    SnapshotRefused,
    chunk_crc,
    row_item,
    verify,
)

__all__ = ["SnapshotChunk", "SnapshotReader", "SnapshotRefused", "SnapshotWriter"]

_ITEM_BYTES = 32  # what an item adds to a chunk besides key, value or blob, about

_Item = tuple[list[object], int, int]  # as sent, its digest, its bytes in a chunk


@attrs.frozen
class _Position:
    """Where a chunk begins: behind this session and key, after so many items."""

    session: int = -(1 << 63)
    key: bytes | None = None  # None while sessions are being read
    count: int = 0
    digest_sum: int = 0


class SnapshotReader:
    """Streams one shard's state as of one moment. For one thread at a time; close() it."""

    _at_work = False  # on a chunk, just now
    _closed = False

    def __init__(self, path: Path, applied: Applied) -> None:
        """Begin to read the state of ``applied`` in the data.db at ``path``.

        ``self.applied`` is how far the state is, maybe farther than ``applied``: announce
        that. Raises SnapshotRefused when the shard has moved to another generation.
        """
        self._path = path
        self._connection = open_reader(path)
        self._positions = [_Position()]  # of every chunk so far, and of the next
        self._number = 0
        self._stream: Iterator[_Item] | None = None  # behind the chunk read last
        self._ahead: list[_Item] = []  # taken from it, and did not fit any more
        try:
            self._connection.execute("BEGIN")  # the SELECT fixes the moment
            query = f"SELECT {APPLIED_COLUMNS} FROM applied WHERE shard=?"
            found = self._connection.execute(query, (applied.shard,)).fetchall()
            if not found or found[0][2] != applied.generation:
                raise SnapshotRefused(
                    f"generation {applied.generation} of shard {applied.shard} is gone"
                )
            self.applied = read_applied(path, found[0])
        except sqlite3.Error as error:
            self._connection.close()
            raise failure(path, "read", error) from error
        except StorageError:
            self._connection.close()
            raise
        self._rows = DataReader(path, self._connection, {})

    def __repr__(self) -> str:
        at = self._positions[self._number]
        return f"<SnapshotReader {self.applied.shard} chunk={self._number} items={at.count}>"

    def close(self) -> None:
        """End the read transaction; when ``next_chunk`` is at work in another thread, as soon as
        that returns, which may be never."""
        self._closed = True
        if not self._at_work:
            self._stream = None  # first: it has a cursor open on the connection
            self._connection.close()

    def seek(self, number: int) -> None:
        """Go on from chunk ``number``, one that was read before or the next. For a receiver
        that lost some; one that is ahead of this reader begins at 0 again."""
        if not 0 <= number < len(self._positions):
            raise SnapshotRefused(f"chunk {number} of this transfer was never read")
        self._number = number
        self._stream, self._ahead = None, []

    def next_chunk(self, bytes_max: int) -> SnapshotChunk:
        """The next chunk of about ``bytes_max`` (at least one item). Raises Corrupt(shard) for
        a damaged row, and with the last chunk if the whole does not add up. ~6 µs a row."""
        self._at_work = True
        try:
            return self._next_chunk(bytes_max)
        finally:
            self._at_work = False
            if self._closed:
                self.close()

    def _next_chunk(self, bytes_max: int) -> SnapshotChunk:
        at = self._positions[self._number]
        items: list[list[object]] = []
        digests: list[int] = []
        size = 0
        if self._stream is None:
            self._stream = self._read(at)
        for item, digest, item_bytes in itertools.chain(self._ahead, self._stream):
            if items and size + item_bytes > bytes_max:
                self._ahead = [(item, digest, item_bytes)]
                break
            items.append(item)
            digests.append(digest)
            size += item_bytes
        else:
            self._ahead = []
        return self._finish(at, items, digests, last=not self._ahead)

    def _read(self, at: _Position) -> Iterator[_Item]:
        """Everything behind ``at``, in order."""
        applied, rows = self.applied, self._rows
        shard = applied.shard
        if at.key is None:
            sessions = rows.scan_sessions(applied.generation, at.session, NO_LIMIT, shard)
            for session, blob in sessions:
                size = _ITEM_BYTES + len(blob)
                yield [session, blob], session_digest(session, blob), size
        for key, row in rows.scan(applied.rows, at.key, applied.arc, shard):
            yield row_item(key, row), row.digest, _ITEM_BYTES + len(key) + len(row.value)

    def _finish(
        self, at: _Position, items: list[list[object]], digests: list[int], *, last: bool
    ) -> SnapshotChunk:
        """Make the chunk and note where the next one begins."""
        number = self._number
        behind = _behind(at, items, digests)
        if last and behind.digest_sum != self.applied.state_hash:
            raise Corrupt(
                self.applied.shard,
                f"the rows of shard {self.applied.shard} in {self._path} do not add up to its "
                f"state hash at index {self.applied.index}",
                REBUILD_HINT,
            )
        self._number += 1
        self._positions[self._number :] = [behind]
        return SnapshotChunk(number, items, chunk_crc(number, at.count, digests, last), last)


class SnapshotWriter:
    """Receives one shard's state. For the flusher thread.

    ``applied`` is what the sender announced, with this node's own replica id; its
    generations are not looked at, and of its cells only how wide they are. begin(), then
    write() what it asks for, then finish(), then DataDatabase.install(writer.applied) once
    raft.db has saved the snapshot.
    """

    def __init__(self, db: DataDatabase, applied: Applied) -> None:
        self._db = db
        self._transfer = b""
        self.applied = applied
        self.next_chunk = 0
        self.known_to = b""  # up to this key an earlier transfer has brought rows
        self.missing: list[int] = []  # of the last chunk: what would have to be sent whole
        self._count = 0
        self._digest_sum = 0
        self._last_seen = False
        self._found: tuple[int, dict[int, list[object]]] = (-1, {})  # for the chunk of that number
        self._extent = Extent.decode(applied.hash_lo, applied.hash_hi, applied.cells).emptied()

    def __repr__(self) -> str:
        return (
            f"<SnapshotWriter shard={self.applied.shard} index={self.applied.index}"
            f" generation={self.applied.generation} next_chunk={self.next_chunk}>"
        )

    def begin(self, transfer: bytes) -> int:
        """Take up the transfer of that id where it stopped, or begin it in a fresh generation
        (another transfer of this shard is given up). Returns the chunk to send next."""
        self._transfer = transfer
        with self._db.transaction() as connection:
            complete = self._take_up(connection)
            if complete is None:
                self._keep_earlier(connection)
                generation = self._db.insert_generation(connection)
                self.applied = attrs.evolve(self.applied, generation=generation, rows=generation)
                self.next_chunk = self._count = self._digest_sum = 0
                self._last_seen = False
                self._extent = self._extent.emptied()
            self._db.hold(self.applied.shard, self.applied.generation)
            self._note(connection, complete=bool(complete))
            kept = self._db.kept(self.applied.shard)
            self.known_to = b"" if kept is None else self._last_key(connection, kept)
        return self.next_chunk

    def _keep_earlier(self, connection: sqlite3.Connection) -> None:
        """Keep what earlier transfers have brought: of two, what has come further."""
        shard = self.applied.shard
        furthest = b""
        kept = None
        for generation in (self._db.receiving(shard), self._db.kept(shard)):
            last = b"" if generation is None else self._last_key(connection, generation)
            if last > furthest:
                furthest, kept = last, generation
        self._db.keep(shard, kept)

    def _last_key(self, connection: sqlite3.Connection, generation: int) -> bytes:
        """b"", which is no key, if there is none."""
        query = "SELECT max(key) FROM kv WHERE generation=?"
        found: bytes | None = connection.execute(query, (generation,)).fetchone()[0]
        return found or b""

    def _rows_behind(
        self, connection: sqlite3.Connection, generation: int, after: bytes
    ) -> Iterator[tuple[bytes, Row]]:
        reader = DataReader(self._db.path, connection, {})
        return reader.scan(generation, after, WHOLE_RING, self.applied.shard)

    def _take_up(self, connection: sqlite3.Connection) -> bool | None:
        """Go on with the transfer as it was noted; whether it is complete. None: there is
        no such transfer, or its note is damaged."""
        query = (
            "SELECT next_chunk, row_count, digest_sum, complete,"
            f" {APPLIED_COLUMNS} FROM receiving WHERE shard=? AND transfer=?"
        )
        found = connection.execute(query, (self.applied.shard, self._transfer)).fetchall()
        if not found:
            return None
        next_chunk, count, digest_sum, complete, *row = found[0]
        try:
            known = read_applied(self._db.path, tuple(row))
        except Corrupt:
            return None
        if not known.cells or not self._continues(known):
            return None  # without cells: from an older kritad, never counted
        self.applied = attrs.evolve(
            self.applied, generation=known.generation, rows=known.rows, cells=known.cells
        )
        self._extent = Extent.decode(*known.arc, known.cells)
        self.next_chunk, self._count = next_chunk, count
        self._digest_sum, self._last_seen = digest_sum % HASH_MODULUS, bool(complete)
        return bool(complete)

    def _continues(self, known: Applied) -> bool:
        """Whether what was noted is of the state that is wanted now."""
        names = "index", "term", "state_hash", "arc", "lineage"
        return all(getattr(known, name) == getattr(self.applied, name) for name in names)

    def write(self, chunk: SnapshotChunk) -> int:
        """Store ``chunk`` if it is the one that comes next. Returns the number of the chunk
        to send next, which is the same again for any other, and for one of which rows are
        ``missing`` here.

        Raises SnapshotRefused for a chunk whose content does not match its checksums.
        """
        self.missing = []
        if chunk.number != self.next_chunk or self._last_seen:
            return self.next_chunk
        if chunk.digests:
            if self._found[0] != chunk.number:
                self._found = chunk.number, self._find(chunk)
            chunk = chunk.completed(self._found[1])
            self.missing = [n for n, item in enumerate(chunk.rows) if isinstance(item, int)]
            if self.missing:
                return self.next_chunk
        rows, sessions, digests = verify(chunk, self._count)
        cells = [self._extent.cell_of(key) for key, _ in rows]
        if OUTSIDE in cells:
            raise SnapshotRefused(f"chunk {chunk.number} has a row from outside of the shard's arc")
        with self._db.transaction() as connection:
            self._db.put(self.applied.generation, rows, sessions)
            self.next_chunk += 1
            self._count += len(digests)
            self._digest_sum = (self._digest_sum + sum(digests)) % HASH_MODULUS
            self._last_seen = chunk.last
            for cell, (key, row) in zip(cells, rows, strict=True):
                self._extent.count_row(cell, key, row.digest, len(row.value))
            self._note(connection, complete=False)
        return self.next_chunk

    def _find(self, chunk: SnapshotChunk) -> dict[int, list[object]]:
        """By digest, those rows of the chunk that were kept. They are between the last key of
        the chunk before and the last of this one. Damaged ones are as good as none."""
        kept, wanted = self._db.kept(self.applied.shard), set(chunk.digests)
        found: dict[int, list[object]] = {}
        match chunk.rows[-1]:
            case [bytes(up_to), *_] if kept is not None:
                pass
            case _:
                return found
        with self._db.transaction() as connection, contextlib.suppress(StorageError):
            after = self._last_key(connection, self.applied.generation)
            for key, row in self._rows_behind(connection, kept, after):
                if key > up_to:
                    break
                if row.digest in wanted:
                    found[row.digest] = row_item(key, row)
        return found

    def finish(self) -> int:
        """Check the whole against the state hash and make it durable. Returns the generation
        that holds it. Raises SnapshotRefused, after which begin() starts afresh."""
        if not self._last_seen or self._digest_sum != self.applied.state_hash:
            self.abandon()
            raise SnapshotRefused(
                f"the snapshot of shard {self.applied.shard} at index {self.applied.index} does "
                f"not add up to its state hash after {self._count} rows",
                "the sender's state may be damaged; compare the replicas' state hashes",
            )
        with self._db.transaction(durable=True) as connection:
            self._note(connection, complete=True)
        return self.applied.generation

    def abandon(self) -> None:
        """Give the transfer up; what was received is swept later."""
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM receiving WHERE shard=?", (self.applied.shard,))
            self._db.hold(self.applied.shard, None)
            self._db.keep(self.applied.shard, None)
            self._db.release(self.applied.generation)

    def _note(self, connection: sqlite3.Connection, *, complete: bool) -> None:
        """Write down how far the transfer is, and what has come."""
        self.applied = attrs.evolve(self.applied, cells=self._extent.encode())
        values = (
            *applied_row(self.applied),
            self._transfer,
            self.next_chunk,
            self._count,
            to_signed(self._digest_sum),
            complete,
        )
        execute_rows(
            connection,
            f"INSERT OR REPLACE INTO receiving ({APPLIED_COLUMNS},"
            " transfer, next_chunk, row_count, digest_sum, complete)",
            [values],
        )


def _behind(at: _Position, items: list[list[object]], digests: list[int]) -> _Position:
    """The position after ``items``."""
    session, key = at.session, at.key
    for first, *_ in items:
        if isinstance(first, int):
            session = first
        elif isinstance(first, bytes):
            key = first
    digest_sum = (at.digest_sum + sum(digests)) % HASH_MODULUS
    return _Position(session, key, at.count + len(items), digest_sum)
