"""Reading all rows of data.db, a slice at a time, to find damage that nobody has met yet.

A row that is read is compared with its digest, so a wrong value is never given out. What no digest
can tell is that a row was *not* found: with a bit flipped in the index a key is absent, and a put
on condition that it be absent succeeds; or it outlives its deadline. So the rows are read here in
the order of the table, and each has to be found by its indexes as well. (The other way round needs
no looking for: a place in an index that leads to another row, or to none, does not match that
row's digest or deadline, or SQLite says so.)

Sources: reliability.md D6.
"""

from __future__ import annotations

import sqlite3

import attrs

from kritad.storage.data_reader import is_row

_BYTES_MAX = 4 << 20  # of values in one slice: the thread is the flusher's
_ROWS = (
    "SELECT id, generation, key, revision, value, content_type, digest, expires_ms, lease"
    " FROM kv NOT INDEXED WHERE id>? ORDER BY id"
)
_BY_KEY = "SELECT id FROM kv INDEXED BY kv_key WHERE generation=? AND key=?"
_BY_END = (
    "SELECT id FROM kv INDEXED BY kv_ends"
    " WHERE generation=? AND expires_ms>0 AND expires_ms=? AND key=?"
)
_BY_LEASE = "SELECT id FROM kv INDEXED BY kv_lease WHERE generation=? AND lease>0 AND id=?"
_ID_MAX = "SELECT ifnull(max(id), 0) FROM kv"


@attrs.frozen
class Scrubbed:
    """What came of one slice."""

    rows: int
    id_last: int  # of the last row that was read: where the next slice goes on
    id_max: int  # of the last row that there is; at or below ``id_last``: this was the end
    unsound: tuple[tuple[int, bytes], ...]  # generation and key of what is damaged


def scrub_slice(connection: sqlite3.Connection, behind_id: int, rows_max: int) -> Scrubbed:
    """Read up to ``rows_max`` rows behind one, fewer where they are large. Nobody may write
    meanwhile. Raises sqlite3.Error for what SQLite cannot read. ~15 µs a row."""
    (id_max,) = connection.execute(_ID_MAX).fetchone()
    rows, size, id_last = 0, 0, behind_id
    unsound = []
    cursor = connection.execute(_ROWS, (behind_id,))
    while rows < rows_max and size < _BYTES_MAX and (row := cursor.fetchone()) is not None:
        id_last, generation, key, *rest = row
        rows += 1
        size += len(rest[1]) if isinstance(rest[1], bytes) else 0
        if not is_row(key, *rest) or not _is_indexed(connection, *row[:3], *row[-2:]):
            unsound.append((generation, key if isinstance(key, bytes) else b""))
    cursor.close()  # a SELECT that is not finished pins the WAL
    at_end = rows < rows_max and size < _BYTES_MAX
    return Scrubbed(rows, id_last, id_last if at_end else id_max, tuple(unsound))


def _is_indexed(
    connection: sqlite3.Connection, row_id: int, generation: int, key: bytes, ends: int, lease: int
) -> bool:
    """Whether a sound row is found by all indexes that it is in."""
    looks: list[tuple[str, tuple[object, ...]]] = [(_BY_KEY, (generation, key))]
    if ends:
        looks.append((_BY_END, (generation, ends, key)))
    if lease:
        looks.append((_BY_LEASE, (generation, row_id)))
    try:
        return all(
            connection.execute(query, values).fetchall() == [(row_id,)] for query, values in looks
        )
    except sqlite3.DatabaseError:  # it leads over a page that SQLite finds damaged
        return False
