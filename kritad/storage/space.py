"""When a node has too little disk left to take writes, and when it has enough again.

Below the reserve, this node's leaders hand over and writes get 507; reads and
deletes go on, for which the reserve leaves room (a full disk blocks DELETE and
checkpoints too, reliability.md fact 4). Two bounds, so that a node does not
waver around one.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from kritad.storage.errors import StoreFailed

# Room that must be free again, as a multiple of the reserve.
RECOVER_FACTOR = 1.25


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
    free_bytes: int = 0  # as of the last update

    def update(self) -> bool:
        """Measure and decide. Raises StoreFailed. ~3 µs, but may hang with the disk."""
        self.free_bytes = free_bytes(self.path)
        self.low = decide(self.low, self.free_bytes, self.reserve_bytes)
        return self.low


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the disk of ``path``. Raises StoreFailed."""
    try:
        stat = os.statvfs(path)
    except OSError as error:
        raise StoreFailed(f"cannot ask for the free space of {path}: {error.strerror}") from error
    return stat.f_bavail * stat.f_frsize
