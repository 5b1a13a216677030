"""data.db: what the shards' logs have made so far. Rebuilt from the logs after a crash.

``synchronous=NORMAL``: a power cut may take the newest flushes, whole and in order.
So a log is cut only below an index for which ``checkpoint`` has returned True since.

Tables (migrations.py): ``kv`` and ``sessions`` hold rows of all *generations*; a
generation is one copy of one shard's state. ``applied`` names the generations
that a shard's replica uses and how far it is: one for its sessions, and one for its rows,
which a shard that was split shares with its other half. ``receiving`` is a snapshot on
its way in, into a generation of its own. ``generation`` lists all there are: what
neither of the two uses is swept away in slices (sweeping.py).

``kv`` is an ordinary table with a unique index on (generation, key). Measured
against WITHOUT ROWID: flushes of 20,000 keys with 256 B values 307,000 rows/s against
223,000, with 64 KiB values 9,800 against 4,700; point reads 7.2 against 6.7 µs, and
26 against 133 µs; the file is a fifth larger for small values.

Threads: what writes takes a lock and belongs on the flusher thread; get and scan
have a connection of their own, for the main thread.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kritad.storage import data_rows, walscan
from kritad.storage.applied_rows import APPLIED_COLUMNS, applied_row, read_applied
from kritad.storage.data_reader import DataReader
from kritad.storage.data_wal import DataWal
from kritad.storage.database import (
    execute_rows,
    failure,
    open_reader,
    open_writer,
    opening,
    write_failure,
)
from kritad.storage.errors import Corrupt, StorageError, StoreFailed
from kritad.storage.extent import OUTSIDE, WHOLE_RING, Arc, Extent
from kritad.storage.migrations import DATA, migrate
from kritad.storage.rows import Applied, Row, ShardFlush, Stamp
from kritad.storage.scrubbing import Scrubbed, scrub_slice
from kritad.storage.sweeping import Uses, What, left_behind, sweep_slice

__all__ = ["Applied", "DataDatabase", "Row", "ShardFlush"]

# Rows that are put at a time: as many as eight of the statements that put them.
_FLUSH_SLICE = 1_024

_PUT_APPLIED = f"INSERT OR REPLACE INTO applied ({APPLIED_COLUMNS})"


class DataDatabase:
    """See the module's docstring. Made by ``open``."""

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._writing = threading.Lock()
        self._failed: StorageError | None = None
        self._wal = DataWal(path, writer)
        self.sizes = self._wal.sizes
        # Changed ahead of the commit: a failed one ends the object's life anyway.
        self._applied: dict[int, Applied] = {}
        self._receiving: dict[int, int] = {}  # shard -> generation
        self._kept: dict[int, int] = {}  # shard -> what an earlier transfer has brought
        self._shards: dict[int, int] = {}  # generation -> shard
        self.damaged: dict[int, str] = {}  # shard -> what was found when opening
        # Made since this start and perhaps not flushed yet: not to be swept.
        self._fresh: set[int] = set()
        self._reserved: set[int] = set()  # numbers given out and not yet listed
        self._numbers = itertools.count(1)
        self._orphans: dict[int, bytes] = {}  # generation -> key up to which it was swept
        self._rows = DataReader(path, reader, self._shards)

    def __repr__(self) -> str:
        state = f"failed: {self._failed.message}" if self._failed else "open"
        at = {shard: (row.generation, row.index) for shard, row in self._applied.items()}
        return f"<DataDatabase {state} applied={at} receiving={self._receiving}>"

    @classmethod
    def open(cls, path: Path) -> DataDatabase:
        """Open and migrate. Raises Corrupt(None), FormatUnknown, StoreFailed."""
        walscan.rewrite_wal(path.with_name(path.name + "-wal"))
        with opening(path) as opened:
            writer = opened.enter_context(contextlib.closing(open_writer(path, "NORMAL")))
            migrate(writer, path, DATA)
            reader = opened.enter_context(contextlib.closing(open_reader(path)))
            database = cls(path, writer, reader)
            database._wal.empty()
            database._read_small()
            database._note_damaged()
        return database

    def close(self) -> None:
        """Close both connections, the writer last: it does the final checkpoint."""
        self._reader.close()
        self._writer.close()

    def applied(self) -> dict[int, Applied]:
        """How far each shard's state is, as of its last flush.

        A shard whose row was found damaged is left out (``damaged`` says so): its state
        is made again from the log, or by RaftDatabase.load's verdict from the others.
        """
        self._check()
        return dict(self._applied)

    def inhabited(self) -> bool:
        """Whether any shard has, or has had, a state here; for a start. Raises StoreFailed."""
        with self.transaction():
            return bool(self._applied or self.damaged or self.listed())

    # Reading, on the main thread.

    # ``shard`` is who is to blame when a row is damaged, by default the generation's user.

    def get(self, generation: int, key: bytes, shard: int | None = None) -> Row | None:
        """The stored row, its digest verified. Raises Corrupt(shard). ~10 µs."""
        if self._failed is not None:
            raise self._failed
        return self._rows.get(generation, key, shard)

    def stamp(self, generation: int, key: bytes, shard: int | None = None) -> Stamp | None:
        """The row without its value. Raises StoreFailed, Corrupt. ~5 µs."""
        if self._failed is not None:
            raise self._failed
        return self._rows.stamp(generation, key, shard)

    def stamps(
        self, generation: int, keys: Sequence[bytes], shard: int | None = None
    ) -> dict[bytes, Stamp]:
        """``stamp`` of several keys at once; absent ones are left out. ~4 µs a key."""
        if self._failed is not None:
            raise self._failed
        return self._rows.stamps(generation, keys, shard)

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
        """At most ``limit`` rows from ``start`` on and below ``stop``, if that is not None; in
        ``reverse`` the last ones, the last first. Without the row (None) where it is outside of
        the arc. Nothing behind the one with which their values have ``bytes_max`` together.
        Raises Corrupt(shard). ~4 µs a row."""
        self._check()
        return list(
            self._rows.between(
                generation, start, stop, limit, arc, shard, reverse=reverse, bytes_max=bytes_max
            )
        )

    def keys(
        self,
        generation: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        arc: Arc = WHOLE_RING,
        shard: int | None = None,
        *,
        reverse: bool = False,
    ) -> list[tuple[bytes, bool]]:
        """See DataReader.keys."""
        self._check()
        return self._rows.keys(generation, start, stop, limit, arc, shard, reverse=reverse)

    def ending(
        self,
        generation: int,
        arc: Arc,
        after_ms: int,
        upto_ms: int,
        limit: int,
        shard: int | None = None,
    ) -> tuple[list[tuple[int, bytes]], int]:
        """See DataReader.ending."""
        self._check()
        return self._rows.ending(generation, arc, after_ms, upto_ms, limit, shard)

    def leased(
        self, generation: int, arc: Arc, shard: int | None = None
    ) -> list[tuple[bytes, int]]:
        """See DataReader.leased."""
        self._check()
        return list(self._rows.leased(generation, arc, shard))

    def scan_sessions(
        self, generation: int, after: int, limit: int, shard: int | None = None
    ) -> list[tuple[int, bytes]]:
        """At most ``limit`` sessions, ascending, with ids above ``after``. Raises Corrupt."""
        self._check()
        return list(self._rows.scan_sessions(generation, after, limit, shard))

    def count(self, generation: int, empty: Extent, shard: int | None = None) -> Extent:
        """What is in a generation by the cells of ``empty``, which is filled and returned;
        rows outside of it are left out. Digests and sizes are those that are stored: compare
        the sum with the state hash. Raises Corrupt. ~2 µs a row, all of them in one go."""
        self._check()
        for key, stamp in self._rows.sizes(generation, shard):
            cell = empty.cell_of(key)
            if cell != OUTSIDE:
                empty.count_row(cell, key, stamp.digest, stamp.value_bytes)
        return empty

    # Writing, on the flusher thread.

    def flush(self, batch: Sequence[ShardFlush], durable: bool = False) -> None:
        """Store what several shards changed, each with how far it is, in one transaction.

        Not durable until ``checkpoint`` returns True, unless ``durable``: then it and
        all before it are when this returns. Raises StoreFailed; then the store is to be
        stopped. 250,000 rows/s with 256 B values.
        """
        with self.transaction(durable=durable):
            before = list(self._applied.values())
            for item in batch:
                applied = item.applied
                known = self._applied.get(applied.shard)
                assert known is None or known.generation <= applied.generation, (known, applied)
                # In key order neighbours share pages; sorted here, off the main thread. And by
                # slices: a tuple for each row at once would be work for the collector.
                for keys in data_rows.slices(sorted(item.rows), _FLUSH_SLICE):
                    self.put(applied.rows, [(key, item.rows[key]) for key in keys], ())
                self.put(applied.generation, (), item.sessions)
                self._write_applied(applied)
            self._note_left_behind(before)

    def checkpoint(self) -> bool:
        """Whether everything flushed before is now durable in the main file. False while
        an open snapshot reader holds the WAL, or the disk has no room for the file to grow: try
        again later. Raises StoreFailed."""
        with self._writing:
            self._check()
            try:
                return self._wal.move()
            except sqlite3.Error as error:
                self._failed = write_failure(self.path, "checkpoint", error)
                raise self._failed from error

    def write_rows(self, generation: int, rows: Sequence[tuple[bytes, Row | None]]) -> None:
        """Put rows into a generation, in one transaction of their own."""
        with self.transaction():
            self.put(generation, rows, ())

    def install(self, applied: Applied) -> None:
        """Let a shard use the generation ``applied`` names; durable when it returns.

        Call it after raft.db has saved the snapshot: RaftDatabase.load then tells
        how to go on if the node stops in between. The old generation is swept later.
        """
        with self.transaction(durable=True):
            before = list(self._applied.values())
            self._write_applied(applied)
            self._forget_receiving(applied.shard)
            self._note_left_behind(before)

    def drop(self, shard: int) -> None:
        """Forget a shard's state (its replica was removed); its rows are swept later."""
        with self.transaction():
            before = list(self._applied.values())
            self._delete_applied(shard)
            self._forget_receiving(shard)
            self._fresh = {g for g in self._fresh if self._shards.get(g) != shard}
            self._note_left_behind(before)

    # Generations

    def create_generation(self) -> int:
        """A fresh, empty generation. Its number was never used in this file before."""
        with self.transaction() as connection:
            return self.insert_generation(connection)

    def release(self, generation: int) -> None:
        """A generation made since this start is not wanted after all: let it be swept."""
        self._fresh.discard(generation)

    def reserve_generation(self) -> int:
        """A number as of create_generation, for sessions that are flushed later, with the
        state that they belong to: it is listed then. On any thread; nothing is written, and
        a number that was not used until a restart is given again."""
        generation = next(self._numbers)
        self._reserved.add(generation)
        return generation

    def sweep(self, limit: int) -> int:
        """Delete at most ``limit`` rows that nothing refers to. Returns how many it went
        over; 0 when there is nothing left to do. ~5 µs a row, and 4 ms a MiB of their values."""
        with self.transaction():
            held = {*self._fresh, *self._receiving.values(), *self._kept.values()}
            uses = Uses.of(self._applied.values(), held)
            return sweep_slice(self, uses, self._orphans, limit)

    def scrub(self, behind_id: int, rows_max: int) -> Scrubbed:
        """Read and verify up to ``rows_max`` rows, in the order of the table and in no
        generation's. Raises Corrupt(None) for what SQLite cannot read, StoreFailed."""
        with self._writing:  # so that nothing changes between a row and its place in the index
            self._check()
            try:
                return scrub_slice(self._writer, behind_id, rows_max)
            except sqlite3.Error as error:
                raise failure(self.path, "read", error) from error

    def received(self, generation: int) -> Applied | None:
        """What a completely received snapshot in ``generation`` brings, not installed yet.
        For a start after a stop between RaftDatabase.save and ``install``. Raises Corrupt,
        StoreFailed."""
        self._check()
        query = f"SELECT {APPLIED_COLUMNS} FROM receiving WHERE generation=? AND complete=1"
        try:
            found = self._reader.execute(query, (generation,)).fetchall()
        except sqlite3.Error as error:
            raise failure(self.path, "read", error) from error
        return read_applied(self.path, found[0]) if found else None

    # For SnapshotWriter, inside a transaction.

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction of the writer; what escapes from it ends the object's life.
        ``durable``: it is on the disk, with all before it, when the block has ended."""
        with self._writing:
            self._check()
            try:
                if durable:
                    self._writer.execute("PRAGMA synchronous=FULL")
                changes = self._writer.total_changes
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
                if durable:
                    self._writer.execute("PRAGMA synchronous=NORMAL")
                self._wal.note_commit(changes)
            except sqlite3.Error as error:
                self._failed = write_failure(self.path, "write", error)
                raise self._failed from error
            except BaseException as error:
                # The memory is ahead of the disk now, whoever is to blame.
                self._failed = StoreFailed(f"a write to {self.path} was broken off: {error!r}")
                raise

    def insert_generation(self, connection: sqlite3.Connection) -> int:
        """create_generation() as part of a transaction."""
        generation = next(self._numbers)
        connection.execute("INSERT INTO generation VALUES (?)", (generation,))
        self._fresh.add(generation)
        return generation

    def hold(self, shard: int, generation: int | None) -> None:
        """Keep the generation that ``shard`` receives a snapshot into, in place of any
        earlier one; None: none."""
        self._fresh.discard(self._receiving.pop(shard, 0))
        if generation is not None:
            self._receiving[shard] = generation
            self._shards[generation] = shard

    def receiving(self, shard: int) -> int | None:
        """The generation that ``shard`` receives a snapshot into; None: none."""
        return self._receiving.get(shard)

    def kept(self, shard: int) -> int | None:
        """What an earlier transfer has brought and the present one may take over."""
        return self._kept.get(shard)

    def keep(self, shard: int, generation: int | None) -> None:
        """Keep that generation, in place of any other, until the shard has its snapshot,
        its replica is dropped, or the node is started again; None: none."""
        self._kept.pop(shard, None)
        if generation is not None:
            self._kept[shard] = generation

    def put(
        self,
        generation: int,
        rows: Sequence[tuple[bytes, Row | None]],
        sessions: Sequence[tuple[int, bytes | None]],
    ) -> None:
        """Store and delete rows and sessions."""
        data_rows.put_rows(self._writer, generation, rows)
        data_rows.put_sessions(self._writer, generation, sessions)

    # For sweep_slice, inside a transaction.

    def listed(self) -> list[int]:
        """See sweeping.Store."""
        found = self._writer.execute("SELECT id FROM generation ORDER BY id").fetchall()
        return [generation for (generation,) in found]

    def unlist(self, generation: int) -> None:
        """See sweeping.Store."""
        self._writer.execute("DELETE FROM generation WHERE id=?", (generation,))
        self._shards.pop(generation, None)

    def delete_some(self, what: What, generation: int, limit: int) -> int:
        """See sweeping.Store."""
        delete = data_rows.delete_rows if what == "kv" else data_rows.delete_sessions
        return delete(self._writer, generation, limit)

    def keys_behind(self, generation: int, after: bytes, limit: int) -> list[bytes]:
        """See sweeping.Store. The index has all that it reads."""
        query = "SELECT key FROM kv WHERE generation=? AND key>? ORDER BY key LIMIT ?"
        found = self._writer.execute(query, (generation, after, limit)).fetchall()
        return [key for (key,) in found]

    def delete_keys(self, generation: int, keys: Sequence[bytes]) -> int:
        """See sweeping.Store."""
        return data_rows.delete_keys(self._writer, generation, keys)

    def note_orphans(self, generation: int, after: bytes | None) -> None:
        """See sweeping.Store."""
        if after is None:
            self._writer.execute("DELETE FROM orphans WHERE generation=?", (generation,))
            self._orphans.pop(generation, None)
        else:
            query = "INSERT OR REPLACE INTO orphans VALUES (?, ?)"
            self._writer.execute(query, (generation, after))
            self._orphans[generation] = after

    def _note_left_behind(self, before: Sequence[Applied]) -> None:
        for generation in left_behind(before, self._applied.values()):
            self.note_orphans(generation, b"")

    def _note_damaged(self) -> None:
        """The state of a damaged shard is made anew in another generation. Nobody knows
        whom its rows have been beside until now."""
        if self.damaged:
            with self.transaction():
                for generation in Uses.of(self._applied.values()).rows:
                    self.note_orphans(generation, b"")

    def _write_applied(self, applied: Applied) -> None:
        if applied.generation in self._reserved:
            self._list(applied.generation)
            self._reserved.discard(applied.generation)
        execute_rows(self._writer, _PUT_APPLIED, [applied_row(applied)])
        self._keep_applied(applied)

    def _list(self, generation: int) -> None:
        self._writer.execute("INSERT INTO generation VALUES (?)", (generation,))

    def _delete_applied(self, shard: int) -> None:
        self._writer.execute("DELETE FROM applied WHERE shard=?", (shard,))
        self._applied.pop(shard, None)

    def _forget_receiving(self, shard: int) -> None:
        self._writer.execute("DELETE FROM receiving WHERE shard=?", (shard,))
        self._receiving.pop(shard, None)
        self._kept.pop(shard, None)

    def _keep_applied(self, applied: Applied) -> None:
        self._applied[applied.shard] = applied
        self._shards[applied.generation] = applied.shard
        self._shards.setdefault(applied.rows, applied.shard)
        self._fresh.discard(applied.generation)

    def _read_small(self) -> None:
        query = f"SELECT {APPLIED_COLUMNS} FROM applied ORDER BY shard"
        for row in self._reader.execute(query).fetchall():
            try:
                applied = read_applied(self.path, row)
            except Corrupt as error:
                self.damaged[row[0]] = error.message
                continue
            self._keep_applied(applied)
        query = "SELECT shard, generation FROM receiving"
        for shard, generation in self._reader.execute(query).fetchall():
            self.hold(shard, generation)
        query = "SELECT generation, after FROM orphans"
        self._orphans = dict(self._reader.execute(query).fetchall())
        query = "SELECT coalesce(max(id), 0) + 1 FROM generation"
        self._numbers = itertools.count(self._reader.execute(query).fetchone()[0])

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
