"""Reading entries from raft.db, on a connection of its own that never waits for a commit.

Rule: every record is verified every time it is read. A record that is damaged, or a
place of the log that should hold one and does not, is Corrupt, never "missing":
the caller poisons the replica and has it rebuilt (raft.md B47).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kritad.raft.configuration import decode_configuration
from kritad.raft.records import CorruptRecord, unpack_run
from kritad.raft.types import Boot, Entry, EntryKind, HardState
from kritad.storage.catalog import Catalog, Tail
from kritad.storage.database import failure
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError
from kritad.storage.runs import LogIndex


class LogReader:
    """Entries of all shards of one raft.db. For one thread, the main one."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, catalog: Catalog, log: LogIndex
    ) -> None:
        self._path = path
        self._connection = connection
        self._catalog = catalog
        self._log = log

    def __repr__(self) -> str:
        return f"<LogReader {self._path}>"

    def read_headers(self) -> None:
        """Fill the LogIndex from the rows' columns; a row that does not follow its
        predecessor is noted as damage. ~1 µs a row; records are not read."""
        for shard in self._catalog.replicas:
            self._log.create(shard)
        cursor = self._connection.execute(
            "SELECT id, shard, first_index, last_index FROM log ORDER BY id"
        )
        for row_id, shard, first, last in cursor:
            self._log.row_id_next = row_id
            previous = self._log.last_index(shard) if shard in self._log else 0
            if shard not in self._log:
                continue  # nobody's; create_replica() deletes it should the shard ever come
            sound = isinstance(first, int) and isinstance(last, int)  # see digests.seal
            if not sound or not 0 < first <= last or (previous and first != previous + 1):
                problem = f"row {row_id} of the log, {first}..{last}, follows {previous}"
                self._catalog.damaged[shard] = problem
            else:
                self._log.append(shard, first, last)
        self._log.row_id_next += 1

    def entries(self, shard: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """See RaftDatabase.entries."""
        row_ids, last = self._log.select(shard, first, last)
        found: list[Entry] = []
        size = 0
        for row_id in row_ids:
            for entry in self._read_run(shard, row_id):
                # The writer may be about to cut this row: `last` is already the cut.
                if not first <= entry.index <= last:
                    continue
                size += len(entry.data)
                if found and size > bytes_max:
                    return found
                if entry.index != first + len(found):
                    return found  # the row between has just been added and not committed
                found.append(entry)
        return found

    def load(self, shard: int, applied_index: int) -> Boot:
        """See RaftDatabase.load."""
        catalog = self._catalog
        if shard in catalog.damaged or shard not in catalog.replicas:
            raise self.corrupt(shard, catalog.damaged.get(shard, "it is not in the file"))
        first, tail = catalog.firsts[shard], catalog.tails[shard]
        boot = Boot(
            hard_state=HardState(tail.term, tail.vote, tail.commit),
            snapshot=first,
            last_index=first.index,
            applied_index=applied_index,
        )
        for row_id in self._log.ids(shard):
            for entry in self._read_run(shard, row_id):
                # A run may begin before the log does: compaction drops whole runs only.
                if entry.index > first.index:
                    self._take(shard, boot, entry)
        self._check_boot(shard, boot, tail)
        return boot

    def _take(self, shard: int, boot: Boot, entry: Entry) -> None:
        """Add one verified entry to ``boot``."""
        if entry.index != boot.last_index + 1:
            raise self.corrupt(shard, f"entry {entry.index} follows {boot.last_index}")
        term = boot.terms[-1][1] if boot.terms else boot.snapshot.term
        if entry.term < term:
            raise self.corrupt(shard, f"entry {entry.index} has term {entry.term} after {term}")
        if not boot.terms or entry.term > term:
            boot.terms.append((entry.index, entry.term))
        if entry.kind is EntryKind.CONF:
            boot.configurations.append((entry.index, decode_configuration(entry.data)))
        if entry.index > boot.applied_index:
            boot.entries.append(entry)
        boot.last_index = entry.index

    def _check_boot(self, shard: int, boot: Boot, tail: Tail) -> None:
        """What is left of the log must agree with the other rows, and with data.db."""
        applied, start = boot.applied_index, boot.snapshot
        if boot.last_index != tail.last_index:
            problem = f"the log ends at {boot.last_index} and was saved up to {tail.last_index}"
        elif boot.terms and boot.terms[-1][1] > tail.term:
            problem = f"its last entry has term {boot.terms[-1][1]}, its vote term {tail.term}"
        elif applied > boot.last_index:
            problem = f"data.db has applied {applied}, the log ends at {boot.last_index}"
        elif applied < start.index and not start.generation:
            problem = f"data.db has applied {applied}, the log begins behind {start.index}"
        else:
            return
        raise self.corrupt(shard, problem)

    def _read_run(self, shard: int, row_id: int) -> list[Entry]:
        """The verified entries of one row; [] for a row that the writer has just added
        and not yet committed, or has just deleted."""
        query = "SELECT records FROM log WHERE id=?"
        try:
            row = self._connection.execute(query, (row_id,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(shard, error) from error
        try:
            return unpack_run(shard, row[0]) if row else []
        except (CorruptRecord, TypeError) as error:  # TypeError: see digests.seal
            raise self.corrupt(shard, str(error)) from error

    def _failure(self, shard: int, error: sqlite3.Error) -> StorageError:
        meaning = failure(self._path, "read", error)
        return self.corrupt(shard, str(error)) if isinstance(meaning, Corrupt) else meaning

    def corrupt(self, shard: int, problem: str) -> Corrupt:
        """The error that says which replica is damaged and how."""
        replica = self._catalog.replicas.get(shard, 0)
        text = f"replica {replica} of shard {shard} is damaged in {self._path}: {problem}"
        return Corrupt(shard, text, REBUILD_HINT)
