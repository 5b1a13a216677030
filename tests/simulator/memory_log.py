"""One replica's votes and entries in memory, and the reader that judges them.

A Log is to MemoryRaftDatabase what the rows of raft.db are to the real one. It remembers
where these rows would end, so that it is cut in the same slices, and tells for every change
how to undo it.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import cast

import attrs

from kritad.raft.records import HEADER_BYTES
from kritad.raft.types import Boot, Entry, HardState, SnapshotMeta
from kritad.storage import log_writer
from kritad.storage.catalog import Catalog, Tail
from kritad.storage.log_reader import LogReader
from kritad.storage.runs import LogIndex
from tests.simulator.transactions import Undo

# There is none. Nothing that is inherited does more than hand it on.
_NO_CONNECTION = cast(sqlite3.Connection, None)


@attrs.define(eq=False)
class Log:
    """One replica's votes and entries."""

    hard: HardState
    first: SnapshotMeta  # behind it the log logically begins
    base: int  # index before entries[0]: a row that reaches over first.index stays whole
    entries: list[Entry]
    row_ends: list[int]  # the last index of each row that the real database would have

    @property
    def last_index(self) -> int:
        """Where the log ends, ``first.index`` when it is empty."""
        return self.base + len(self.entries)

    def entry(self, index: int) -> Entry | None:
        """The entry at ``index``; None when that is not in the log."""
        place = index - self.base - 1
        if index <= self.first.index or place >= len(self.entries):
            return None
        return self.entries[place]

    def append(self, entries: list[Entry], row_bytes: int) -> int:
        """Add ``entries`` behind the last, to the row that has ``row_bytes`` already (0: to
        a new one). Returns how large the last row is now."""
        self.entries += entries
        assert entries[-1].index == self.last_index, (entries, self)  # else no place is right
        size = row_bytes + HEADER_BYTES * len(entries)
        for entry in entries:
            size += len(entry.data)
        if size <= log_writer.RUN_BYTES_MAX:
            if row_bytes:
                self.row_ends[-1] = entries[-1].index
            else:
                self.row_ends.append(entries[-1].index)
            return size
        for entry in entries:  # log_writer._split
            size = row_bytes + HEADER_BYTES + len(entry.data)
            if row_bytes and size <= log_writer.RUN_BYTES_MAX:
                self.row_ends[-1] = entry.index
                row_bytes = size
            else:
                self.row_ends.append(entry.index)
                row_bytes = HEADER_BYTES + len(entry.data)
        return row_bytes

    def truncate(self, index: int) -> Undo:
        """Delete everything from ``index`` on."""
        keep, keep_rows = index - 1 - self.base, bisect_left(self.row_ends, index)
        gone, gone_rows = self.entries[keep:], self.row_ends[keep_rows:]
        del self.entries[keep:], self.row_ends[keep_rows:]
        if self.entries and (not self.row_ends or self.row_ends[-1] < index - 1):
            self.row_ends.append(index - 1)
        return self._put_back, (keep, gone, keep_rows, gone_rows)

    def undo_append(self) -> Undo:
        """How to undo the append that comes next, and a new hard state."""
        ends = self.row_ends
        last_end = ends[-1] if ends else 0
        return self._take_back, (self.hard, len(self.entries), len(ends), last_end)

    def _take_back(self, hard: HardState, keep: int, keep_rows: int, last_end: int) -> None:
        self.hard = hard
        del self.entries[keep:], self.row_ends[keep_rows:]
        if keep_rows:
            self.row_ends[-1] = last_end

    def _put_back(
        self, keep: int, entries: list[Entry], keep_rows: int, row_ends: list[int]
    ) -> None:
        self.entries[keep:] = entries
        self.row_ends[keep_rows:] = row_ends

    def compacted(self, meta: SnapshotMeta, rows_max: int) -> tuple[Log, int, bool]:
        """The log as it is when it begins behind ``meta``, without at most ``rows_max`` whole
        rows; how many these are, and whether that is all of them."""
        ready = bisect_right(self.row_ends, meta.index)
        count = min(ready, rows_max)
        base = self.row_ends[count - 1] if count else self.base
        entries = self.entries[base - self.base :]
        return Log(self.hard, meta, base, entries, self.row_ends[count:]), count, count == ready


class MemoryLogReader(LogReader):
    """Reads the logs, with the real one's verdicts on what it finds."""

    def __init__(self, path: Path, catalog: Catalog, logs: dict[int, Log]) -> None:
        super().__init__(path, _NO_CONNECTION, catalog, LogIndex())
        self._logs = logs

    def entries(self, shard: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """See RaftDatabase.entries. Damage to a replica is damage to all its entries here."""
        log = self._logs.get(shard)
        if log is None or not log.base < first <= log.last_index:
            return []
        if shard in self._catalog.damaged:
            raise self.corrupt(shard, self._catalog.damaged[shard])
        found = log.entries[first - log.base - 1 : max(last - log.base, 0)]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if count and size > bytes_max:
                return found[:count]
        return found

    def load(self, shard: int, applied_index: int) -> Boot:
        """See RaftDatabase.load."""
        log, damaged = self._logs.get(shard), self._catalog.damaged
        if shard in damaged or log is None:
            raise self.corrupt(shard, damaged.get(shard, "it is not in the file"))
        hard, first = log.hard, log.first
        boot = Boot(
            hard_state=attrs.evolve(hard),
            snapshot=first,
            last_index=first.index,
            applied_index=applied_index,
        )
        for entry in log.entries[first.index - log.base :]:
            self._take(shard, boot, entry)
        self._check_boot(shard, boot, Tail(hard.term, hard.vote, hard.commit, log.last_index))
        return boot
