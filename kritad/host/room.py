"""How much may wait for the disk: applied writes in memory, and pages in data.db's WAL.

Rules:
* Both are bounded by the room that there is above the disk's reserve, because each takes it
  once more: what is in memory in the WAL, and that in the file.
* There is a least of both: a node whose disk has no room above its reserve still takes
  deletes and what others lead, and would do nothing but flush.

Pure. What is bounded is counted in flush.py.
"""

from __future__ import annotations

import attrs

# Of the room on the disk: what may be in memory, and as much again in data.db's WAL.
_ROOM_PART = 8
_BYTES_MIN = 1 << 20
# Memtables that the WAL may hold. Of small values that are written in random order it takes a
# page for each, and a page that is written again before the checkpoint is moved once.
_WAL_FACTOR = 4


@attrs.frozen
class Bounds:
    """What may be, before something is done about it without waiting for its time."""

    memory_bytes: int  # in all memtables together
    wal_bytes: int  # in data.db's WAL and not in the file


def bounds_for(memtable_bytes: int, room_bytes: int | None) -> Bounds:
    """``room_bytes``: what the disk has above its reserve; None: it is not known."""
    wal_bytes = _WAL_FACTOR * memtable_bytes
    if room_bytes is None:
        return Bounds(memtable_bytes, wal_bytes)
    part = max(room_bytes // _ROOM_PART, _BYTES_MIN)
    return Bounds(min(memtable_bytes, part), min(wal_bytes, part))
