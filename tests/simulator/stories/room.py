"""Stories of little memory and slow disks."""

from __future__ import annotations

from typing import ClassVar

from krita.ring import META_SHARD
from tests.simulator.invariants import Violation
from tests.simulator.stories.story import Story


class _LittleRoom(Story):
    """Node 3's memory is small, and its disk slow: much is committed there and waits. Node 2
    leads."""

    changes: ClassVar = {"value_bytes": 2_000, "think_ms": 10, "clients": 4, "keys": 5}
    settings: ClassVar = {
        "memtable_bytes": 8_000,
        "log_tail_bytes": 1,
        "flush_interval_ms": 500.0,
        "checkpoint_interval_ms": 2_000.0,
    }

    def fill(self) -> None:
        """Until more waits there than is flushed in a few seconds."""
        self.lead(META_SHARD, 1)
        self.lead(1, 2)
        self.until_cut(0)
        for other in (1, 2):
            self.cut(other, 3)
        self.pass_ms(1_500)
        self.at(3).disk.factor, self.at(3).disk.spikes = 100.0, 0.0  # or it would not lead
        self.mend()
        self.until("entries wait there", lambda: self.waiting() > 50)

    def waiting(self) -> int:
        """How many entries wait there."""
        return sum(map(len, self.at(3).host.drive._backlog.values()))

    def until_cut(self, last: int) -> None:
        """Until the leader's log begins behind that and behind where it begins now."""
        last = max(last, self.here(1, 2).raft.log.snapshot.index)
        self.until("the log is cut", lambda: self.here(1, 2).raft.log.snapshot.index > last)


class LeadsWhileMuchWaits(_LittleRoom):
    """Then it is to lead itself. What it is asked it answers when it has caught up."""

    changes: ClassVar = {**_LittleRoom.changes, "clients": 10, "reads": 0.7}

    def happen(self) -> None:
        """See the class."""
        self.fill()
        self.lead(1, 3)
        self.pass_ms(5_000)


class SnapshotForWhatWaits(_LittleRoom):
    """Then it is cut off again, until it needs a snapshot of one shard; another one takes what
    room there is."""

    changes: ClassVar = {**_LittleRoom.changes, "shards": 2, "keys": 12}

    def happen(self) -> None:
        """See the class."""
        for _ in range(4):
            self.fill()
            for other in (1, 2):
                self.cut(other, 3)
            self.until_cut(self.here(1, 3).raft.last_index)
            self.mend()
            self.until("it is sent", lambda: self.here(1, 3).raft.log.snapshot.generation > 0)
        self.pass_ms(3_000)


class FlushAfterFlush(Story):
    """Every flush takes longer than the time between two of them. Checkpoints come all the
    same, and logs are cut."""

    changes: ClassVar = {"nodes": 1, "shards": 4, "disk_us": 100_000, "clients": 12, "think_ms": 5}
    settings: ClassVar = {"flush_interval_ms": 10.0, "checkpoint_interval_ms": 200.0}

    def happen(self) -> None:
        """See the class."""
        self.at(1).disk.spikes = 0.0
        flusher = self.at(1).host.flusher
        for _ in range(20):
            begun = flusher._checkpointed_ms
            self.pass_ms(1_000)
            if flusher._checkpointed_ms == begun:
                raise Violation("checkpoints", f"none in five intervals: {flusher!r}")
