"""When a node has too little disk left to take writes, and when it has enough again.

What counts is what is free beside what is *promised*: applied writes that are in memory
yet, or in data.db's WAL alone, need their room as surely as if they had it already.

* Below the reserve, this node's leaders hand over and writes get 507; reads and
  deletes go on, for which the reserve leaves room (a full disk blocks DELETE and
  checkpoints too, reliability.md fact 4): each goes through data.db's WAL in a page or two, which
  is promised, and given back by the checkpoint. Two bounds, so that a node does not
  waver around one.
* The file of data.db does not shrink. Pages of it that are free are room for puts, or a node
  whose keys were all deleted would refuse them for ever. They make up for half of the
  reserve at most: on its way into them a put takes the log and the WAL, which need the disk.
* Below a quarter of it the disk is *nearly full*: then the node takes no deletes, ends no keys
  by the clock, and takes no entries of others' leaders either. It falls behind, as if it were
  down, but lives, and can be started again: a disk without any room would end it, and data.db
  could not even be opened.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from kritad.storage.errors import StoreFailed

# Room that must be free again, as a multiple of the reserve.
RECOVER_FACTOR = 1.25
# Of the reserve: what is left when the disk is nearly full.
NEARLY_FULL_PART = 0.25
# Of the reserve: what free pages of data.db may stand for.
SPARE_PART_MAX = 0.5


def decide(low: bool, free_bytes: int, reserve_bytes: int) -> bool:
    """Whether the node is low on space, given whether it was. Pure.

    Becomes low below ``reserve_bytes``, stops being so at RECOVER_FACTOR times that.
    """
    if low:
        return free_bytes < reserve_bytes * RECOVER_FACTOR
    return free_bytes < reserve_bytes


@attrs.define
class DiskReserve:
    """The decision for one directory, kept between measurements."""

    path: Path
    reserve_bytes: int
    low: bool = False
    nearly_full: bool = False
    free_bytes: int = 0  # as of the last update

    def update(self, promised_bytes: int = 0, spare_bytes: int = 0) -> bool:
        """Measure and decide. ``spare_bytes``: free pages of data.db. Raises StoreFailed.
        ~3 µs, but may hang with the disk."""
        self.free_bytes = free_bytes(self.path)
        left = self.free_bytes - promised_bytes
        spare = min(spare_bytes, int(self.reserve_bytes * SPARE_PART_MAX))
        self.low = decide(self.low, left + spare, self.reserve_bytes)
        part = int(self.reserve_bytes * NEARLY_FULL_PART)
        self.nearly_full = decide(self.nearly_full, left, part)
        return self.low

    @property
    def room_bytes(self) -> int:
        """What there is above the reserve, as of the last update, promised or not."""
        return max(0, self.free_bytes - self.reserve_bytes)


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the disk of ``path``. Raises StoreFailed."""
    try:
        stat = os.statvfs(path)
    except OSError as error:
        raise StoreFailed(f"cannot ask for the free space of {path}: {error.strerror}") from error
    return stat.f_bavail * stat.f_frsize
