"""Putting rows and sessions into data.db and deleting them: few large statements.

``executemany`` gives the interpreter lock back once a row (database.execute_rows); deletes
go by slices of keys for the same reason. Inside a transaction of DataDatabase's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from kritad.storage.database import execute_rows
from kritad.storage.digests import session_digest
from kritad.storage.rows import Row
from kritad.storage.sweeping import at_once

T = TypeVar("T")

_PUT = "INSERT INTO kv (generation, key, revision, value, content_type, digest, expires_ms, lease)"
_PUT_OVER = (
    "ON CONFLICT (generation, key) DO UPDATE SET revision=excluded.revision,"
    " value=excluded.value, content_type=excluded.content_type, digest=excluded.digest,"
    " expires_ms=excluded.expires_ms, lease=excluded.lease"
)
_SLICE = 128


def put_rows(
    connection: sqlite3.Connection, generation: int, rows: Sequence[tuple[bytes, Row | None]]
) -> None:
    """Store rows of a generation, and delete those that are None."""
    values = [
        (
            generation, key, row.revision, row.value, row.content_type, row.digest,
            row.expires_ms, row.lease,
        )
        for key, row in rows
        if row is not None
    ]  # fmt: skip
    execute_rows(connection, _PUT, values, _PUT_OVER)
    _delete(connection, "kv", "key", generation, [key for key, row in rows if row is None])


def put_sessions(
    connection: sqlite3.Connection, generation: int, sessions: Sequence[tuple[int, bytes | None]]
) -> None:
    """Store sessions of a generation, and delete those that are None."""
    kept = [
        (generation, session, blob, session_digest(session, blob))
        for session, blob in sessions
        if blob is not None
    ]
    execute_rows(connection, "INSERT OR REPLACE INTO sessions", kept)
    ended = [session for session, blob in sessions if blob is None]
    _delete(connection, "sessions", "id", generation, ended)


def delete_rows(connection: sqlite3.Connection, generation: int, limit: int) -> int:
    """Delete rows of a generation, at most ``limit`` and ``at_once``; how many it was."""
    query = "SELECT id, length(value) FROM kv WHERE generation=? LIMIT ?"
    found = connection.execute(query, (generation, limit)).fetchall()
    gone = found[: at_once(size or 0 for _, size in found)]
    for some in slices(gone, _SLICE):
        places = ",".join("?" * len(some))
        ids = [row_id for row_id, _ in some]
        connection.execute(f"DELETE FROM kv WHERE id IN ({places})", ids)
    return len(gone)


def delete_sessions(connection: sqlite3.Connection, generation: int, limit: int) -> int:
    """Delete at most ``limit`` sessions of a generation; how many it was."""
    some = "SELECT rowid FROM sessions WHERE generation=? LIMIT ?"
    query = f"DELETE FROM sessions WHERE rowid IN ({some})"
    deleted: int = connection.execute(query, (generation, limit)).rowcount
    return deleted


def delete_keys(connection: sqlite3.Connection, generation: int, keys: Sequence[bytes]) -> int:
    """Delete the first of these rows of a generation, ``at_once``; how many it was."""
    query = "SELECT coalesce(sum(length(value)), 0) FROM kv WHERE generation=? AND key=?"
    count = at_once(connection.execute(query, (generation, key)).fetchone()[0] for key in keys)
    _delete(connection, "kv", "key", generation, keys[:count])
    return count


def _delete(
    connection: sqlite3.Connection, table: str, column: str, generation: int, those: Sequence[Any]
) -> None:
    for some in slices(those, _SLICE):
        places = ",".join("?" * len(some))
        query = f"DELETE FROM {table} WHERE generation=? AND {column} IN ({places})"
        connection.execute(query, (generation, *some))


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in their order, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
