"""Planted bugs: what is believed to be on the disk, and in which order it gets there."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from kritad.host import drive, flush
from kritad.host.replica import Replica
from kritad.host.writer import Finished
from kritad.raft import ledger, log, state
from kritad.raft.messages import Message
from kritad.raft.types import HardState, Save
from kritad.storage.cache import RowCache
from kritad.storage.data_wal import DataWal, Sizes
from kritad.storage.database import checkpoint
from kritad.storage.rows import ShardFlush
from tests.simulator.mutants.mutant import Mutant

_take = ledger.Ledger.take
_written = drive.Drive._written
_start_writing = drive.Drive._start_writing
_flush = flush.Flusher._flush
_flusher_init = flush.Flusher.__init__


def _answer_at_once(raft: state.RaftState, message: Message) -> None:
    """Votes and acknowledgements leave before what they attest is saved."""
    raft.outbox.messages.append(message)


def _entries_first_term_later(
    book: ledger.Ledger, written: log.Log, term: int, vote: int, place_needed: bool
) -> Save | None:
    """Entries of a new term are saved with this save, the term with the next."""
    before = book._asked
    save = _take(book, written, term, vote, place_needed)
    if save is not None and save.entries and save.sync_hard_state:
        save.hard_state = HardState(before.term, before.vote, before.commit)
        book._asked = save.hard_state
    return save


def _votes_need_no_sync(save: Save) -> bool:
    """Only what changes the log is worth an fsync."""
    return bool(save.entries or save.snapshot or save.truncate_from)


def _report_before_the_disk(driver: drive.Drive) -> None:
    """A batch counts as durable as soon as the writer has been given it."""
    if driver._writing is not None or not driver._collecting:
        return
    batch, driver._collecting = driver._collecting, []
    driver._writing = batch
    driver.writing_since_ms = driver._clock.monotonic_ms()
    saves = [(pending.replica.shard, pending.save) for pending in batch]

    def written(finished: Finished[None]) -> None:
        if finished.error is not None:
            driver._effects.on_failure(finished.error)

    driver._log_worker.submit(lambda: driver._effects.save(saves), written)
    driver._logged(Finished())


def _errors_pass(driver: drive.Drive, finished: Finished[None]) -> None:
    """A save that has failed is taken for one that has not."""
    _written(driver, Finished() if finished.error is not None else finished)


def _speak_when_poisoned(driver: drive.Drive, finished: Finished[None]) -> None:
    """What waited for a save leaves behind it, also if its replica was poisoned meanwhile."""
    batch = driver._writing or []
    if finished.error is None:
        for pending in batch:
            if pending.replica.raft.poisoned:
                driver._outbox += pending.messages
    _written(driver, finished)


def _cut_behind_a_flush(flusher: flush.Flusher, replicas: Iterable[Replica]) -> None:
    """What was flushed is taken for durable without a checkpoint."""

    def cut() -> None:
        for known in flusher._states.values():
            known.durable_index = known.flushed_index
        flusher._cut_logs()

    flusher._waiting.append(cut)
    _flush(flusher, replicas)


@attrs.define
class _TwoTransactions:
    """A data.db that is told first how far the state is, then the state."""

    database: flush.Database

    @property
    def sizes(self) -> Sizes:
        """As the database has it."""
        return self.database.sizes

    def flush(self, batch: list[ShardFlush]) -> None:
        """Two transactions, of which a crash may leave one."""
        self.database.flush([ShardFlush(item.applied) for item in batch])
        self.database.flush(batch)

    def checkpoint(self) -> bool:
        """As the database does."""
        return self.database.checkpoint()

    def sweep(self, limit: int) -> int:
        """As the database does."""
        return self.database.sweep(limit)


def _flush_in_two(
    flusher: flush.Flusher, database: flush.Database, *positional: object, **named: object
) -> None:
    """The applied index and the rows go to data.db in transactions of their own."""
    _flusher_init(flusher, _TwoTransactions(database), *positional, **named)  # type: ignore[arg-type]


def _keep_stale_rows(_cache: RowCache, _generation: int, _key: bytes) -> None:
    """A deleted row stays in the cache."""


def _count_any_checkpoint(wal: DataWal) -> bool:
    """A checkpoint that could not move everything counts as one."""
    wal._unless_full(lambda: checkpoint(wal._writer, "PASSIVE").complete)
    wal.sizes.unchecked_bytes = 0
    return True


MUTANTS = (
    Mutant(
        name="wal-is-taken-for-moved",
        rule="a checkpoint counts when all that the WAL has is in the file",
        source="storage/data_wal.py, reliability.md fact 3",
        hint="the disk: a reader that holds the WAL, and a power cut",
        patches=((DataWal, "move", _count_any_checkpoint),),
    ),
    Mutant(
        name="answers-before-the-save",
        rule="what attests something leaves after the save that holds it",
        source="raft.md B4",
        hint="invariant: committed on a quorum's disks, one vote per term; needs crashes",
        patches=((state.RaftState, "send_after_save", _answer_at_once),),
    ),
    Mutant(
        name="saves-reported-before-the-disk",
        rule="a save is durable when its transaction has returned",
        source="raft.md B4 (Jepsen NATS), design 1.1",
        hint="invariant: committed on a quorum's disks; acknowledged write lost; needs power cuts",
        patches=((drive.Drive, "_start_writing", _report_before_the_disk),),
    ),
    Mutant(
        name="votes-are-not-synced",
        rule="a term or a vote is worth an fsync of its own",
        source="raft.md B1 (PySyncObj#84)",
        hint="invariant: one vote per replica and term, no message of a term that is not durable; "
        "needs crashes during elections",
        patches=((Save, "must_sync", property(_votes_need_no_sync)),),
    ),
    Mutant(
        name="entries-saved-before-their-term",
        rule="a term is durable no later than its entries",
        source="raft.md B3 (openraft io_ordering)",
        hint="invariant: the log's last term is not above the saved one (a store that opens as "
        "damaged although nothing damaged it); needs a crash between two saves",
        patches=((ledger.Ledger, "take", _entries_first_term_later),),
    ),
    Mutant(
        name="failed-fsync-taken-for-success",
        rule="a disk that failed once is not believed again",
        source="raft.md B5 (fsyncgate)",
        hint="invariant: a failed node says nothing; committed on a quorum's disks; needs disk "
        "errors",
        patches=((drive.Drive, "_written", _errors_pass),),
    ),
    Mutant(
        name="poisoned-replica-speaks",
        rule="a replica that is poisoned while its save is under way attests nothing",
        source="host/drive.py, design 6",
        hint="invariant: no message of a poisoned replica; needs damage (a corrupt row) while a "
        "save is under way",
        patches=((drive.Drive, "_written", _speak_when_poisoned),),
    ),
    Mutant(
        name="log-cut-behind-a-flush",
        rule="a log is cut only as far as a checkpoint of data.db has made the state durable",
        source="design 7, reliability.md fact 3",
        hint="invariant: log and state join (a store that opens as damaged); acknowledged write "
        "lost; needs power cuts between a flush and the next checkpoint, and a short log tail",
        patches=((flush.Flusher, "_flush", _cut_behind_a_flush),),
    ),
    Mutant(
        name="applied-index-saved-apart",
        rule="how far the state is stands in the transaction that holds the state",
        source="raft.md B6 (etcd#13766)",
        hint="state hash: a replica that has skipped entries; needs a power cut that takes the "
        "second of the two transactions and not the first",
        patches=((flush.Flusher, "__init__", _flush_in_two),),
    ),
    Mutant(
        name="deleted-row-stays-cached",
        rule="the cache has the newest row or none",
        source="storage/table.py",
        hint="linearizability: a deleted key is read after the delete was flushed, and existed/"
        "revision of the next write to it",
        patches=((RowCache, "discard", _keep_stale_rows),),
    ),
)
