"""Reading rows of data.db, on a connection of its own, every digest verified.

Used by DataDatabase for the main thread's reads and by SnapshotReader for its
stream. A row that is damaged is Corrupt, never "missing" (raft.md B47).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kritad.storage.database import failure
from kritad.storage.digests import row_digest, session_digest
from kritad.storage.errors import Corrupt, StorageError
from kritad.storage.rows import Row, Stamp

_STAMP = "SELECT revision, digest FROM kv WHERE generation=? AND key=?"
_KEYS_PER_STATEMENT = 16
_STAMPS = [
    f"SELECT key, revision, digest FROM kv WHERE generation=? AND key IN ({','.join('?' * count)})"
    for count in range(_KEYS_PER_STATEMENT + 1)
]
_GET = "SELECT revision, value, content_type, digest FROM kv WHERE generation=? AND key=?"
_SCAN = (
    "SELECT key, revision, value, content_type, digest FROM kv"
    " WHERE generation=? AND key>? ORDER BY key LIMIT ?"
)
_SCAN_SESSIONS = (
    "SELECT id, blob, digest FROM sessions WHERE generation=? AND id>? ORDER BY id LIMIT ?"
)
NO_LIMIT = -1
_REBUILD = "remove this replica; the cluster rebuilds it from the others"


class DataReader:
    """Reads by generation. ``shards`` says whose a generation is, to name the damaged one."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, shards: Mapping[int, int]
    ) -> None:
        self._path = path
        self._connection = connection
        self._cursor = connection.cursor()
        self._shards = shards

    def __repr__(self) -> str:
        return f"<DataReader {self._path}>"

    def get(self, generation: int, key: bytes) -> Row | None:
        """See DataDatabase.get."""
        try:
            # The cursor is reused: cheaper. fetchone() of the only row there can be
            # also ends the read transaction.
            found = self._cursor.execute(_GET, (generation, key)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(generation, error) from error
        if found is None:
            return None
        revision, value, content_type, digest = found
        if not _is_row(key, revision, value, content_type, digest):
            raise self._corrupt(generation, f"key {key[:64]!r} does not match its digest")
        return Row(revision, value, content_type, digest)

    def stamp(self, generation: int, key: bytes) -> Stamp | None:
        """Revision and digest of the row, the latter as it was stored: half of what a
        ``get`` costs, because the value is neither read nor hashed."""
        try:
            found = self._cursor.execute(_STAMP, (generation, key)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(generation, error) from error
        return None if found is None else Stamp(*found)

    def stamps(self, generation: int, keys: Sequence[bytes]) -> dict[bytes, Stamp]:
        """``stamp`` of several keys, those that have none left out. One statement for up
        to ``_KEYS_PER_STATEMENT``: sqlite3 gives the GIL back and takes it again four
        times for each, and another thread is often waiting for it."""
        found: dict[bytes, Stamp] = {}
        try:
            for start in range(0, len(keys), _KEYS_PER_STATEMENT):
                some = keys[start : start + _KEYS_PER_STATEMENT]
                rows = self._cursor.execute(_STAMPS[len(some)], (generation, *some)).fetchall()
                for key, revision, digest in rows:
                    found[key] = Stamp(revision, digest)
        except sqlite3.Error as error:
            raise self._failure(generation, error) from error
        return found

    def scan(self, generation: int, after: bytes | None, limit: int) -> Iterator[tuple[bytes, Row]]:
        """Rows in key order, read one at a time: exhaust or close the iterator, because
        it keeps a read transaction open. ``limit`` may be NO_LIMIT."""
        # No key is empty, so every key is greater than b"".
        for key, revision, value, content_type, digest in self._each(
            _SCAN, generation, after or b"", limit
        ):
            if not _is_row(key, revision, value, content_type, digest):
                raise self._corrupt(generation, f"key {key!r:.64} does not match its digest")
            yield key, Row(revision, value, content_type, digest)

    def scan_sessions(self, generation: int, after: int, limit: int) -> Iterator[tuple[int, bytes]]:
        """Sessions by id, one at a time, as above."""
        for session, blob, digest in self._each(_SCAN_SESSIONS, generation, after, limit):
            if not isinstance(blob, bytes) or session_digest(session, blob) != digest:
                raise self._corrupt(generation, f"session {session} does not match its digest")
            yield session, blob

    def _each(self, query: str, generation: int, *rest: object) -> Iterator[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            yield from cursor.execute(query, (generation, *rest))
        except sqlite3.Error as error:
            raise self._failure(generation, error) from error
        finally:
            cursor.close()

    def _failure(self, generation: int, error: sqlite3.Error) -> StorageError:
        meaning = failure(self._path, "read", error)
        return self._corrupt(generation, str(error)) if isinstance(meaning, Corrupt) else meaning

    def _corrupt(self, generation: int, problem: str) -> Corrupt:
        shard = self._shards.get(generation)
        text = f"the state of shard {shard} is damaged in {self._path}: {problem}"
        return Corrupt(shard, text, _REBUILD)


def _is_row(key: Any, revision: Any, value: Any, content_type: Any, digest: Any) -> bool:
    """Whether this is what was written. A flipped bit may have changed a value's type."""
    try:
        same: bool = row_digest(key, revision, value, content_type) == digest
    except (TypeError, AttributeError, struct.error):
        return False
    return same
