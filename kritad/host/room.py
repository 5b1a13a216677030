"""How much may wait for the disk: applied writes in memory, and pages in data.db's WAL.

Rules:
* Both are bounded by the room that there is above the disk's reserve, because each takes it
  once more: what is in memory in the WAL, and that in the file.
* What a row takes of the WAL is pages, however small it is: a delete in random order writes
  its leaf of the table, that of the index and what putting these in balance needs (4 to
  10 KiB were measured), and has 200 bytes and its key in memory.
* There is a least of all of it: a node whose disk has no room above its reserve still takes
  deletes and what others lead, and would do nothing but flush. A flush of as much as that,
  and as much again, fits into the quarter of the reserve of 64 MiB with which a disk is
  nearly full (storage/space.py).

Pure. What is bounded is counted in flush.py.
"""

from __future__ import annotations

import attrs

# Of the room on the disk: what may be in memory, and as much again in data.db's WAL.
_ROOM_PART = 8
_BYTES_MIN = 1 << 20
_PAGES_BYTES_MIN = 4 << 20
_ROW_PAGES_BYTES = 3 * 4096
# Memtables that the WAL may hold. Of small values that are written in random order it takes a
# page for each, and a page that is written again before the checkpoint is moved once.
_WAL_FACTOR = 4
_UNBOUNDED = 1 << 62


@attrs.frozen
class Bounds:
    """What may be, before something is done about it without waiting for its time."""

    memory_bytes: int  # in all memtables together
    flush_bytes: int  # what writing all of that may add to the WAL
    wal_bytes: int  # in data.db's WAL and not in the file


def bounds_for(memtable_bytes: int, room_bytes: int | None) -> Bounds:
    """``room_bytes``: what the disk has above its reserve; None: it is not known."""
    wal_bytes = _WAL_FACTOR * memtable_bytes
    if room_bytes is None:
        return Bounds(memtable_bytes, _UNBOUNDED, wal_bytes)
    part = room_bytes // _ROOM_PART
    return Bounds(
        min(memtable_bytes, max(part, _BYTES_MIN)),
        max(part, _PAGES_BYTES_MIN),
        min(wal_bytes, max(part, _BYTES_MIN)),
    )


def flush_bytes_of(rows: int, memory_bytes: int, file_bytes: int) -> int:
    """What the WAL will have to take of so many changed rows, at the most: the pages that they
    are put into or taken from, each once, and what they bring themselves."""
    return min(rows * _ROW_PAGES_BYTES, file_bytes) + memory_bytes
