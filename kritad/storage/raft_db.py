"""raft.db: who this store is, which replicas it holds, their votes and their logs.

``synchronous=FULL``: when ``save`` returns, it is on the disk. That commit is the
one fsync a write waits for, shared by all shards of the node.

Tables (migrations.py): ``store`` one row, the identity. ``replica`` those that
live here; ``tombstone`` the highest removed id of each shard. ``hard`` term, vote,
commit and the last index of the log. ``first`` where the log logically begins: the
SnapshotMeta it continues. ``log`` runs of entries in the order of writing (runs.py).
There is no table of configurations: load() reads every entry anyway, to verify it.

Rules:
* ``hard.last_index`` repeats what the log's last row says, so that rows lost from
  the end are noticed and not taken for a shorter log: a follower that forgets
  entries it has acknowledged can unmake a commit (reliability.md fact 3).
* After any failure the object refuses every call (raft.md B5: after a failed
  fsync SQLite's next commit says OK).
* Methods that write hold a lock and may be called from any thread. ``entries`` and
  ``load`` use a connection of their own and never wait for a commit.

Sources: thesis Figure 3.1 (what is persistent), 5.1 (what a snapshot replaces).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from kritad.raft.records import CorruptRecord, pack_run, unpack_run
from kritad.raft.types import Boot, Entry, Save, SnapshotMeta
from kritad.storage import walscan
from kritad.storage.catalog import REBUILD_NODE, Catalog, Identity, Tail
from kritad.storage.database import (
    checkpoint,
    open_reader,
    open_writer,
    opening,
    write_failure,
)
from kritad.storage.errors import Corrupt, StorageError, StoreFailed, Tombstoned
from kritad.storage.log_reader import LogReader
from kritad.storage.log_writer import LogWriter, fits_one_statement
from kritad.storage.migrations import RAFT, migrate
from kritad.storage.runs import LogIndex

__all__ = ["Identity", "RaftDatabase", "ReplicaRow"]

# Rows that one compact() deletes: 1 ms of CPU, 2 to 16 ms under load, for which a save may
# have to wait. It writes 5 to 14 pages, whether they are of 100 bytes or of 1 MB (7 ms): pages
# that become free are not written.
COMPACT_ROWS_MAX = 32
# Pages in the WAL after which a checkpoint is due, and after which save() makes one
# unasked. A checkpoint of 1000 pages takes about 8 ms.
CHECKPOINT_PAGES = 1000
CHECKPOINT_PAGES_FORCED = 2 * CHECKPOINT_PAGES


@attrs.frozen
class ReplicaRow:
    """A replica that lives on this node."""

    shard: int
    replica: int


class RaftDatabase:
    """See the module's docstring. Made by ``open``."""

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._writing = threading.Lock()
        self._failed: StorageError | None = None
        self._wal_pages = 0  # an estimate, corrected by every checkpoint
        self._catalog = Catalog()
        self._log = LogIndex()
        self._log_writer = LogWriter(writer, self._catalog, self._log)
        self._log_reader = LogReader(path, reader, self._catalog, self._log)

    def __repr__(self) -> str:
        state = f"failed: {self._failed.message}" if self._failed else "open"
        return f"<RaftDatabase {state} wal_pages={self._wal_pages} {self._catalog} {self._log}>"

    @classmethod
    def open(cls, path: Path) -> RaftDatabase:
        """Scan the WAL, open, migrate, and read everything but the entries.

        Raises Corrupt(None) when the WAL or the file cannot be trusted as a whole,
        FormatUnknown, StoreFailed. Damage to one replica surfaces in ``load``.
        """
        wal = path.with_name(path.name + "-wal")
        if walscan.scan_wal(wal) is walscan.Verdict.CORRUPT:
            raise Corrupt(
                None, f"{wal} is damaged: transactions behind the damage are lost", REBUILD_NODE
            )
        walscan.rewrite_wal(wal)
        with opening(path) as opened:
            writer = opened.enter_context(contextlib.closing(open_writer(path, "FULL")))
            migrate(writer, path, RAFT)
            # A fresh WAL for every start: walscan's proof needs that what a torn
            # transaction left behind is gone before the next one is written.
            if not checkpoint(writer, "TRUNCATE").complete:
                raise StoreFailed(f"{path} is open in another program", "close it and start again")
            reader = opened.enter_context(contextlib.closing(open_reader(path)))
            database = cls(path, writer, reader)
            database._catalog.read(reader, path)
            database._log_reader.read_headers()
        return database

    def close(self) -> None:
        """Close both connections, the writer last: it does the final checkpoint."""
        self._reader.close()
        self._writer.close()

    def identity(self) -> Identity | None:
        """Who this store is; None for a store that was never initialised."""
        self._check()
        return self._catalog.identity

    def initialise(self, cluster_id: bytes, node_id: int, store_uuid: bytes) -> Identity:
        """Write the identity, durably: at once when bootstrapping; for a joiner first with
        ``node_id`` 0, and again once the cluster has given a number, which never changes."""
        known = self._catalog.identity
        assert known is None or known.store_uuid == store_uuid, (known, store_uuid)
        assert known is None or known.node_id in (0, node_id), (known, node_id)
        known = known or Identity(b"", 0, store_uuid, 0)
        return self._write_identity(attrs.evolve(known, cluster_id=cluster_id, node_id=node_id))

    def count_boot(self, nonce: bytes) -> Identity:
        """Add one to the boot counter, and this boot's nonce, 16 random bytes, durably:
        peers refuse a store that counts back, and one that counts otherwise."""
        known = self._catalog.identity
        assert known is not None, "initialise() comes first"
        return self._write_identity(known.booted(nonce))

    def acknowledge_boot(self) -> None:
        """The cluster knows this boot: forget the nonces of those before. Durable, though
        nothing depends on it. Raises StoreFailed."""
        self._check()
        known = self._catalog.identity
        assert known is not None, "initialise() comes first"
        if len(known.nonces) > 1:
            self._write_identity(attrs.evolve(known, nonces=known.nonces[-1:]))

    def recover(self, forced: Sequence[tuple[int, Save]], record: bytes) -> None:
        """Put ``forced`` behind the logs and keep ``record``, in one transaction. For a
        store that nobody else has open (kritad/recover.py). Raises StoreFailed."""
        appended: dict[int, list[Entry]] = {}
        with self._transaction() as connection:
            for shard, save in forced:
                tail, hard = self._catalog.tails[shard], save.hard_state
                assert hard is not None, save
                first, behind = tail.last_index + 1, tail.last_index + 1 + len(save.entries)
                assert [entry.index for entry in save.entries] == list(range(first, behind)), save
                appended[shard] = save.entries
                tail.last_index = behind - 1
                tail.term, tail.vote, tail.commit = hard.term, hard.vote, hard.commit
            self._append(appended, appended)
            self._catalog.write_recovery(connection, record)

    def recoveries(self) -> list[bytes]:
        """What ``recover`` was told of each recovery, the oldest first."""
        self._check()
        return list(self._catalog.recoveries)

    def replicas(self) -> list[ReplicaRow]:
        """The replicas that live here, by shard."""
        self._check()
        return [ReplicaRow(*item) for item in sorted(self._catalog.replicas.items())]

    def create_replica(self, shard: int, replica: int, snapshot: SnapshotMeta | None) -> None:
        """Make an empty replica whose log begins behind ``snapshot`` (None: a joiner that
        knows nothing yet). Durable. Raises Tombstoned for an id that was removed."""
        if replica <= self._catalog.tombstones.get(shard, 0):
            raise Tombstoned(
                f"replica {replica} of shard {shard} was removed from this node",
                "replica ids are never reused; place the shard here under a new id",
            )
        assert shard not in self._catalog.replicas, (shard, replica, self._catalog)
        with self._transaction() as connection:
            connection.execute("DELETE FROM log WHERE shard=?", (shard,))
            self._catalog.create_replica(connection, shard, replica, snapshot or SnapshotMeta())
            self._log.create(shard)

    def remove_replica(self, shard: int, replica: int) -> None:
        """Forget a replica and its log and leave a tombstone, durably. Also right for a
        damaged replica, and for one that was never created here (raft.md B27)."""
        dead = max(replica, self._catalog.tombstones.get(shard, 0))
        with self._transaction() as connection:
            self._catalog.write_tombstone(connection, shard, dead)
            if self._catalog.replicas.get(shard, 0) <= dead:
                # By shard and not by row id: a damaged log may have rows without an index.
                connection.execute("DELETE FROM log WHERE shard=?", (shard,))
                self._catalog.remove_replica(connection, shard)
                self._log.remove(shard)

    def save(self, batch: Sequence[tuple[int, Save]]) -> None:
        """Make ``(shard, save)`` durable in the given order, in one transaction.

        A batch in which nothing must be synced is not written at all. Raises
        StoreFailed, after which nothing may be retried. 128 entries of 256 B over 16
        shards: 0.5 ms, one entry: 0.25 ms, nearly all of it the fsync.
        """
        if not any(save.must_sync for _, save in batch):
            self._check()
            return
        appended: dict[int, list[Entry]] = {}
        touched: dict[int, None] = {}  # a set that keeps its order
        with self._transaction(alone=fits_one_statement(batch)):
            for shard, save in batch:
                tail = self._catalog.tails[shard]
                touched[shard] = None
                if save.snapshot is not None or save.truncate_from:
                    self._append(appended, appended)  # what earlier saves of the batch added
                    appended = {}
                    self._rewind(shard, tail, save)
                if save.entries:
                    assert save.entries[0].index == tail.last_index + 1, (shard, tail, save)
                    appended.setdefault(shard, []).extend(save.entries)
                    tail.last_index = save.entries[-1].index
                hard = save.hard_state
                if hard is not None:
                    tail.term, tail.vote, tail.commit = hard.term, hard.vote, hard.commit
            self._append(appended, touched)
        if self._wal_pages >= CHECKPOINT_PAGES_FORCED:
            self._checkpoint()

    @property
    def checkpoint_due(self) -> bool:
        """Whether ``maybe_checkpoint`` would do something. Any thread."""
        return self._wal_pages >= CHECKPOINT_PAGES

    def maybe_checkpoint(self) -> None:
        """Checkpoint if one is due. To be called on the writer thread after a save has been
        reported, so that no write waits for it; save() does it when nobody else does.
        Raises StoreFailed."""
        self._check()
        if self.checkpoint_due:
            self._checkpoint()

    def compact(self, items: Sequence[tuple[int, SnapshotMeta]]) -> bool:
        """Let the logs of ``(shard, meta)`` begin behind ``meta.index``, in one transaction.

        Deletes at most COMPACT_ROWS_MAX rows; False when more are left, which the next
        call for the shard deletes (they do no harm until then).
        """
        complete = True
        rows_left = COMPACT_ROWS_MAX
        with self._transaction() as connection:
            for shard, meta in items:
                first, tail = self._catalog.firsts[shard], self._catalog.tails[shard]
                assert first.index <= meta.index <= tail.last_index, (shard, meta, first, tail)
                self._catalog.write_first(connection, shard, meta)
                gone, done = self._log.compact(shard, meta.index, rows_left)
                _delete_rows(connection, gone)
                rows_left -= len(gone)
                complete = complete and done
            self._wal_pages += 4 + (COMPACT_ROWS_MAX - rows_left)
        return complete

    def entries(self, shard: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Contiguous entries from ``first`` on, at most to ``last``, about ``bytes_max`` (at
        least one). [] when they are compacted or not there yet. Raises Corrupt(shard).

        For the main thread. 10 µs, and 2 µs an entry; whole rows are read.
        """
        self._check()
        return self._log_reader.entries(shard, first, last, bytes_max)

    def load(self, shard: int, applied_index: int) -> Boot:
        """What the replica wakes up with; every record of its log is verified.

        ``applied_index`` is what data.db holds. It may lie before the log's start only
        when that start names a received generation: then the node stopped between
        saving a snapshot here and installing it there, and the caller installs it now
        (DataDatabase.received). Raises Corrupt(shard). 3 µs an entry.
        """
        self._check()
        return self._log_reader.load(shard, applied_index)

    @contextlib.contextmanager
    def _transaction(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """One durable transaction; whatever escapes from it ends the object's life. One
        statement that stands ``alone`` is a transaction without being told to be one."""
        with self._writing:
            self._check()
            try:
                if not alone:
                    self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                if not alone:
                    self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                self._failed = write_failure(self.path, "write", error)
                raise self._failed from error
            except BaseException as error:
                # The memory is ahead of the disk now, whoever is to blame.
                self._failed = StoreFailed(f"a write to {self.path} was broken off: {error!r}")
                raise

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _checkpoint(self) -> None:
        with self._writing:
            try:
                result = checkpoint(self._writer, "PASSIVE")
            except sqlite3.Error as error:
                self._failed = write_failure(self.path, "checkpoint", error)
                raise self._failed from error
        self._wal_pages = result.frames - result.copied

    # Below: parts of save(), inside its transaction.

    def _rewind(self, shard: int, tail: Tail, save: Save) -> None:
        """Install ``save.snapshot``, then cut the log at ``save.truncate_from``."""
        if save.snapshot is not None:
            _delete_rows(self._writer, self._log.remove(shard))
            self._log.create(shard)
            self._catalog.write_first(self._writer, shard, save.snapshot)
            tail.last_index = save.snapshot.index
        if save.truncate_from and save.truncate_from <= tail.last_index:
            assert save.truncate_from > self._catalog.firsts[shard].index, (shard, tail, save)
            gone, cut = self._log.truncate(shard, save.truncate_from)
            _delete_rows(self._writer, gone)
            if cut is not None:
                self._cut_run(shard, cut, save.truncate_from)
            tail.last_index = save.truncate_from - 1

    def _cut_run(self, shard: int, row_id: int, index: int) -> None:
        """Keep what lies before ``index`` of one row."""
        query = "SELECT records FROM log WHERE id=?"
        (records,) = self._writer.execute(query, (row_id,)).fetchone()
        try:
            kept = [entry for entry in unpack_run(shard, records) if entry.index < index]
        except CorruptRecord as error:
            raise StoreFailed(f"cannot cut the log of shard {shard}: {error}") from error
        self._writer.execute(
            "UPDATE log SET last_index=?, records=? WHERE id=?",
            (index - 1, pack_run(shard, kept), row_id),
        )

    def _append(self, appended: dict[int, list[Entry]], touched: Iterable[int]) -> None:
        self._wal_pages += self._log_writer.write(appended, touched)

    def _write_identity(self, identity: Identity) -> Identity:
        with self._transaction() as connection:
            self._catalog.write_identity(connection, identity)
        return identity


def _delete_rows(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    for start in range(0, len(row_ids), 256):
        some = row_ids[start : start + 256]
        places = ",".join("?" * len(some))
        connection.execute(f"DELETE FROM log WHERE id IN ({places})", some)
