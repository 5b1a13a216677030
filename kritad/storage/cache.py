"""A bounded memory of rows read from data.db, shared by all tables of a node.

Least recently used goes first. An OrderedDict, not a dict: taking the oldest key
of a dict from which many were taken walks over all their empty places.
"""

from __future__ import annotations

from collections import OrderedDict

from kritad.storage.rows import Row

# What an entry costs besides key and value: tuple, Row, ints, dict and list node.
ENTRY_OVERHEAD_BYTES = 400


class RowCache:
    """Rows by (generation, key), at most about ``bytes_max`` of memory."""

    __slots__ = ("_rows", "bytes_max", "hits", "misses", "size_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size_bytes = 0
        self.hits = 0
        self.misses = 0
        self._rows: OrderedDict[tuple[int, bytes], Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return (
            f"<RowCache {len(self._rows)} rows {self.size_bytes}/{self.bytes_max} B"
            f" hits={self.hits} misses={self.misses}>"
        )

    def get(self, generation: int, key: bytes) -> Row | None:
        """The row, which becomes the newest; None when it is not here. ~0.3 µs."""
        place = (generation, key)
        row = self._rows.get(place)
        if row is None:
            self.misses += 1
            return None
        self.hits += 1
        self._rows.move_to_end(place)
        return row

    def put(self, generation: int, key: bytes, row: Row) -> None:
        """Remember a row. One that is larger than an eighth of the cache is not kept."""
        place, rows = (generation, key), self._rows
        size = ENTRY_OVERHEAD_BYTES + len(key) + len(row.value)
        before = rows.get(place)
        if size * 8 > self.bytes_max:
            self.discard(generation, key)
            return
        rows[place] = row
        if before is None:
            self.size_bytes += size
        else:
            rows.move_to_end(place)
            self.size_bytes += len(row.value) - len(before.value)
        while self.size_bytes > self.bytes_max:
            (_, oldest), old = rows.popitem(last=False)
            self.size_bytes -= _size(oldest, old)

    def discard(self, generation: int, key: bytes) -> None:
        """Forget a row, if it is here: it has changed. ~0.1 µs."""
        row = self._rows.pop((generation, key), None)
        if row is not None:
            self.size_bytes -= _size(key, row)


def _size(key: bytes, row: Row) -> int:
    return ENTRY_OVERHEAD_BYTES + len(key) + len(row.value)
