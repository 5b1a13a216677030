"""Putting rows and sessions into data.db: few large statements.

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
