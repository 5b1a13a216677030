"""Where each shard's log lies: its runs of entries, each a row of raft.db.

Rows of all shards are appended to one table in the order of writing, so that a
save touches the last pages of the table and nothing else. With the shard in the
row id, as the table was first drawn, a save of 16 shards wrote 31 pages instead
of 5 and took twice as long (128 entries: 67 instead of 19 pages). The price is
this index: 24 bytes of memory a row, read again at every start.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right


class RunIndex:
    """Ascending, contiguous runs: (row id, first index, last index)."""

    __slots__ = ("_firsts", "_ids", "_lasts")

    def __init__(self) -> None:
        self._ids = array("Q")
        self._firsts = array("Q")
        self._lasts = array("Q")

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        span = f"{self._firsts[0]}..{self._lasts[-1]}" if self._ids else "empty"
        return f"<RunIndex {span} in {len(self._ids)} rows>"

    @property
    def ids(self) -> list[int]:
        """Row ids in log order."""
        return list(self._ids)

    @property
    def last_index(self) -> int:
        """The last index of the last run; 0 when there is none."""
        return self._lasts[-1] if self._ids else 0

    def append(self, row_id: int, first: int, last: int) -> None:
        """Add the run that follows. The caller has seen to it that it does follow."""
        self._ids.append(row_id)
        self._firsts.append(first)
        self._lasts.append(last)

    def select(self, first: int, last: int) -> list[int]:
        """Ids of the rows with anything of ``first..last`` in them; [] when ``first``
        is not in the log. O(log n)."""
        start = bisect_right(self._firsts, first) - 1
        if start < 0 or self._lasts[start] < first:
            return []
        return list(self._ids[start : bisect_right(self._firsts, last)])

    def truncate(self, index: int) -> tuple[list[int], int | None]:
        """Forget everything from ``index`` on. Returns the ids of rows that go as a whole,
        and the id of the row that has to be cut, or None. O(log n)."""
        keep = bisect_right(self._firsts, index - 1)
        gone = list(self._ids[keep:])
        del self._ids[keep:], self._firsts[keep:], self._lasts[keep:]
        if not keep or self._lasts[-1] < index:
            return gone, None
        self._lasts[-1] = index - 1
        return gone, self._ids[-1]

    def compact(self, index: int, rows_max: int) -> tuple[list[int], bool]:
        """Forget whole runs that end at or before ``index``, at most ``rows_max`` of them.
        Returns their ids, and whether that was all of them."""
        ready = bisect_right(self._lasts, index)
        count = min(ready, rows_max)
        gone = list(self._ids[:count])
        del self._ids[:count], self._firsts[:count], self._lasts[:count]
        return gone, count == ready


class LogIndex:
    """The RunIndex of every shard, changed by the writer thread while the main thread
    asks. The lock is held for microseconds, never across SQLite."""

    __slots__ = ("_lock", "_runs", "row_id_next")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, RunIndex] = {}
        self.row_id_next = 1  # the writer's own

    def __repr__(self) -> str:
        return f"<LogIndex {self._runs}>"

    def __contains__(self, shard: int) -> bool:
        return shard in self._runs

    def create(self, shard: int) -> None:
        """Begin an empty log."""
        with self._lock:
            self._runs[shard] = RunIndex()

    def remove(self, shard: int) -> list[int]:
        """Forget a shard's log. Returns the ids of its rows."""
        with self._lock:
            runs = self._runs.pop(shard, None)
        return runs.ids if runs else []

    def ids(self, shard: int) -> list[int]:
        """All row ids of a shard's log, in log order."""
        with self._lock:
            return self._runs[shard].ids

    def last_index(self, shard: int) -> int:
        """The last index of a shard's log; 0 when it has no rows."""
        return self._runs[shard].last_index

    def append(self, shard: int, first: int, last: int) -> int:
        """Add the run that follows. Returns the id of its row."""
        row_id = self.row_id_next
        self.row_id_next += 1
        with self._lock:
            self._runs[shard].append(row_id, first, last)
        return row_id

    def select(self, shard: int, first: int, last: int) -> tuple[list[int], int]:
        """RunIndex.select, and ``last`` brought down to the end of the log."""
        with self._lock:
            runs = self._runs.get(shard)
            if runs is None:
                return [], 0
            return runs.select(first, last), min(last, runs.last_index)

    def truncate(self, shard: int, index: int) -> tuple[list[int], int | None]:
        """RunIndex.truncate."""
        with self._lock:
            return self._runs[shard].truncate(index)

    def compact(self, shard: int, index: int, rows_max: int) -> tuple[list[int], bool]:
        """RunIndex.compact."""
        with self._lock:
            return self._runs[shard].compact(index, rows_max)
