"""Stories of snapshots that two leaders, or one leader twice, bring to one recipient."""

from __future__ import annotations

from typing import ClassVar

from krita.ring import META_SHARD
from tests.simulator.stories.story import Story


class _Sending(Story):
    """Node 1 leads shard 1 and sends it to node 3, which has missed what is cut from the log by
    now, and whose disk is slow."""

    changes: ClassVar = {"value_bytes": 2_000, "reads": 0.0}
    settings: ClassVar = {
        "log_tail_bytes": 1,
        "flush_interval_ms": 100.0,
        "checkpoint_interval_ms": 200.0,
    }

    def send(self) -> None:
        """Until it is on its way."""
        self.lead(META_SHARD, 2)
        self.lead(1, 1)
        self.at(3).crash(power=False)
        last = self.here(1, 1).raft.last_index
        self.until("its log is cut", lambda: self.here(1, 1).raft.log.snapshot.index > last)
        self.at(3).start()
        self.at(3).disk.factor = 100.0
        self.until("a snapshot is on its way", lambda: self.receives() > 0)

    def receives(self) -> int:
        """In which term the snapshot is sent that node 3 is receiving; 0: none."""
        known = self.at(3).receiver._writers.get(1)
        return 0 if known is None else known.term


class DeposedWhileItSends(_Sending):
    """The connection breaks, and before it is made anew node 1 is stopped, and node 2 leads and
    sends. Then node 1 goes on, and does not know that yet."""

    def happen(self) -> None:
        """See the class."""
        self.send()
        term = self.receives()
        for link in self.network.links():
            if (link.sender, link.recipient) == (1, 3):
                self.network.break_link(link)
        self.pass_ms(450)
        self.at(1).paused = True
        self.cut(1, 2)
        self.until("node 2 sends", lambda: self.receives() > term)
        self.at(1).resume()
        self.pass_ms(5_000)


class ElectedAgainWhileItSends(_Sending):
    """Node 1 steps down, and leads again a moment later."""

    def happen(self) -> None:
        """See the class."""
        self.send()
        raft = self.here(1, 1).raft
        term = raft.term
        raft.step_down()
        raft.campaign()
        self.at(1).host.drive.mark(self.here(1, 1))
        self.until("it leads again", lambda: self.here(1, 1).leads and raft.term > term)
        self.pass_ms(5_000)


class PowerCutWhileItSends(_Sending):
    """No checkpoint ends while a snapshot is read, and no log is cut. Then node 1 loses what
    was not synced."""

    def happen(self) -> None:
        """See the class."""
        self.send()
        for number in range(5):
            self.at(3).disk.factor = 300.0
            self.pass_ms(1_000 + 100 * number)
            self.at(1).crash(power=True)
            self.at(1).start()
            self.pass_ms(500)
            self.at(3).disk.factor = 1.0
            self.pass_ms(2_000)
            self.send()
