"""The drive loop's turn. **All durability order of a node is in this file.**

A turn does for every replica with something to do, in this order:

1. *Send now*: ``Ready.messages``. The core has asserted that none of them
   claims more than its disk already holds, so a leader's entries leave while
   its own disk works on them (thesis 10.2.1).
2. *Save*: ``Ready.save`` joins the batch that is being collected. When the
   writer is free, the batch becomes one transaction with one fsync for all
   shards; what arrives meanwhile is the next batch. Nobody waits on purpose.
3. *Send after save*: ``Ready.messages_after_save`` stay beside their save and
   leave when the batch that holds it is durable, and not before.
4. *Apply* what is committed, answer writers and readers.

Rules enforced here, each with a test that fails without it:
* Saves of a replica reach the writer in the order the core made them, and
  ``Raft.saved`` is called only after the transaction has returned.
* A received snapshot is first saved as the log's new beginning (raft.db, which
  names the rows), then its rows become the shard's state (data.db); only then is
  it reported as saved. A crash in between leaves a log that begins ahead of the
  state and names the rows to install: start-up completes it (host/bootstrap.py).
  The other order would look like a log that has lost its tail.
* A disk that fails once is never asked again: ``on_failure`` ends the node
  before another message of any kind leaves (raft.md B5, B13).
* A replica that was poisoned while its save was on the way attests nothing: what
  waited for that save is dropped.
* While there is no room in memory for what is applied (flush.py), committed entries wait
  here, each replica's in order, and so do the reads that need them. A snapshot that is
  installed meanwhile is of a later state than all that waits of its shard.

This class is synchronous and knows no trio: the simulator drives it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from kritad.host.clock import Clock
from kritad.host.replica import Replica
from kritad.host.writer import Finished, Worker
from kritad.raft.messages import Message
from kritad.raft.ready import Fetch
from kritad.raft.types import Entry, Save, SnapshotMeta


@attrs.define
class Pending:
    """A save and what may leave once it is durable."""

    replica: Replica
    save: Save
    messages: list[Message]


@attrs.define
class Effects:
    """The world as the turn needs it; every callable returns at once."""

    send: Callable[[list[Message]], None]  # the host knows which node a replica is on
    save: Callable[[list[tuple[int, Save]]], None]  # on the log's thread
    installing: Callable[[Replica], None]  # on the loop: no flush of this one any more
    install: Callable[[int, SnapshotMeta], None]  # on data.db's thread, durable on return
    installed: Callable[[Replica, SnapshotMeta], None]  # on the loop
    fetch: Callable[[Replica, Fetch], None]
    snapshot: Callable[[Replica, int], None]
    on_failure: Callable[[BaseException], None]
    observe_save: Callable[[float, int], None]  # seconds, entries
    has_room: Callable[[], bool]  # in memory, for what is applied; else ``resume`` is called
    after_save: Callable[[], None]  # the log's thread is free for a moment
    wake: Callable[[], None]  # have turn() called soon


class Drive:
    """See the module's docstring."""

    def __init__(
        self, effects: Effects, log_worker: Worker, data_worker: Worker, clock: Clock
    ) -> None:
        self._effects = effects
        self._log_worker = log_worker
        self._data_worker = data_worker
        self._clock = clock
        self._dirty: dict[Replica, None] = {}  # a set that keeps its order
        self._outbox: list[Message] = []  # leaves in one piece at the turn's end
        self._collecting: list[Pending] = []
        self._writing: list[Pending] | None = None
        self._backlog: dict[Replica, list[Entry]] = {}  # committed, not applied
        self._full = False  # nothing is applied until ``resume``
        self.writing_since_ms = 0.0
        self.marks = 0  # counts ``mark``: who sees it unchanged has missed nothing
        self._failed = False

    def __repr__(self) -> str:
        writing = "idle" if self._writing is None else f"writing {len(self._writing)}"
        return f"<Drive {len(self._dirty)} dirty, {len(self._collecting)} collecting, {writing}>"

    @property
    def idle(self) -> bool:
        """Nothing to do, nothing on the way to the disk."""
        return not (self._dirty or self._collecting or self._backlog) and self._writing is None

    @property
    def writing_ms(self) -> float:
        """How long the disk has been busy with the current batch; 0 when idle."""
        if self._writing is None:
            return 0.0
        return self._clock.monotonic_ms() - self.writing_since_ms

    def mark(self, replica: Replica) -> None:
        """Something has happened to this replica: look at it in the next turn."""
        self.marks += 1
        if not self._dirty:
            self._effects.wake()
        self._dirty[replica] = None

    def has_room(self) -> bool:
        """For replicas that have applied something: whether more may be applied. If not, none
        of them is given any more until ``resume``."""
        self._full = not self._effects.has_room()
        return not self._full

    def resume(self) -> None:
        """There may be room in memory again for what is applied."""
        self._full = False
        for replica in self._backlog:
            self.mark(replica)

    def turn(self) -> None:
        """Do all that can be done now. Cost: some 20 µs a busy replica."""
        while self._dirty and not self._failed:
            dirty, self._dirty = self._dirty, {}
            for replica in dirty:
                self._look(replica)
            self._start_writing()
        if self._outbox and not self._failed:
            outbox, self._outbox = self._outbox, []
            self._effects.send(outbox)

    def _look(self, replica: Replica) -> None:
        ready = replica.take_ready()
        if ready is None:
            self._apply(replica)
            replica.serve_reads()
            return
        self._outbox += ready.messages
        if ready.save is not None:
            self._collecting.append(Pending(replica, ready.save, ready.messages_after_save))
        if ready.committed:
            waiting = self._backlog.get(replica)
            self._backlog[replica] = waiting + ready.committed if waiting else ready.committed
        self._apply(replica)
        if ready.reads or ready.reads_lost:
            replica.note_reads(ready.reads, ready.reads_lost)
        replica.serve_reads()
        for fetch in ready.fetches:
            self._effects.fetch(replica, fetch)
        for recipient in ready.snapshots:
            self._effects.snapshot(replica, recipient)
        if replica.raft.has_ready:
            self._dirty[replica] = None  # what was done made more: look again

    def _apply(self, replica: Replica) -> None:
        """Apply what is committed, as far as there is room for it."""
        if self._full or not (entries := self._backlog.pop(replica, None)):
            return
        count = replica.apply(entries)
        if count < len(entries):
            self._backlog[replica] = entries[count:]

    def _start_writing(self) -> None:
        """Hand the collected batch to the writer, if it is free."""
        if self._writing is not None or not self._collecting:
            return
        batch, self._collecting = self._collecting, []
        self._writing = batch
        self.writing_since_ms = self._clock.monotonic_ms()
        if any(pending.save.must_sync for pending in batch):
            saves = [(pending.replica.shard, pending.save) for pending in batch]
            self._log_worker.submit(lambda: self._effects.save(saves), self._logged)
        else:
            # Nothing here has to outlive a crash; it only kept its place in
            # the order behind earlier saves, and those are done.
            self._written(Finished())

    def _logged(self, finished: Finished[None]) -> None:
        """The log's part is durable. Received snapshots have a second part."""
        batch = self._writing
        assert batch is not None
        received = [p for p in batch if p.save.snapshot is not None]
        if finished.error is not None or not received:
            self._written(finished)
            return
        for pending in received:
            self._effects.installing(pending.replica)
            waiting = self._backlog.pop(pending.replica, None)
            assert pending.save.snapshot is not None
            assert not waiting or waiting[-1].index <= pending.save.snapshot.index, waiting

        def install() -> None:
            for pending in received:
                assert pending.save.snapshot is not None
                self._effects.install(pending.replica.shard, pending.save.snapshot)

        self._data_worker.submit(install, self._written)

    def _written(self, finished: Finished[None]) -> None:
        """The batch is durable, or the disk has failed."""
        batch = self._writing
        assert batch is not None
        self._writing = None
        if finished.error is not None:
            self._failed = True
            self._effects.on_failure(finished.error)
            return
        seconds = (self._clock.monotonic_ms() - self.writing_since_ms) / 1000.0
        self._effects.observe_save(seconds, sum(len(p.save.entries) for p in batch))
        for pending in batch:
            raft = pending.replica.raft
            if pending.save.snapshot is not None and not raft.poisoned:
                self._effects.installed(pending.replica, pending.save.snapshot)
            if raft.poisoned:
                continue
            raft.saved(pending.save.sequence)
            pending.replica.note_saved()
            self._outbox += pending.messages
            self.mark(pending.replica)
        self._effects.after_save()

    def forget(self, replicas: Iterable[Replica]) -> None:
        """These replicas are gone and poisoned; what they still had to save or to
        say is not wanted. A save that is being written is only not reported."""
        gone = {(replica.shard, replica.id) for replica in replicas}
        self._dirty = {r: None for r in self._dirty if (r.shard, r.id) not in gone}
        for replica in [r for r in self._backlog if (r.shard, r.id) in gone]:
            del self._backlog[replica]
        self._collecting = [
            p for p in self._collecting if (p.replica.shard, p.replica.id) not in gone
        ]
        self._outbox = [m for m in self._outbox if (m.shard, m.sender) not in gone]
