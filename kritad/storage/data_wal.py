"""What data.db's WAL holds that the file does not have yet, and moving it there.

Rules:
* Whatever was written counts, flush or not, from its commit until a checkpoint has moved
  all that the WAL has.
* A checkpoint for which the disk has no room is one that has not ended: the WAL has all that
  it had, and is valid. It ends neither the node nor the next start. (raft.db's WAL has to be
  empty behind a start; walscan.py says why.)
* One that would not fit is not begun: it would have moved nothing, and taken what is left, of
  which raft.db has to live.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import attrs

from kritad.storage import space, walscan
from kritad.storage.database import checkpoint, forget_wal, is_full


@attrs.define
class Sizes:
    """For any thread; the writer's changes them."""

    # The WAL's size, or 0 when a checkpoint has moved all of it.
    unchecked_bytes: int = 0
    # What the file has when all is moved.
    file_bytes: int = 0
    spare_bytes: int = 0  # of that, the pages that are free, and taken before it grows


class DataWal:
    """See the module's docstring. For the writer's thread. What SQLite says is raised as it is,
    an sqlite3.Error."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.sizes = Sizes()
        self._path = path
        self._wal_path = path.with_name(path.name + "-wal")
        self._writer = writer
        self._page_bytes: int = writer.execute("PRAGMA page_size").fetchone()[0]

    def empty(self) -> None:
        """When the file is opened: move all that the last life has left, if there is room."""
        self._unless_full(lambda: checkpoint(self._writer, "TRUNCATE").complete)
        self._measure()

    def note_commit(self, changes_before: int) -> None:
        """A transaction was committed. ``changes_before``: the writer's total_changes when
        it began; one that changed nothing is not in the WAL. ~10 µs."""
        if self._writer.total_changes != changes_before:
            self._measure()

    def move(self) -> bool:
        """A checkpoint; whether it has moved everything."""
        if not self._unless_full(lambda: checkpoint(self._writer, "PASSIVE").complete):
            return False
        forget_wal(self._writer)
        self.sizes.unchecked_bytes = 0
        return True

    def _unless_full(self, work: Callable[[], bool]) -> bool:
        growth_bytes = self._pages_bytes("page_count") - walscan.bytes_of(self._path)
        if growth_bytes > space.free_bytes(self._path.parent):
            return False
        try:
            return work()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            return False

    def _measure(self) -> None:
        self.sizes.unchecked_bytes = walscan.bytes_of(self._wal_path)
        self.sizes.file_bytes = self._pages_bytes("page_count")
        self.sizes.spare_bytes = self._pages_bytes("freelist_count")

    def _pages_bytes(self, which: str) -> int:
        pages: int = self._writer.execute(f"PRAGMA {which}").fetchone()[0]
        return pages * self._page_bytes
