"""A shard's state on its way to another replica: read in chunks, received in chunks.

A chunk is plain lists, ready to be encoded: a session is ``[id, blob]``, a row
``[key, revision, value, content_type, digest]``, and behind these when it ends by itself
``expires_ms, lease``; sessions come first. Its ``crc``
covers its number, how much came before it, and every digest in it, so chunks of
different transfers, lost, repeated or out of order, do not pass for each other.
At the end the digests must add up to the state hash the sender announced. Rows are
those of the shard's arc; the receiver counts anew what is in which cell of it, and
refuses a row from elsewhere.

The sender reads the shard's generations in one read transaction, which is the state at one
applied index however long it takes; it holds back checkpoints of data.db for that
time, so the host sets it a deadline (raft.md B35).

The receiver writes into a generation of its own and notes in the same transaction
which chunk comes next, so that a transfer goes on after a restart of the receiver
(raft.md B33). Nothing of it is seen until DataDatabase.install.
"""

from __future__ import annotations

import itertools
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import attrs

from kritad.storage.applied_rows import APPLIED_COLUMNS, applied_row, read_applied
from kritad.storage.data_db import DataDatabase
from kritad.storage.data_reader import NO_LIMIT, DataReader
from kritad.storage.database import execute_rows, failure, open_reader
from kritad.storage.digests import HASH_MODULUS, row_digest, session_digest, to_signed
from kritad.storage.errors import Corrupt, StorageError
from kritad.storage.extent import OUTSIDE, Extent
from kritad.storage.rows import Applied, Row

_CRC_HEAD = struct.Struct(">QQ?")
_ITEM_BYTES = 32  # what an item adds to a chunk besides key, value or blob, about

_Item = tuple[list[object], int, int]  # as sent, its digest, its bytes in a chunk


@attrs.define
class SnapshotChunk:
    """One slice. ``number`` counts from 0."""

    number: int
    rows: list[list[object]]
    crc: int
    last: bool


class SnapshotRefused(StorageError):
    """A chunk or a whole snapshot is not what its sender announced: begin again."""


@attrs.frozen
class _Position:
    """Where a chunk begins: behind this session and key, after so many items."""

    session: int = -(1 << 63)
    key: bytes | None = None  # None while sessions are being read
    count: int = 0
    digest_sum: int = 0


class SnapshotReader:
    """Streams one shard's state as of one moment. For one thread; close() it."""

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
        """End the read transaction."""
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
        for key, row in rows.scan(applied.rows, at.key, NO_LIMIT, applied.arc, shard):
            item: list[object] = [key, row.revision, row.value, row.content_type, row.digest]
            if row.expires_ms or row.lease:
                item += row.expires_ms, row.lease
            yield item, row.digest, _ITEM_BYTES + len(key) + len(row.value)

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
                "the cluster makes this replica anew while most of the others are well",
            )
        self._number += 1
        self._positions[self._number :] = [behind]
        return SnapshotChunk(number, items, _chunk_crc(number, at.count, digests, last), last)


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
        self._count = 0
        self._digest_sum = 0
        self._last_seen = False
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
                generation = self._db.insert_generation(connection)
                self.applied = attrs.evolve(self.applied, generation=generation, rows=generation)
                self.next_chunk = self._count = self._digest_sum = 0
                self._last_seen = False
                self._extent = self._extent.emptied()
            self._db.hold(self.applied.shard, self.applied.generation)
            self._note(connection, complete=bool(complete))
        return self.next_chunk

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

        return self.next_chunk

    def write(self, chunk: SnapshotChunk) -> int:
        """Store ``chunk`` if it is the one that comes next. Returns the number of the chunk
        to send next, which is the same again for any other.

        Raises SnapshotRefused for a chunk whose content does not match its checksums.
        """
        if chunk.number != self.next_chunk or self._last_seen:
            return self.next_chunk
        rows, sessions, digests = _verify(chunk, self._count)
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


def _chunk_crc(number: int, count_before: int, digests: list[int], last: bool) -> int:
    head = _CRC_HEAD.pack(number, count_before, last)
    return crc32(struct.pack(f">{len(digests)}q", *digests), crc32(head))


def _bond(chunk: SnapshotChunk, fields: list[object]) -> tuple[int, int]:
    match fields:
        case []:
            return 0, 0
        case [int(expires_ms), int(lease)]:
            return expires_ms, lease
    raise SnapshotRefused(f"chunk {chunk.number} has a row that ends in an unknown way")


def _verify(
    chunk: SnapshotChunk, count_before: int
) -> tuple[list[tuple[bytes, Row]], list[tuple[int, bytes]], list[int]]:
    """The chunk's rows, sessions and digests, computed anew. Raises SnapshotRefused."""
    rows: list[tuple[bytes, Row]] = []
    sessions: list[tuple[int, bytes]] = []
    digests: list[int] = []
    for item in chunk.rows:
        match item:
            case [int(session), bytes(blob)] if not rows:
                sessions.append((session, blob))
                digests.append(session_digest(session, blob))
            case [
                bytes(key), int(revision), bytes(value), str() | None as content_type, int(), *bond,
            ]:  # fmt: skip
                expires_ms, lease = _bond(chunk, bond)
                digest = row_digest(key, revision, value, content_type, expires_ms, lease)
                rows.append((key, Row(revision, value, content_type, digest, expires_ms, lease)))
                digests.append(digest)
            case _:
                raise SnapshotRefused(f"chunk {chunk.number} has an item of unknown shape")
    if _chunk_crc(chunk.number, count_before, digests, chunk.last) != chunk.crc:
        raise SnapshotRefused(f"chunk {chunk.number} does not match its checksum")
    return rows, sessions, digests
