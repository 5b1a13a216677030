"""data.db without SQLite: rows and sessions of generations in dicts, for the simulator's layer A.

It does what kritad/storage/data_db.py does, with its exceptions and its assertions.
test_stores.py drives both and compares.

Rules:
* ``synchronous=NORMAL``: a power cut takes the newest transactions since the last complete
  checkpoint or durable transaction, whole and in order; how many is chance.
* What would be in the file (data_tables.py) is kept apart from what the process knows
  (applied, receiving, fresh generations): the first is what a power cut undoes, the second
  is made anew by every start.
* It is a subclass so that mypy holds the two signatures together, and so that bugs planted
  in what the two have in common are in both. What is inherited touches no connection.
* A transaction that fails is undone and ends the object's life. ``crash`` hands what
  the disk has to a new object; the old one refuses everything from then on.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

from kritad.storage.data_db import DataDatabase
from kritad.storage.data_wal import Sizes
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError, StoreFailed
from kritad.storage.extent import OUTSIDE, WHOLE_RING, Arc, Extent
from kritad.storage.places import stored_token
from kritad.storage.rows import Applied, Row, Stamp
from kritad.storage.scrubbing import Scrubbed
from kritad.storage.sweeping import What
from kritad.storage.table import ROW_OVERHEAD_BYTES
from tests.simulator.data_tables import Generation, Receipt, Tables
from tests.simulator.transactions import Journal, Undo, put_back, roll_back

# There is none. Nothing that is inherited does more than hand it on.
_NO_CONNECTION = cast(sqlite3.Connection, None)


class MemoryDataDatabase(DataDatabase):
    """See the module's docstring.

    ``corrupt_keys``: (generation, key) of rows that do not match their digest any more.
    ``unreadable_keys``: those on a page that SQLite itself finds damaged. Writing such a
    key again heals it. ``fail_with`` is raised by the next write, of which nothing is done.
    """

    def __init__(self, path: Path = Path("data.db")) -> None:
        self.path = path
        self.fail_with: StorageError | None = None
        self.corrupt_keys: set[tuple[int, bytes]] = set()
        self.unreadable_keys: set[tuple[int, bytes]] = set()
        self._failed: StorageError | None = None
        self.sizes = Sizes(file_bytes=1 << 40)  # no bound of anything
        self._journal = Journal()
        self._undo: list[Undo] = []  # of the transaction that is open
        self._readers: dict[int, int] = {}  # snapshot reader -> commits when it began
        self._readers_count = 0
        self._adopt(Tables())

    def _adopt(self, tables: Tables) -> None:
        """Forget what the process knew, and read the tables."""
        self._tables = tables
        self._generations = tables.generations
        self._applied = {}
        self._receiving = {}
        self._kept = {}
        self._shards = {}
        self._fresh = set()
        self._reserved = set()
        self._orphans = dict(tables.orphans)
        self._numbers = itertools.count(tables.listed[-1] + 1 if tables.listed else 1)
        self.damaged = {}
        self._read_small()
        self._note_damaged()

    @classmethod
    def open(cls, path: Path) -> MemoryDataDatabase:
        """A new store with nothing in it."""
        return cls(path)

    def close(self) -> None:
        """As the real one: everything is durable now, and nothing can be asked any more.
        ``crash`` opens it again."""
        self._journal.sync()
        self._failed = StoreFailed(f"{self.path} is closed")

    def crash(self, *, power: bool, chance: random.Random) -> MemoryDataDatabase:
        """The store as a start after a crash finds it. This object is done with; snapshot
        readers that are open on it keep what they have. ``power``: some of the newest
        transactions that no checkpoint has covered are gone."""
        if power:
            self._journal.lose(chance)
        after = type(self)(self.path)
        after.corrupt_keys, after.unreadable_keys = self.corrupt_keys, self.unreadable_keys
        after._adopt(self._tables)
        self._adopt(Tables())
        self._failed = StoreFailed(f"{self.path}: the process that had it open has crashed")
        return after

    def damage_applied(self, shard: int) -> None:
        """Let the row that says how far a shard is be damaged: the next start finds it."""
        assert shard in self._tables.applied, (shard, self)
        self._tables.applied_damaged.add(shard)

    # Reading. 0.2 µs for a get.

    def get(self, generation: int, key: bytes, shard: int | None = None) -> Row | None:
        """See DataDatabase.get."""
        if self._failed is not None:
            raise self._failed
        held = self._generations.get(generation)
        if held is None:
            return None
        if self.corrupt_keys or self.unreadable_keys:
            self.check_row(generation, key, shard)
        return held.rows.get(key)

    def stamp(self, generation: int, key: bytes, shard: int | None = None) -> Stamp | None:
        """See DataDatabase.stamp. As there, what a damaged row had is told; only what
        SQLite itself cannot read is Corrupt."""
        if self._failed is not None:
            raise self._failed
        held = self._generations.get(generation)
        if held is None:
            return None
        if (generation, key) in self.unreadable_keys:
            self.check_row(generation, key, shard)
        row = held.rows.get(key)
        if row is None:
            return None
        return Stamp(row.revision, row.digest, len(row.value), row.expires_ms, row.lease)

    def stamps(
        self, generation: int, keys: Sequence[bytes], shard: int | None = None
    ) -> dict[bytes, Stamp]:
        """See DataDatabase.stamps."""
        found = {key: self.stamp(generation, key, shard) for key in keys}
        return {key: stamp for key, stamp in found.items() if stamp is not None}

    def between(
        self,
        generation: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> list[tuple[bytes, Row | None]]:
        """See DataDatabase.between."""
        found: list[tuple[bytes, Row | None]] = []
        for key, ours in self.keys(generation, start, stop, limit, arc, reverse=reverse):
            row = None
            if ours:
                if self.corrupt_keys or self.unreadable_keys:
                    self.check_row(generation, key, shard)
                row = self._generations[generation].rows[key]
            found.append((key, row))
            if bytes_max is not None:
                bytes_max -= 0 if row is None else len(row.value)
                if bytes_max <= 0:
                    break
        return found

    def keys(
        self,
        generation: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        arc: Arc = WHOLE_RING,
        _shard: int | None = None,
        *,
        reverse: bool = False,
    ) -> list[tuple[bytes, bool]]:
        """See DataDatabase.keys."""
        self._check()
        held = self._generations.get(generation)
        if held is None:
            return []
        keys = held.sorted_keys()
        last = len(keys) if stop is None else bisect_left(keys, stop)
        places = range(bisect_left(keys, start), last)
        ordered = (keys[place] for place in (reversed(places) if reverse else places))
        lo, hi = arc
        return [
            (key, arc == WHOLE_RING or lo <= stored_token(key) < hi)
            for key in islice(ordered, limit)
        ]

    def ending(
        self,
        generation: int,
        arc: Arc,
        after_ms: int,
        upto_ms: int,
        limit: int,
        shard: int | None = None,  # noqa: ARG002
    ) -> tuple[list[tuple[int, bytes]], int]:
        """See DataDatabase.ending. Here it can meet no damage."""
        self._check()
        rows = self.generation(generation).rows
        ends = sorted(
            (row.expires_ms, key)
            for key, row in rows.items()
            if row.expires_ms and after_ms < row.expires_ms <= upto_ms
        )
        if len(ends) >= limit:
            upto_ms = min(upto_ms, ends[limit - 1][0])
        lo, hi = arc
        return [
            (end_ms, key)
            for end_ms, key in ends
            if end_ms <= upto_ms and lo <= stored_token(key) < hi
        ], upto_ms

    def leased(
        self,
        generation: int,
        arc: Arc,
        shard: int | None = None,  # noqa: ARG002
    ) -> list[tuple[bytes, int]]:
        """See DataDatabase.leased. Here it can meet no damage."""
        self._check()
        lo, hi = arc
        return [
            (key, row.lease)
            for key, row in self.generation(generation).rows.items()
            if row.lease and lo <= stored_token(key) < hi
        ]

    def count(self, generation: int, empty: Extent, shard: int | None = None) -> Extent:  # noqa: ARG002
        """See DataDatabase.count. Here it can meet no damage."""
        self._check()
        for key, row in self.generation(generation).rows.items():
            cell = empty.cell_of(key)
            if cell != OUTSIDE:
                empty.count_row(cell, key, row.digest, len(row.value))
        return empty

    def scan_sessions(
        self,
        generation: int,
        after: int,
        limit: int,
        shard: int | None = None,  # noqa: ARG002
    ) -> list[tuple[int, bytes]]:
        """See DataDatabase.scan_sessions."""
        self._check()
        held = self._generations.get(generation)
        if held is None:
            return []
        return sorted((s, blob) for s, blob in held.sessions.items() if s > after)[:limit]

    def scrub(self, behind_id: int, rows_max: int) -> Scrubbed:
        """See DataDatabase.scrub. Here a row's number is its place in the order of all."""
        self._check()
        places = [(g, key) for g in sorted(self._generations) for key in self._keys_of(g)]
        some = places[behind_id : behind_id + rows_max]
        damaged = self.corrupt_keys | self.unreadable_keys
        unsound = tuple(place for place in some if place in damaged)
        return Scrubbed(len(some), behind_id + len(some), len(places), unsound)

    def _keys_of(self, generation: int) -> list[bytes]:
        return self._generations[generation].sorted_keys()

    def received(self, generation: int) -> Applied | None:
        """See DataDatabase.received."""
        self._check()
        for receipt in self._tables.receiving.values():
            if receipt.complete and receipt.applied.generation == generation:
                return receipt.applied
        return None

    # For snapshot readers

    @property
    def hold_checkpoints(self) -> int:
        """How many snapshot readers are open. While there are any, a checkpoint is not
        complete once something was written after the oldest began."""
        return len(self._readers)

    def begin_read(self) -> int:
        """A snapshot reader has begun. Returns what ``end_read`` is to be given."""
        self._readers_count += 1
        self._readers[self._readers_count] = self._tables.commits
        return self._readers_count

    def end_read(self, reader: int) -> None:
        """It has ended; again is no harm."""
        self._readers.pop(reader, None)

    def applied_row(self, shard: int) -> Applied | None:
        """What the file says of how far a shard is. Raises Corrupt(shard)."""
        if shard in self._tables.applied_damaged:
            raise Corrupt(shard, self._applied_problem(shard), REBUILD_HINT)
        return self._tables.applied.get(shard)

    def generation(self, number: int) -> Generation:
        """The rows of a generation as they are now. Not to be changed."""
        return self._generations.get(number) or Generation()

    def check_row(self, generation: int, key: bytes, shard: int | None = None) -> None:
        """Raises Corrupt(shard) for a damaged row."""
        place = (generation, key)
        if place in self.unreadable_keys:
            problem = "database disk image is malformed"
        elif place in self.corrupt_keys and key in self._generations[generation].rows:
            problem = f"key {key!r:.64} does not match its digest"
        else:
            return
        if shard is None:
            shard = self._shards.get(generation)
        text = f"the state of shard {shard} is damaged in {self.path}: {problem}"
        raise Corrupt(shard, text, REBUILD_HINT)

    # Writing

    def checkpoint(self) -> bool:
        """See DataDatabase.checkpoint."""
        self._begin()
        if self._readers and min(self._readers.values()) < self._tables.commits:
            return False
        self._journal.sync()
        self.sizes.unchecked_bytes = 0
        return True

    # For MemorySnapshotWriter, inside a transaction

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """See DataDatabase.transaction; there is no connection to be had."""
        self._begin()
        undo = self._undo = []
        try:
            yield _NO_CONNECTION
        except BaseException as error:
            roll_back(undo)
            self._failed = StoreFailed(f"a write to {self.path} was broken off: {error!r}")
            raise
        self._tables.commits += bool(undo)
        self.sizes.unchecked_bytes += bool(undo)  # what it put is counted already
        self._journal.commit(undo, durable=durable)

    def insert_generation(self, connection: sqlite3.Connection) -> int:  # noqa: ARG002
        """See DataDatabase.insert_generation."""
        generation = next(self._numbers)
        self._list(generation)
        self._fresh.add(generation)
        return generation

    def put(
        self,
        generation: int,
        rows: Sequence[tuple[bytes, Row | None]],
        sessions: Sequence[tuple[int, bytes | None]],
    ) -> None:
        """See DataDatabase.put. 0.3 µs a row."""
        if not rows and not sessions:
            return
        held = self._generations.get(generation)
        if held is None:
            held = self._generations[generation] = Generation()
        self._undo.append(held.change(rows, sessions))
        values = sum(len(row.value) for _, row in rows if row is not None)
        self.sizes.unchecked_bytes += values + ROW_OVERHEAD_BYTES * (len(rows) + len(sessions))
        if self.corrupt_keys or self.unreadable_keys:
            written = {(generation, key) for key, _ in rows}
            self.corrupt_keys -= written
            self.unreadable_keys -= written

    def receipt(self, shard: int) -> Receipt | None:
        """How far the transfer of a snapshot of ``shard`` is."""
        return self._tables.receiving.get(shard)

    def write_receipt(self, shard: int, receipt: Receipt | None) -> None:
        """Write that down; None: there is no such transfer any more."""
        receiving = self._tables.receiving
        before = receiving.get(shard)
        if before is not receipt:
            self._undo.append((put_back, (receiving, shard, before)))
            put_back(receiving, shard, receipt)

    # For sweep_slice, inside a transaction

    def listed(self) -> list[int]:
        """See sweeping.Store."""
        return list(self._tables.listed)

    def unlist(self, generation: int) -> None:
        """See sweeping.Store."""
        listed = self._tables.listed
        self._undo.append((insort, (listed, generation)))
        listed.remove(generation)
        held = self._generations.pop(generation, None)
        self._undo.append((put_back, (self._generations, generation, held)))
        self._shards.pop(generation, None)

    def delete_some(self, what: What, generation: int, limit: int) -> int:
        """See sweeping.Store."""
        held = self.generation(generation)
        keys = held.sorted_keys()[:limit] if what == "kv" else []
        sessions = sorted(held.sessions)[:limit] if what == "sessions" else []
        gone: list[tuple[bytes, Row | None]] = [(key, None) for key in keys]
        self.put(generation, gone, [(session, None) for session in sessions])
        return len(keys) + len(sessions)

    def keys_behind(self, generation: int, after: bytes, limit: int) -> list[bytes]:
        """See sweeping.Store."""
        keys = self.generation(generation).sorted_keys()
        start = bisect_right(keys, after)
        return keys[start : start + limit]

    def delete_keys(self, generation: int, keys: Sequence[bytes]) -> int:
        """See sweeping.Store."""
        self.put(generation, [(key, None) for key in keys], ())
        return len(keys)

    def note_orphans(self, generation: int, after: bytes | None) -> None:
        """See sweeping.Store."""
        orphans = self._tables.orphans
        self._undo.append((put_back, (orphans, generation, orphans.get(generation))))
        put_back(orphans, generation, after)
        put_back(self._orphans, generation, after)

    def _write_applied(self, applied: Applied) -> None:
        tables, shard = self._tables, applied.shard
        if applied.generation in self._reserved:
            self._list(applied.generation)
            self._reserved.discard(applied.generation)
        self._undo.append((put_back, (tables.applied, shard, tables.applied.get(shard))))
        tables.applied[shard] = applied
        tables.applied_damaged.discard(shard)
        self._keep_applied(applied)

    def _list(self, generation: int) -> None:
        listed = self._tables.listed
        self._undo.append((listed.remove, (generation,)))
        insort(listed, generation)

    def _delete_applied(self, shard: int) -> None:
        tables = self._tables
        if shard in tables.applied:
            self._undo.append((put_back, (tables.applied, shard, tables.applied.pop(shard))))
            tables.applied_damaged.discard(shard)
        self._applied.pop(shard, None)

    def _forget_receiving(self, shard: int) -> None:
        self.write_receipt(shard, None)
        self._receiving.pop(shard, None)
        self._kept.pop(shard, None)

    def _read_small(self) -> None:
        for shard, applied in sorted(self._tables.applied.items()):
            if shard in self._tables.applied_damaged:
                self.damaged[shard] = self._applied_problem(shard)
                continue
            self._keep_applied(applied)
        for shard, receipt in self._tables.receiving.items():
            self.hold(shard, receipt.applied.generation)

    def _applied_problem(self, shard: int) -> str:
        return f"how far shard {shard} is does not match its checksum in {self.path}"

    def _begin(self) -> None:
        self._check()
        if self.fail_with is not None:
            self._failed, self.fail_with = self.fail_with, None
            raise self._failed
