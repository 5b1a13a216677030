"""When applied state goes to data.db, and when the log behind it may be cut.

Applied writes live in memtables. When these are large or old, or large for the room that
the disk has, all of them are frozen at once (between two turns, so that every shard's rows
belong to exactly one applied index) and written in one sorted transaction on a thread of
its own.

Rules, each with a test that fails without it:
* The log of a shard is cut only at or below an index whose state a *checkpoint*
  of data.db has made durable: a flush alone is not (synchronous=NORMAL).
* It is cut so that ``log_tail_bytes`` stay for followers that lag a little; a
  follower that is heard from and needs more pins the log up to ``_PIN_FACTOR`` times
  that, or up to as much as the state has: from there on a snapshot is less to send, and
  below it whoever has just got one could never catch up (raft.md B35: both extremes have
  hurt others).
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
from kritad.host.replica import Replica
from kritad.host.writer import Finished, Worker
from kritad.raft.types import Role, SnapshotMeta
from kritad.state.machine import ShardState
from kritad.storage.data_db import ShardFlush

_HELD_PAUSE_MS = 1_000.0
_PIN_FACTOR = 4
_SWEEP_ROWS = 1_000
# Of the room on the disk: what may be in memory, and as much again in data.db's WAL. Each
# takes its room twice, in the WAL and in the file.
_ROOM_PART = 8
_ROOM_BYTES_MIN = 1 << 20  # smaller flushes than this would do nothing but flush


def pin_bytes_max(log_tail_bytes: int, state_bytes: int) -> int:
    """How much of a shard's log is kept for a follower that needs it."""
    return max(_PIN_FACTOR * log_tail_bytes, state_bytes)


class Database(Protocol):
    """The part of data.db that flushing needs."""

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
        memtable_bytes: int,
        log_tail_bytes: int,
        flush_interval_ms: float,
        checkpoint_interval_ms: float,
        compact: Callable[[list[tuple[Replica, SnapshotMeta]]], None],
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
        self._on_failure = on_failure
        self._states: dict[Replica, FlushState] = {}
        self._unborn: list[Unborn] = []  # whose flush has not begun
        self._busy = False
        self._flushed_ms = clock.monotonic_ms()
        self._checkpointed_ms = self._flushed_ms
        self._unchecked_bytes = 0  # flushed since the last checkpoint
        self._held_until_ms = self._flushed_ms  # a snapshot reader kept a checkpoint from ending
        self._sweep_due = True  # a crash may have left something
        self._waiting: list[Callable[[], None]] = []
        self.room_bytes: int | None = None  # on the disk, above its reserve; None: not known

    @property
    def busy(self) -> bool:
        """Whether a flush or checkpoint is on its way to the disk."""
        return self._busy

    def adopt(self, replica: Replica, durable_index: int) -> None:
        """A replica was opened or has installed a snapshot."""
        self._states[replica] = FlushState(durable_index, durable_index)

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
        return 2 * self.bytes_in_memory() + self._unchecked_bytes

    def _bytes_max(self) -> int:
        """How much is flushed, and how much is then moved, without waiting for its time."""
        if self.room_bytes is None:
            return self._memtable_bytes
        return min(self._memtable_bytes, max(self.room_bytes // _ROOM_PART, _ROOM_BYTES_MIN))

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
        bytes_max = self._bytes_max()
        dirty = [r for r, s in self._states.items() if r.state.index > s.flushed_index]
        due = now - self._flushed_ms >= self._flush_interval_ms or buggify("flush.early")
        if dirty and (due or self._waiting or self.bytes_in_memory() >= bytes_max):
            self._flush(dirty)
        elif self._waiting:
            self._call_waiting()
        elif (
            self._unchecked_bytes
            and now >= self._held_until_ms
            and (
                self._unchecked_bytes >= bytes_max
                or now - self._checkpointed_ms >= self._checkpoint_interval_ms
            )
        ):
            self._checkpoint()
        elif self._sweep_due:
            self._sweep()

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def _flush(self, replicas: Iterable[Replica]) -> None:
        """Write what these have in memory, for all who wait for a flush."""
        self._flushed_ms = self._clock.monotonic_ms()
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
        self._unchecked_bytes += max(sum(s.table.size_bytes for _, s in states), 1)
        batch = [(replica, state.table, state.freeze()) for replica, state in states]

        def done(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return  # busy for ever: a disk that failed is not asked again
            self._busy = False
            for replica, table, flush in batch:
                table.flushed()
                state = None if replica is None else self._states.get(replica)
                if state is not None:
                    state.flushed_index = max(state.flushed_index, flush.applied.index)
            then()
            self.tick()

        flushes = [flush for _, _, flush in batch]
        self._worker.submit(lambda: self._database.flush(flushes, durable=bool(unborn)), done)

    def _checkpoint(self) -> None:
        self._busy = True
        self._checkpointed_ms = self._clock.monotonic_ms()
        self._sweep_due = True
        unchecked_bytes = self._unchecked_bytes
        flushed = {replica: state.flushed_index for replica, state in self._states.items()}

        def done(finished: Finished[bool]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            self._busy = False
            if not finished.unwrap():
                # A reader holds the file. Asking it at every tick helps nobody.
                self._held_until_ms = self._clock.monotonic_ms() + _HELD_PAUSE_MS
                return
            self._unchecked_bytes -= unchecked_bytes
            for replica, index in flushed.items():
                state = self._states.get(replica)
                if state is not None:
                    state.durable_index = max(state.durable_index, index)
            self._cut_logs()

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

        self._worker.submit(lambda: self._database.sweep(_SWEEP_ROWS), done)

    def _cut_logs(self) -> None:
        cuts: list[tuple[Replica, SnapshotMeta]] = []
        for replica, state in self._states.items():
            if replica.raft.poisoned:
                continue  # its core does not follow a cut any more
            index = min(self._cut_index(replica), state.durable_index)
            if index > replica.raft.log.snapshot.index:
                assert index <= state.durable_index <= replica.state.index
                cuts.append((replica, replica.raft.snapshot_at(index)))
                replica.raft.compact(index)
                replica.marks.forget_below(index)
        if cuts:
            self._compact(cuts)

    def _cut_index(self, replica: Replica) -> int:
        """Where the tail that must stay begins, as far as bytes and followers
        are concerned; 0 when the log is shorter than that."""
        if buggify("flush.no-tail"):
            return replica.state.index  # whoever lags needs a snapshot now
        tail = replica.marks.index_before_tail(self._log_tail_bytes)
        if replica.raft.role is not Role.LEADER:
            return tail
        matches = [p.match for p in replica.raft.progress.values() if p.recent_active]
        pinned = min([tail, *matches])
        pinned_bytes = pin_bytes_max(self._log_tail_bytes, replica.state.extent.bytes)
        floor = replica.marks.index_before_tail(pinned_bytes)
        return max(pinned, floor)
