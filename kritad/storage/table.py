"""One shard's keys: the newest in memory, the rest in data.db.

Read order: active memtable, flushing memtable, row cache, SQLite. Writes go to the
active memtable only. ``freeze`` hands its rows to the flusher and begins another;
``flushed`` drops them once their flush has committed. Until then they are read
from memory, so nobody sees a key between two places.

Deleted keys stay in the memtables as None. Main thread only.

Two tables may have their rows in one generation (a shard was split): each asks for the
keys of its own arc only, and scans within it.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from typing import Final, TypeVar

from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.extent import WHOLE_RING, Arc
from kritad.storage.places import stored_token
from kritad.storage.rows import Row, Stamp
from kritad.storage.sorted_keys import SortedKeys

T = TypeVar("T")

# What a row costs in memory besides its key and value, about.
ROW_OVERHEAD_BYTES = 200
# Rows fetched from SQLite at a time: few at first, since most scans want few.
_SCAN_ROWS_MIN = 64
_SCAN_ROWS_MAX = 1024
_SCAN_BYTES = 1 << 20  # of values, and one more: what is fetched may not be wanted
_ENDING_ROWS = 2_000  # looked up at a time: some 5 ms


class _Missing(enum.Enum):
    """Not in memory; None there means deleted."""

    MISSING = 0


_MISSING: Final = _Missing.MISSING


class Table:
    """The keys of one generation, or those of an arc. See the module's docstring."""

    __slots__ = (
        "_active", "_active_keys", "_cache", "_db", "_fetched", "_flushing", "_flushing_keys",
        "arc", "generation", "shard", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        db: DataDatabase,
        generation: int,
        cache: RowCache,
        shard: int | None = None,
        arc: Arc = WHOLE_RING,
    ) -> None:
        """``shard`` is whom a damaged row is laid to; None: whoever uses the generation."""
        self._db = db
        self._cache = cache
        self.generation = generation
        self.shard = shard
        self.arc = arc
        self._active: dict[bytes, Row | None] = {}
        self._active_keys = SortedKeys()
        self._flushing_keys = SortedKeys()
        self._flushing: dict[bytes, Row | None] | None = None
        # What is known of some keys that are not in the active memtable; None: nothing. It stays
        # true until one of them was written and is flushed, so it is dropped by freeze().
        self._fetched: dict[bytes, Row | Stamp | None] = {}
        # An estimate of the active memtable's memory: what the next freeze() hands over.
        self.size_bytes = 0

    def __repr__(self) -> str:
        flushing = "-" if self._flushing is None else len(self._flushing)
        return (
            f"<Table generation={self.generation} active={len(self._active)}"
            f" ({self.size_bytes} B) flushing={flushing}>"
        )

    def get(self, key: bytes) -> Row | None:
        """The row of ``key``, None if it has none. Raises Corrupt, StoreFailed.
        0.1 µs from memory, ~10 µs from SQLite."""
        row = self._held(key)
        if row is not _MISSING:
            return row
        stored = self._db.get(self.generation, key, self.shard)
        if stored is not None:
            self._cache.put(self.generation, key, stored)
        return stored

    def stamp(self, key: bytes) -> Row | Stamp | None:
        """What is known of the row that a write to ``key`` replaces: all of it when it
        is in memory, else all but the value. Raises StoreFailed. 5 µs from SQLite."""
        row = self._active.get(key, _MISSING)
        if row is not _MISSING:
            return row
        fetched = self._fetched.get(key, _MISSING)
        if fetched is not _MISSING:
            return fetched
        row = self._held(key)
        if row is not _MISSING:
            return row
        # Kept, for a write asks several times: is it over, may it be, what goes.
        stamp = self._fetched[key] = self._db.stamp(self.generation, key, self.shard)
        return stamp

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Several ``stamp`` calls follow: look now, at once, for what they will ask of.
        Raises StoreFailed, Corrupt. 0.5 µs for each that is in memory."""
        active, held, missing = self._active, self._held, []
        fetched: dict[bytes, Row | Stamp | None] = {}
        for key in keys:
            if key not in active:
                row = held(key)
                if row is _MISSING:
                    missing.append(key)
                    row = None
                fetched[key] = row
        if missing:
            fetched.update(self._db.stamps(self.generation, missing, self.shard))
        self._fetched = fetched

    def _held(self, key: bytes) -> Row | _Missing | None:
        """What memory says of ``key``, in the read order; None: it is deleted."""
        row = self._active.get(key, _MISSING)
        if row is _MISSING and self._flushing is not None:
            row = self._flushing.get(key, _MISSING)
        if row is not _MISSING:
            return row
        cached = self._cache.get(self.generation, key)
        return _MISSING if cached is None else cached

    def put(self, key: bytes, row: Row) -> None:
        """Set ``key``."""
        self._note_size(key, len(row.value))
        self._active[key] = row
        # The cache has the newest row or none, so that a key which is written again
        # after its flush does not have to be read back first (the row itself is
        # shared with the memtable). Nothing older can enter: until flushed() every
        # read ends in a memtable.
        self._cache.put(self.generation, key, row)

    def delete(self, key: bytes) -> None:
        """Remove ``key``, present or not."""
        self._note_size(key, 0)
        self._active[key] = None
        self._cache.discard(self.generation, key)

    @property
    def rows_changed(self) -> int:
        """How many rows the next freeze() hands over."""
        return len(self._active)

    def _note_size(self, key: bytes, value_bytes: int) -> None:
        """A write of ``key`` follows."""
        old = self._active.get(key, _MISSING)
        if old is _MISSING:
            self.size_bytes += ROW_OVERHEAD_BYTES + len(key) + value_bytes
            self._active_keys.add(key)
        else:
            self.size_bytes += value_bytes - (0 if old is None else len(old.value))

    def freeze(self) -> Mapping[bytes, Row | None]:
        """The rows to flush (None: deleted), in no order; the memtable begins anew.
        ``flushed`` must be called before the next freeze. 0.01 µs a row: sorting
        them, which takes fifty times as long, is left to the flusher's thread, and no
        tuple is made of any, for the collector would count them all."""
        assert self._flushing is None, f"freeze() before flushed(): {self!r}"
        self._fetched = {}
        self._flushing, self._flushing_keys = self._active, self._active_keys
        self._active, self._active_keys = {}, SortedKeys()
        self.size_bytes = 0
        return self._flushing.copy()  # a copy: ``cut`` may take rows away meanwhile

    def flushed(self) -> None:
        """The frozen rows are committed: read them from data.db from now on."""
        assert self._flushing is not None, f"flushed() without freeze(): {self!r}"
        self._flushing = None
        self._flushing_keys.forget()

    def cut(self, at: int, shard_new: int) -> Table:
        """Give away the keys at and behind the token ``at``: to a table over the same
        generation, which is returned. Of those whose flush is under way it gets copies,
        because it may be read before they are committed; it flushes them again, unchanged.

        0.7 µs for every key in memory.
        """
        lo, hi = self.arc
        behind = Table(self._db, self.generation, self._cache, shard_new, (at, hi))
        self.arc = lo, at
        for memtable in (self._flushing or {}, self._active):
            for key in [key for key in memtable if stored_token(key) >= at]:
                row = memtable.pop(key)
                value_bytes = 0 if row is None else len(row.value)
                if memtable is self._active:
                    self.size_bytes -= ROW_OVERHEAD_BYTES + len(key) + value_bytes
                behind._note_size(key, value_bytes)
                behind._active[key] = row
        self._active_keys.forget()
        self._flushing_keys.forget()
        return behind

    def reserve_generation(self) -> int:
        """A number for the sessions of a state whose rows are here; no I/O."""
        return self._db.reserve_generation()

    def leased(self) -> list[tuple[bytes, int]]:
        """The keys of data.db that end with a lease, and with which. For a table that has
        nothing in memory yet. Raises StoreFailed, Corrupt. ~2 µs for each of them."""
        assert not self._active, f"{self!r} is in use"
        return self._db.leased(self.generation, self.arc, self.shard)

    def ending(self, after_ms: int, upto_ms: int) -> tuple[list[tuple[int, bytes]], int]:
        """Deadline and key of all that ends after the one time and up to the other, in no order;
        and which time that is: an earlier one where very much ends. Raises StoreFailed, Corrupt.
        ~2 µs for each of them, and 0.1 µs for each key in memory."""
        stored, upto_ms = self._db.ending(
            self.generation, self.arc, after_ms, upto_ms, _ENDING_ROWS, self.shard
        )
        active, flushing = self._active, self._flushing or {}
        found = [end for end in stored if end[1] not in active and end[1] not in flushing]
        for memtable in (active, flushing):
            for key, row in memtable.items():
                if row is None or not after_ms < row.expires_ms <= upto_ms:
                    continue
                if memtable is active or key not in active:
                    found.append((row.expires_ms, key))
        return found, upto_ms

    def scan(self, after: bytes | None, limit: int) -> list[tuple[bytes, Row]]:
        """At most ``limit`` rows in key order behind ``after`` (None: from the start).
        Raises Corrupt, StoreFailed. Cost: as ``between``."""
        start = b"" if after is None else after + b"\0"
        return list(islice(self.between(start, None), limit))

    def between(
        self,
        start: bytes,
        stop: bytes | None,
        *,
        reverse: bool = False,
        wanted: int = _SCAN_ROWS_MIN,
    ) -> Iterator[tuple[bytes, Row]]:
        """The rows from ``start`` on and below ``stop`` (None: all behind it), in key order
        or in reverse. Use it up before the table changes. So many are probably ``wanted``.

        Raises Corrupt, StoreFailed. ~5 µs a row, and what SortedKeys.between costs.
        """
        for key, row in self.walk(start, stop, reverse=reverse, wanted=wanted):
            if row is not None:
                yield key, row

    def walk(
        self,
        start: bytes,
        stop: bytes | None,
        *,
        reverse: bool = False,
        wanted: int = _SCAN_ROWS_MIN,
    ) -> Iterator[tuple[bytes, Row | None]]:
        """As ``between``, with None for keys that are deleted and still in memory or in data.db, or
        another shard's: there may be any number of them, and each takes as long as a row does."""
        memory = self._in_memory(start, stop, reverse)
        return _merged(memory, self._stored(start, stop, reverse, wanted), reverse)

    def keys(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bool]]:
        """The keys that ``walk`` would have, and whether they are there. ~2 µs for each, whatever
        its value's size; 100,000 of 10 KiB: 0.2 s, and 8 with their values."""
        memory = self._in_memory(start, stop, reverse)
        return _merged(
            ((key, row is not None) for key, row in memory),
            self._stored_keys(start, stop, reverse),
            reverse,
        )

    def _in_memory(
        self, start: bytes, stop: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, Row | None]]:
        """What the memtables say of the keys of a range, in order; None: deleted."""
        newer, older = self._active, self._flushing or {}
        both = heapq.merge(
            self._active_keys.between(newer, start, stop, reverse),
            self._flushing_keys.between(older, start, stop, reverse),
            reverse=reverse,
        )
        for key, _ in groupby(both):
            yield key, newer[key] if key in newer else older[key]

    def _stored(
        self, start: bytes, stop: bytes | None, reverse: bool, count: int
    ) -> Iterator[tuple[bytes, Row | None]]:
        """The rows of a range in data.db, in order, a batch at a time."""
        while True:
            batch = self._db.between(
                self.generation, start, stop, count, self.arc, self.shard,
                reverse=reverse, bytes_max=_SCAN_BYTES,
            )  # fmt: skip
            yield from batch
            size = sum(0 if row is None else len(row.value) for _, row in batch)
            if len(batch) < count and size < _SCAN_BYTES:
                return
            if reverse:
                stop = batch[-1][0]
            else:
                start = batch[-1][0] + b"\0"
            count = min(2 * count, _SCAN_ROWS_MAX)

    def _stored_keys(
        self, start: bytes, stop: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bool]]:
        """The keys of a range in data.db, in order, a batch at a time."""
        while True:
            batch = self._db.keys(
                self.generation, start, stop, _SCAN_ROWS_MAX, self.arc, self.shard,
                reverse=reverse,
            )  # fmt: skip
            yield from batch
            if len(batch) < _SCAN_ROWS_MAX:
                return
            if reverse:
                stop = batch[-1][0]
            else:
                start = batch[-1][0] + b"\0"


def _merged(
    memory: Iterator[tuple[bytes, T]], stored: Iterator[tuple[bytes, T]], reverse: bool
) -> Iterator[tuple[bytes, T]]:
    """Both in order. Of a key that both have, memory has what is newer."""
    held, found = next(memory, None), next(stored, None)
    while held is not None or found is not None:
        if found is None or (held is not None and _is_first(held[0], found[0], reverse)):
            assert held is not None
            if found is not None and found[0] == held[0]:
                found = next(stored, None)
            yield held
            held = next(memory, None)
        else:
            yield found
            found = next(stored, None)


def _is_first(key: bytes, other: bytes, reverse: bool) -> bool:
    """Whether ``key`` comes before ``other``, or is the same."""
    return key >= other if reverse else key <= other
