"""When applied state goes to data.db, and when the log behind it may be cut.

Applied writes live in memtables. A shard's is frozen when its turn has come (between two
entries, so that its rows belong to exactly one applied index) and written in one sorted
transaction on a thread of its own.

Rules, each with a test that fails without it:
* Every shard has a turn in each ``flush_interval_ms``, at a time of its own on each node: a
  node that writes all of its shards at once has little left for requests meanwhile, and a
  shard's replicas that do so together have no quick majority.
* What is in memory never grows beyond ``memtable_bytes``, or what the disk has room for
  (room.py): then the largest are written whose turn it is not. When as much again has come
  before that is done, no more is applied until it is (``has_room``): committed entries wait in
  the log, which has them anyway. Else a log that is replayed, or keys that all end at once,
  would be one flush, and on a disk with little room the end of the node at every start.
* A checkpoint is due by what data.db's WAL holds, whoever wrote it: what was let go is swept
  through it, and snapshots come in.
* A checkpoint that is overdue goes before a flush. Where a flush takes longer than the time
  between two turns, there is always one that is due: the WAL would grow for ever, and no log
  would be cut.
* The log of a shard is cut only at or below an index whose state a *checkpoint*
  of data.db has made durable: a flush alone is not (synchronous=NORMAL). What stays for
  followers that lag is log_tail.py's.
* One flush at a time; a failed one is fatal for the node, as any disk error is.
* A shard that was split off and has no replica yet (*unborn*, host/births.py) goes to
  the disk with the one that it was cut from, in one durable transaction, at once: a state
  behind the split without the other half, or the other way round, would lose rows.

Synchronous: the host calls ``tick``, the worker does the I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import attrs

from kritad.buggify import buggify
from kritad.host.clock import Clock
from kritad.host.log_tail import cut_index
from kritad.host.replica import Replica
from kritad.host.room import Bounds, bounds_for, flush_bytes_of
from kritad.host.writer import Finished, Worker
from kritad.raft.types import SnapshotMeta
from kritad.state.machine import ShardState
from kritad.storage.data_db import ShardFlush
from kritad.storage.data_wal import Sizes

_HELD_PAUSE_MS = 1_000.0
# Parts of the interval between the turns of two shards and of two nodes. Multiples of the golden
# ratio leave about equal gaps between them, however many shards there are; the nodes' steps are
# small enough for a few nodes in one machine to find theirs in these gaps.
_SHARD_STEP = 0.618034
_NODE_STEP = 1 / 32
_SWEEP_ROWS = 1_000
# Intervals without a checkpoint after which it does not wait for a pause between flushes.
_OVERDUE_INTERVALS = 2


class Database(Protocol):
    """The part of data.db that flushing needs."""

    @property
    def sizes(self) -> Sizes:
        """What its WAL and its file hold."""

    def flush(self, batch: list[ShardFlush], durable: bool = False) -> None:
        """One transaction; ``durable``: on the disk when it returns."""

    def checkpoint(self) -> bool:
        """Whether everything flushed before is durable now."""

    def sweep(self, limit: int) -> int:
        """Delete up to so many rows that nothing refers to; how many it was."""


@attrs.define
class FlushState:
    """What is known of one replica's state on the disk."""

    flushed_index: int = 0
    durable_index: int = 0
    turn: int = 0  # the last of its turns that has come


@attrs.define
class Unborn:
    """A state that no replica has yet. ``done`` is called once: True when it is durable,
    False when it is not going to be, because the one it was cut from has gone."""

    parent: Replica
    state: ShardState
    done: Callable[[bool], None]


class Flusher:
    """See the module's docstring."""

    def __init__(
        self,
        database: Database,
        worker: Worker,
        clock: Clock,
        *,
        node: int,
        memtable_bytes: int,
        log_tail_bytes: int,
        flush_interval_ms: float,
        checkpoint_interval_ms: float,
        compact: Callable[[list[tuple[Replica, SnapshotMeta]]], None],
        resume: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._database = database
        self._worker = worker
        self._clock = clock
        self._memtable_bytes = memtable_bytes
        self._log_tail_bytes = log_tail_bytes
        self._flush_interval_ms = flush_interval_ms
        self._checkpoint_interval_ms = checkpoint_interval_ms
        self._compact = compact
        self._resume = resume
        self._on_failure = on_failure
        self._states: dict[Replica, FlushState] = {}
        self._unborn: list[Unborn] = []  # whose flush has not begun
        self._busy = False
        self._phase = node * _NODE_STEP
        now_ms = clock.monotonic_ms()
        self._checkpointed_ms = now_ms - self._phase % 1.0 * checkpoint_interval_ms
        self._writing_bytes = 0  # promised for the flush that is under way
        self._held_until_ms = now_ms  # a snapshot reader kept a checkpoint from ending
        self._sweep_due = True  # a crash may have left something
        self._waiting: list[Callable[[], None]] = []
        self.room_bytes: int | None = None  # on the disk, above its reserve; None: not known

    @property
    def busy(self) -> bool:
        """Whether a flush or checkpoint is on its way to the disk."""
        return self._busy

    def adopt(self, replica: Replica, durable_index: int) -> None:
        """A replica was opened or has installed a snapshot."""
        turn = self._turn_of(replica, self._clock.monotonic_ms())
        self._states[replica] = FlushState(durable_index, durable_index, turn)

    @property
    def urgent(self) -> bool:
        """Whether somebody cannot be served until ``tick`` has begun a flush."""
        return bool(self._unborn) and not self._busy

    def adopt_unborn(
        self, parent: Replica, state: ShardState, done: Callable[[bool], None]
    ) -> None:
        """``state`` was cut off from ``parent``'s by the entry applied last. See Unborn."""
        assert parent in self._states, parent
        self._unborn.append(Unborn(parent, state, done))

    def forget(self, replica: Replica) -> None:
        """A replica is gone, and what was cut off from it and is in memory alone."""
        self._states.pop(replica, None)
        gone = [unborn for unborn in self._unborn if unborn.parent is replica]
        self._unborn = [unborn for unborn in self._unborn if unborn.parent is not replica]
        for unborn in gone:
            unborn.done(False)

    def bytes_in_memory(self) -> int:
        """What all memtables hold together."""
        held = sum(replica.state.table.size_bytes for replica in self._states)
        return held + sum(unborn.state.table.size_bytes for unborn in self._unborn)

    def promised_bytes(self) -> int:
        """What the disk will have to take yet of what has been applied: once in the WAL and
        once in the file what is in memory, and in the file what no checkpoint has moved."""
        in_memory = self._flush_bytes() + self.bytes_in_memory()
        return in_memory + self._writing_bytes + self._database.sizes.unchecked_bytes

    @property
    def spare_bytes(self) -> int:
        """What data.db's file can take without growing."""
        return self._database.sizes.spare_bytes

    def _flush_bytes(self) -> int:
        """What writing all that is in memory may add to the WAL."""
        states = [replica.state for replica in self._states]
        states += [unborn.state for unborn in self._unborn]
        return self._flush_bytes_of(states)

    def _flush_bytes_of(self, states: Iterable[ShardState]) -> int:
        rows = memory_bytes = 0
        for state in states:
            rows += state.table.rows_changed
            memory_bytes += state.table.size_bytes
        return flush_bytes_of(rows, memory_bytes, self._database.sizes.file_bytes)

    def has_room(self) -> bool:
        """Whether more may be applied. If not, ``resume`` is called when it is worth asking
        again. Cost: a sum over the replicas."""
        if not self._busy and self._is_over():
            self.tick()
        return not self._is_full()

    def _is_full(self) -> bool:
        """Whether as much is in memory as may be, behind what is on its way to the disk."""
        return self._busy and self._is_over()

    def _is_over(self) -> bool:
        bounds = self._bounds()
        return (
            self.bytes_in_memory() >= bounds.memory_bytes
            or self._flush_bytes() >= bounds.flush_bytes
        )

    def _bounds(self) -> Bounds:
        return bounds_for(self._memtable_bytes, self.room_bytes)

    def when_flushed(self, done: Callable[[], None]) -> None:
        """Flush everything as soon as possible, then call ``done``."""
        self._waiting.append(done)
        self.tick()

    def tick(self) -> None:
        """Start what is due. Cost: a sum over the replicas."""
        if self._busy:
            return
        now = self._clock.monotonic_ms()
        if self._unborn:
            self._flush_unborn()
            return
        bounds = self._bounds()
        if self._checkpoint_due(now, _OVERDUE_INTERVALS, bounds):
            self._checkpoint()
            return
        due = self._due(now, bounds)
        if due:
            self._flush(due)
        elif self._waiting:
            self._call_waiting()
        elif self._checkpoint_due(now, 1, bounds):
            self._checkpoint()
        elif self._sweep_due:
            self._sweep()

    def _checkpoint_due(self, now_ms: float, intervals: int, bounds: Bounds) -> bool:
        """Whether there is as much to be moved as may be, or something for so many intervals."""
        unchecked_bytes = self._database.sizes.unchecked_bytes
        if not unchecked_bytes or now_ms < self._held_until_ms:
            return False
        waited_ms = now_ms - self._checkpointed_ms
        return (
            unchecked_bytes >= bounds.wal_bytes
            or waited_ms >= intervals * self._checkpoint_interval_ms
        )

    def _due(self, now_ms: float, bounds: Bounds) -> list[Replica]:
        """Whose memtables are to be flushed now. All whose turn has come are among them: it is
        not asked for again."""
        dirty: list[Replica] = []
        due: list[Replica] = []
        for replica, state in self._states.items():
            turn_before, state.turn = state.turn, self._turn_of(replica, now_ms)
            if replica.state.index > state.flushed_index:
                dirty.append(replica)
                if state.turn != turn_before:
                    due.append(replica)
        if dirty and (self._waiting or buggify("flush.early")):
            return dirty
        if due:
            return due
        if self._flush_bytes() >= bounds.flush_bytes:
            return dirty
        excess_bytes = self.bytes_in_memory() - bounds.memory_bytes
        return _largest(dirty, excess_bytes + bounds.memory_bytes // 2) if excess_bytes >= 0 else []

    def _turn_of(self, replica: Replica, now_ms: float) -> int:
        """Which of its turns a replica has had last: it has one in each interval."""
        phase = self._phase + replica.shard * _SHARD_STEP
        return int(now_ms / self._flush_interval_ms + phase)

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def _flush(self, replicas: Iterable[Replica]) -> None:
        """Write what these have in memory, for all who wait for a flush: then it is all that
        there is."""
        waiting, self._waiting = self._waiting, []

        def then() -> None:
            for call in waiting:
                call()

        self._write(replicas, (), then)

    def _flush_unborn(self) -> None:
        """Write the states that wait for their birth, and those they were cut from.
        Nothing else goes along: nobody serves their keys until it is done."""
        unborn, self._unborn = self._unborn, []

        def then() -> None:
            for each in unborn:
                each.done(True)

        self._write(dict.fromkeys(each.parent for each in unborn), unborn, then)

    def _write(
        self, replicas: Iterable[Replica], unborn: Sequence[Unborn], then: Callable[[], None]
    ) -> None:
        self._busy = True
        # The table is kept beside its replica: a snapshot may give the replica
        # another one before this flush returns.
        states: list[tuple[Replica | None, ShardState]] = [(r, r.state) for r in replicas]
        states += [(None, each.state) for each in unborn]
        self._writing_bytes = sum(s.table.size_bytes for _, s in states)
        self._writing_bytes += self._flush_bytes_of(s for _, s in states)
        batch = [(replica, state.table, state.freeze()) for replica, state in states]

        def done(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return  # busy for ever: a disk that failed is not asked again
            self._busy = False
            self._writing_bytes = 0
            for replica, table, flush in batch:
                table.flushed()
                state = None if replica is None else self._states.get(replica)
                if state is not None:
                    state.flushed_index = max(state.flushed_index, flush.applied.index)
            then()
            self._go_on()

        flushes = [flush for _, _, flush in batch]
        self._worker.submit(lambda: self._database.flush(flushes, durable=bool(unborn)), done)

    def _checkpoint(self) -> None:
        self._busy = True
        self._checkpointed_ms = self._clock.monotonic_ms()
        self._sweep_due = True
        flushed = {replica: state.flushed_index for replica, state in self._states.items()}

        def done(finished: Finished[bool]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            self._busy = False
            if not finished.unwrap():
                # A reader holds the file. Asking it at every tick helps nobody.
                self._held_until_ms = self._clock.monotonic_ms() + _HELD_PAUSE_MS
            else:
                for replica, index in flushed.items():
                    state = self._states.get(replica)
                    if state is not None:
                        state.durable_index = max(state.durable_index, index)
                self._cut_logs()
            self._go_on()  # a flush may have let it go first

        self._worker.submit(self._database.checkpoint, done)

    def _sweep(self) -> None:
        """Delete a slice of what nothing refers to; the next tick goes on with it."""
        self._busy = True

        def done(finished: Finished[int]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            self._busy = False
            self._sweep_due = finished.unwrap() > 0
            if not self._is_full():
                self._resume()  # not ``tick``: others may use the file before the next slice

        self._worker.submit(lambda: self._database.sweep(_SWEEP_ROWS), done)

    def _go_on(self) -> None:
        self.tick()
        if not self._is_full():
            self._resume()

    def _cut_logs(self) -> None:
        cuts: list[tuple[Replica, SnapshotMeta]] = []
        for replica, state in self._states.items():
            if replica.raft.poisoned:
                continue  # its core does not follow a cut any more
            index = min(cut_index(replica, self._log_tail_bytes), state.durable_index)
            if index > replica.raft.log.snapshot.index:
                assert index <= state.durable_index <= replica.state.index
                cuts.append((replica, replica.raft.snapshot_at(index)))
                replica.raft.compact(index)
                replica.marks.forget_below(index)
        if cuts:
            self._compact(cuts)


def _largest(replicas: Iterable[Replica], bytes_least: int) -> list[Replica]:
    """Those with the largest memtables, so many that they have ``bytes_least`` together."""
    chosen: list[Replica] = []
    for replica in sorted(replicas, key=lambda replica: -replica.state.table.size_bytes):
        if bytes_least <= 0:
            break
        chosen.append(replica)
        bytes_least -= replica.state.table.size_bytes
    return chosen
