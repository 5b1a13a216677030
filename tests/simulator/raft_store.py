"""raft.db without SQLite: votes and logs in dicts and lists, for the simulator's layer A.

It does what kritad/storage/raft_db.py does, with its exceptions and its assertions.
test_stores.py drives both and compares.

Rules:
* When a method has returned, what it did is durable: the simulated worker calls ``save``
  at that moment. ``lazy`` breaks this on purpose, as a forgotten fsync would.
* It is a subclass so that mypy holds the two signatures together. What is inherited
  touches no connection.
* Entries and hard states are kept as they came, not copied: nobody changes them.
* A transaction that fails is undone and ends the object's life. ``crash`` hands what
  the disk has to a new object; the old one refuses everything from then on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kritad.raft.types import Entry, HardState, Save, SnapshotMeta
from kritad.storage import raft_db
from kritad.storage.catalog import Catalog, Identity
from kritad.storage.errors import StorageError, StoreFailed, Tombstoned
from kritad.storage.raft_db import RaftDatabase
from tests.simulator.memory_log import Log, MemoryLogReader
from tests.simulator.transactions import Journal, Undo, put_back, roll_back


class MemoryRaftDatabase(RaftDatabase):
    """See the module's docstring.

    ``observer(shard, save)`` is called after each save of a batch was stored, and
    ``on_removal(shard, replica)`` after a replica was removed.
    ``fail_with`` is raised by the next write, of which nothing is done.
    ``lazy``: what was written since the last ``sync`` may be lost by a power cut.
    """

    def __init__(self, path: Path = Path("raft.db")) -> None:
        self.path = path
        self.lazy = False
        self.fail_with: StorageError | None = None
        self.observer: Callable[[int, Save], None] | None = None
        self.on_removal: Callable[[int, int], None] | None = None
        self._failed: StorageError | None = None
        self._journal = Journal()
        self._adopt(Catalog(), {})

    def __repr__(self) -> str:
        state = f"failed: {self._failed.message}" if self._failed else "open"
        ends = {shard: log.last_index for shard, log in self._logs.items()}
        return f"<MemoryRaftDatabase {state} {self._catalog} last={ends}>"

    def _adopt(self, catalog: Catalog, logs: dict[int, Log]) -> None:
        self._catalog = catalog  # without its tails and firsts: these are in the logs
        self._logs = logs
        self._log_reader = MemoryLogReader(self.path, catalog, logs)

    @classmethod
    def open(cls, path: Path) -> MemoryRaftDatabase:
        """A new store with nothing in it."""
        return cls(path)

    def close(self) -> None:
        """As the real one: everything is durable now, and nothing can be asked any more.
        ``crash`` opens it again."""
        self._journal.sync()
        self._failed = StoreFailed(f"{self.path} is closed")

    def crash(self, *, power: bool, chance: random.Random) -> MemoryRaftDatabase:
        """The store as a start after a crash finds it, with the same observers. This object
        is done with. Nothing is lost unless ``power`` goes while the store is lazy: then
        it is whole transactions from the end, ``chance`` says how many."""
        if power:
            self._journal.lose(chance)
        after = type(self)(self.path)
        after.lazy, after.observer = self.lazy, self.observer
        after.on_removal = self.on_removal
        after._adopt(self._catalog, self._logs)
        self._adopt(Catalog(), {})
        self._failed = StoreFailed(f"{self.path}: the process that had it open has crashed")
        return after

    def sync(self) -> None:
        """Make durable what a lazy store has only written."""
        self._check()
        self._journal.sync()

    def damage(self, shard: int, problem: str = "a bit was flipped") -> None:
        """Let what the disk has of a replica be Corrupt whenever it is read, also after a
        crash, until the replica is removed."""
        self._catalog.damaged[shard] = problem

    # What the invariant checker asks. O(1).

    def replica_of(self, shard: int) -> int | None:
        """The replica of ``shard`` that lives here."""
        return self._catalog.replicas.get(shard)

    def hard_state(self, shard: int) -> HardState:
        """Term, vote and commit as stored; not to be changed. KeyError: no replica."""
        return self._logs[shard].hard

    def first_index(self, shard: int) -> int:
        """The index behind which the log begins. KeyError: no replica."""
        return self._logs[shard].first.index

    def last_index(self, shard: int) -> int:
        """Where the log ends. KeyError: no replica."""
        return self._logs[shard].last_index

    def term_at(self, shard: int, index: int) -> int | None:
        """The term at ``index``, also where the log begins; None when it is not here."""
        log = self._logs.get(shard)
        if log is None:
            return None
        if index == log.first.index:
            return log.first.term
        entry = log.entry(index)
        return None if entry is None else entry.term

    def entry_at(self, shard: int, index: int) -> Entry | None:
        """The entry at ``index``; None when it is not here."""
        log = self._logs.get(shard)
        return None if log is None else log.entry(index)

    # Writing

    def create_replica(self, shard: int, replica: int, snapshot: SnapshotMeta | None) -> None:
        """See RaftDatabase.create_replica."""
        if replica <= self._catalog.tombstones.get(shard, 0):
            raise Tombstoned(
                f"replica {replica} of shard {shard} was removed from this node",
                "replica ids are never reused; place the shard here under a new id",
            )
        assert shard not in self._catalog.replicas, (shard, replica, self._catalog)
        first = snapshot or SnapshotMeta()
        with self._change() as undo:
            self._put_log(undo, shard, Log(HardState(first.term), first, first.index, [], []))
            undo.append((put_back, (self._catalog.replicas, shard, None)))
            self._catalog.replicas[shard] = replica

    def remove_replica(self, shard: int, replica: int) -> None:
        """See RaftDatabase.remove_replica."""
        catalog = self._catalog
        known, before = catalog.replicas.get(shard, 0), catalog.tombstones.get(shard)
        dead = max(replica, before or 0)
        with self._change() as undo:
            undo.append((put_back, (catalog.tombstones, shard, before)))
            catalog.tombstones[shard] = dead
            if known <= dead:
                for mapping in (self._logs, catalog.replicas, catalog.damaged):
                    undo.append((put_back, (mapping, shard, mapping.get(shard))))
                    mapping.pop(shard, None)
        if self.on_removal is not None:
            self.on_removal(shard, replica)

    def save(self, batch: Sequence[tuple[int, Save]]) -> None:
        """See RaftDatabase.save. 2 µs for one entry."""
        for _, save in batch:
            if save.must_sync:
                break
        else:
            self._check()
            return
        if self._failed is not None or self.fail_with is not None:
            self._begin()
        undo: list[Undo] = []
        rows: dict[int, int] = {}  # bytes in the row which each shard's entries go to
        try:
            for shard, save in batch:
                log = self._logs[shard]
                if save.snapshot is not None or save.truncate_from:
                    rows.clear()
                    log = self._rewind_log(shard, log, save, undo)
                undo.append(log.undo_append())
                entries = save.entries
                if entries:
                    assert entries[0].index == log.last_index + 1, (shard, log, save)
                    rows[shard] = log.append(entries, rows.get(shard, 0))
                if save.hard_state is not None:
                    log.hard = save.hard_state
                if self.observer is not None:
                    self.observer(shard, save)
        except BaseException as error:
            self._break_off(undo, error)
            raise
        if self.lazy or self._journal:
            self._journal.commit(undo, durable=not self.lazy)

    def _rewind_log(self, shard: int, log: Log, save: Save, undo: list[Undo]) -> Log:
        """Install ``save.snapshot``, then cut the log at ``save.truncate_from``."""
        first = save.snapshot
        if first is not None:
            log = Log(log.hard, first, first.index, [], [])
            self._put_log(undo, shard, log)
        if save.truncate_from and save.truncate_from <= log.last_index:
            assert save.truncate_from > log.first.index, (shard, log, save)
            undo.append(log.truncate(save.truncate_from))
        return log

    def recover(self, forced: Sequence[tuple[int, Save]], record: bytes) -> None:
        """See RaftDatabase.recover."""
        with self._change() as undo:
            for shard, save in forced:
                log = self._logs[shard]
                undo.append(log.undo_append())
                log.append(save.entries, 0)
                assert save.hard_state is not None, save
                log.hard = save.hard_state
            self._catalog.recoveries.append(record)
            undo.append((self._catalog.recoveries.pop, ()))

    @property
    def checkpoint_due(self) -> bool:
        """Never: there is no WAL."""
        return False

    def maybe_checkpoint(self) -> None:
        """See RaftDatabase.maybe_checkpoint."""
        self.sync()

    def compact(self, items: Sequence[tuple[int, SnapshotMeta]]) -> bool:
        """See RaftDatabase.compact."""
        complete = True
        rows_left = raft_db.COMPACT_ROWS_MAX
        with self._change() as undo:
            for shard, meta in items:
                log = self._logs[shard]
                assert log.first.index <= meta.index <= log.last_index, (shard, meta, log)
                shorter, count, done = log.compacted(meta, rows_left)
                self._put_log(undo, shard, shorter)
                rows_left -= count
                complete = complete and done
        return complete

    def _put_log(self, undo: list[Undo], shard: int, log: Log) -> None:
        undo.append((put_back, (self._logs, shard, self._logs.get(shard))))
        self._logs[shard] = log

    def _write_identity(self, identity: Identity) -> Identity:
        with self._change() as undo:
            undo.append((setattr, (self._catalog, "identity", self._catalog.identity)))
            self._catalog.identity = identity
        return identity

    @contextlib.contextmanager
    def _change(self) -> Iterator[list[Undo]]:
        """One transaction, for all that is not ``save``."""
        self._begin()
        undo: list[Undo] = []
        try:
            yield undo
        except BaseException as error:
            self._break_off(undo, error)
            raise
        self._journal.commit(undo, durable=not self.lazy)

    def _begin(self) -> None:
        self._check()
        if self.fail_with is not None:
            self._failed, self.fail_with = self.fail_with, None
            raise self._failed

    def _break_off(self, undo: list[Undo], error: BaseException) -> None:
        roll_back(undo)
        self._failed = StoreFailed(f"a write to {self.path} was broken off: {error!r}")
