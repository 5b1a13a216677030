"""Reading rows of data.db, on a connection of its own, every digest verified.

Used by DataDatabase for the main thread's reads and by SnapshotReader for its
stream. A row that is damaged is Corrupt, never "missing" (raft.md B47).

Two shards may have their rows in one generation, so a scan can be kept to an arc of the
ring. SQLite asks for each key's token before it reads the value: of what is not wanted no
page but the row's own is read. It is passed over in sight of the caller, not inside
of SQLite: a group of keys lies together, and 200,000 of another shard's took 0.2 s.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kritad.storage.database import failure
from kritad.storage.digests import row_digest, session_digest
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError
from kritad.storage.extent import WHOLE_RING, Arc
from kritad.storage.places import stored_token
from kritad.storage.rows import Row, Stamp

# length() of a column does not read the pages that a long value overflows to.
_FIELDS = "revision, digest, length(value), expires_ms, lease"
_STAMP = f"SELECT {_FIELDS} FROM kv WHERE generation=? AND key=?"
_KEYS_PER_STATEMENT = 16
_STAMPS = [
    f"SELECT key, {_FIELDS} FROM kv WHERE generation=? AND key IN ({','.join('?' * count)})"
    for count in range(_KEYS_PER_STATEMENT + 1)
]
_ROW = "revision, value, content_type, digest, expires_ms, lease"
_GET = f"SELECT {_ROW} FROM kv WHERE generation=? AND key=?"
_BETWEEN = (
    "SELECT {columns} FROM kv WHERE generation=?1 AND key>=?2 {below}ORDER BY key {down}LIMIT ?6"
)
_ROW_OF_ARC = _ROW.replace("value", "iif(ring_token(key) BETWEEN ?4 AND ?5, value, NULL)")
# Each has an index of its own, of the rows that it is about (migrations.py): they say so again
# in so many words, since SQLite takes the index for nothing less.
_ENDING = (
    "SELECT {what} FROM kv INDEXED BY kv_ends"
    " WHERE generation=? AND expires_ms>0 AND expires_ms>? AND expires_ms<=?"
)
_ENDS = _ENDING.format(what="expires_ms, key")
_NTH_END = _ENDING.format(what="expires_ms") + " ORDER BY expires_ms LIMIT 1 OFFSET ?"
_LEASED = "SELECT key, lease FROM kv INDEXED BY kv_lease WHERE generation=? AND lease>0"
_SIZES = "SELECT key, digest, length(value) FROM kv WHERE generation=? ORDER BY key"
_SCAN_SESSIONS = (
    "SELECT id, blob, digest FROM sessions WHERE generation=? AND id>? ORDER BY id LIMIT ?"
)
NO_LIMIT = -1


class DataReader:
    """Reads by generation. ``shards`` says whose a generation is, to name the damaged one
    where the caller does not say for which ``shard`` it reads."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, shards: Mapping[int, int]
    ) -> None:
        self._path = path
        self._connection = connection
        self._cursor = connection.cursor()
        connection.create_function("ring_token", 1, _token, deterministic=True)
        self._shards = shards

    def __repr__(self) -> str:
        return f"<DataReader {self._path}>"

    def get(self, generation: int, key: bytes, shard: int | None = None) -> Row | None:
        """See DataDatabase.get."""
        try:
            # The cursor is reused: cheaper. fetchone() of the only row there can be
            # also ends the read transaction.
            found = self._cursor.execute(_GET, (generation, key)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(generation, shard, error) from error
        if found is None:
            return None
        if not is_row(key, *found):
            raise self._damaged(generation, shard, key)
        return Row(*found)

    def stamp(self, generation: int, key: bytes, shard: int | None = None) -> Stamp | None:
        """The row without its value, all as it was stored: half of what a ``get`` costs,
        because the value is neither read nor hashed."""
        try:
            found = self._cursor.execute(_STAMP, (generation, key)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(generation, shard, error) from error
        if found is None:
            return None
        if not _are_numbers(*found):
            raise self._damaged(generation, shard, key)
        return Stamp(*found)

    def stamps(
        self, generation: int, keys: Sequence[bytes], shard: int | None = None
    ) -> dict[bytes, Stamp]:
        """``stamp`` of several keys, those that have none left out. One statement for up
        to ``_KEYS_PER_STATEMENT``: sqlite3 gives the GIL back and takes it again four
        times for each, and another thread is often waiting for it."""
        found: dict[bytes, Stamp] = {}
        try:
            for start in range(0, len(keys), _KEYS_PER_STATEMENT):
                some = keys[start : start + _KEYS_PER_STATEMENT]
                rows = self._cursor.execute(_STAMPS[len(some)], (generation, *some)).fetchall()
                for key, *fields in rows:
                    if not _are_numbers(*fields):
                        raise self._damaged(generation, shard, key)
                    found[key] = Stamp(*fields)
        except sqlite3.Error as error:
            raise self._failure(generation, shard, error) from error
        return found

    def scan(
        self,
        generation: int,
        after: bytes | None,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
    ) -> Iterator[tuple[bytes, Row]]:
        """Rows of an arc in key order, read one at a time: exhaust or close the iterator,
        because it keeps a read transaction open."""
        start = b"" if after is None else after + b"\0"  # the next key that there can be
        rows = self.between(generation, start, None, NO_LIMIT, arc, shard)
        return ((key, row) for key, row in rows if row is not None)

    def between(
        self,
        generation: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> Generator[tuple[bytes, Row | None], None, None]:
        """One at a time, as above: see DataDatabase.between."""
        columns = f"key, {_ROW if arc == WHOLE_RING else _ROW_OF_ARC}"
        query = _between(columns, stop, reverse)
        lo, hi = arc
        values = start, stop, lo, hi - 1, limit
        with contextlib.closing(self._each(query, generation, shard, *values)) as found:
            for key, *fields in found:
                if fields[1] is None and not lo <= _token(key) < hi:
                    row = None
                elif is_row(key, *fields):
                    row = Row(*fields)
                else:
                    raise self._damaged(generation, shard, key)
                yield key, row
                if bytes_max is not None:
                    bytes_max -= 0 if row is None else len(row.value)
                    if bytes_max <= 0:
                        return

    def keys(
        self,
        generation: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
        *,
        reverse: bool = False,
    ) -> list[tuple[bytes, bool]]:
        """The keys of the same, and whether each is in the arc. The index has them: no row is
        read, nor verified. ~1 µs for each, however large its value is. Raises StoreFailed,
        Corrupt."""
        query = _between("key", stop, reverse)
        lo, hi = arc
        found = []
        for (key,) in self._each(query, generation, shard, start, stop, lo, hi - 1, limit):
            if type(key) is not bytes:
                raise self._damaged(generation, shard, key)
            found.append((key, lo <= _token(key) < hi))
        return found

    def ending(
        self, generation: int, arc: Arc, after_ms: int, upto_ms: int, limit: int, shard: int | None
    ) -> tuple[list[tuple[int, bytes]], int]:
        """Deadline and key of the rows of an arc that end after the one time and up to the other,
        and which time that is: an earlier one, where more than about ``limit`` rows end. As
        they were stored: who ends one reads it. Raises StoreFailed, Corrupt. ~1 µs for each."""
        found: list[tuple[int, bytes]] = []
        nth = list(self._each(_NTH_END, generation, shard, after_ms, upto_ms, limit - 1))
        if nth and type(nth[0][0]) is int:
            upto_ms = min(upto_ms, nth[0][0])
        lo, hi = arc
        for expires_ms, key in self._each(_ENDS, generation, shard, after_ms, upto_ms):
            if type(expires_ms) is not int or type(key) is not bytes or not key:
                raise self._damaged(generation, shard, key)
            if lo <= stored_token(key) < hi:
                found.append((expires_ms, key))
        return found, upto_ms

    def leased(self, generation: int, arc: Arc, shard: int | None) -> Iterator[tuple[bytes, int]]:
        """The rows of an arc that end with a lease, and with which; as above."""
        lo, hi = arc
        for key, lease in self._each(_LEASED, generation, shard):
            if type(lease) is not int:
                raise self._damaged(generation, shard, key)
            if lo <= _token(key) < hi:
                yield key, lease

    def sizes(self, generation: int, shard: int | None = None) -> Iterator[tuple[bytes, Stamp]]:
        """Every row's key, digest and size, as they were stored, one at a time as above;
        the revision is left out (0)."""
        for key, digest, size in self._each(_SIZES, generation, shard):
            if not _are_numbers(0, digest, size, 0, 0):
                raise self._damaged(generation, shard, key)
            yield key, Stamp(0, digest, size)

    def scan_sessions(
        self, generation: int, after: int, limit: int, shard: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Sessions by id, one at a time, as above."""
        for session, blob, digest in self._each(_SCAN_SESSIONS, generation, shard, after, limit):
            if not isinstance(blob, bytes) or session_digest(session, blob) != digest:
                problem = f"session {session} does not match its digest"
                raise self._corrupt(generation, shard, problem)
            yield session, blob

    def _each(
        self, query: str, generation: int, shard: int | None, *rest: object
    ) -> Generator[tuple[Any, ...], None, None]:
        cursor = self._connection.cursor()
        try:
            yield from cursor.execute(query, (generation, *rest))
        except sqlite3.Error as error:
            raise self._failure(generation, shard, error) from error
        finally:
            cursor.close()

    def _failure(self, generation: int, shard: int | None, error: sqlite3.Error) -> StorageError:
        meaning = failure(self._path, "read", error)
        if isinstance(meaning, Corrupt):
            return self._corrupt(generation, shard, str(error))
        return meaning

    def _damaged(self, generation: int, shard: int | None, key: Any) -> Corrupt:
        return self._corrupt(generation, shard, f"key {key!r:.64} does not match its digest")

    def _corrupt(self, generation: int, shard: int | None, problem: str) -> Corrupt:
        if shard is None:
            shard = self._shards.get(generation)
        text = f"the state of shard {shard} is damaged in {self._path}: {problem}"
        return Corrupt(shard, text, REBUILD_HINT)


def _between(columns: str, stop: bytes | None, reverse: bool) -> str:
    return _BETWEEN.format(
        columns=columns,
        below="" if stop is None else "AND key<?3 ",
        down="DESC " if reverse else "",
    )


def _are_numbers(revision: Any, digest: Any, size: Any, expires_ms: Any, lease: Any) -> bool:
    """Whether these can be a stamp's. A flipped bit may have made NULL or a text of a number;
    a wrong number is found by whoever reads the row or adds up the digests."""
    return type(revision) is type(digest) is type(size) is type(expires_ms) is type(lease) is int


def _token(key: Any) -> int:
    """Of what should be a key; a damaged one is nowhere on the ring, and missed in the sum."""
    return stored_token(key) if isinstance(key, bytes) and key else -1


def is_row(
    key: Any, revision: Any, value: Any, content_type: Any, digest: Any, expires_ms: Any, lease: Any
) -> bool:
    """Whether this is what was written. A flipped bit may have changed a value's type."""
    try:
        same: bool = row_digest(key, revision, value, content_type, expires_ms, lease) == digest
    except (TypeError, AttributeError, struct.error):
        return False
    return same
