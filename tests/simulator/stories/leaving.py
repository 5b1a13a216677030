"""Stories of nodes and replicas that are let go, and of those that only seem to be."""

from __future__ import annotations

from typing import ClassVar

from krita.operations import Op
from krita.ring import META_SHARD
from kritad.cluster.model import NodeState
from kritad.host.replica import Replica
from kritad.storage.errors import Corrupt
from tests.simulator.node import SimNode
from tests.simulator.stories.story import Story

_REMOVING = int(NodeState.REMOVING)


class MoveTakenBackUnheard(Story):
    """A shard's leader is the only one who knows of a voter that it has just made.

    Shard 1, on node 3 alone, is split; before that is told, it is led anew a few times. The new
    half is to move to node 2. When its leader has begun with that it does not reach the meta
    shard any more; node 2's replica becomes a voter; and people take the move back.
    """

    changes: ClassVar = {"factor": 1}

    def happen(self) -> None:
        """See the class."""
        self.lead(META_SHARD, 1)
        self.ask(1, Op.SHARD_MOVE, 1, 1, 3)
        self.until("the shard has moved", lambda: self._alone_on(1, 3))
        self.ask(1, Op.SHARD_SPLIT, 1)
        self.until("node 3 knows that", lambda: self.at(3).host.view.shards[1].split is not None)
        self.cut(1, 3)
        self.until("it is split", lambda: self.at(3).replica(2) is not None)
        for _ in range(4):
            term = self.here(1, 3).raft.term
            self.here(1, 3).raft.step_down()
            self.until("it leads again", lambda term=term: self._leads_behind(1, 3, term))  # type: ignore[misc]
        self.mend()
        self.until("the split is told", lambda: 2 in self.at(2).host.view.shards)
        self.ask(1, Op.SHARD_MOVE, 2, 3, 2)
        self.until("a member is added", lambda: len(self.here(2, 3).raft.configuration.members) > 1)
        self.cut(1, 3)
        self.until("it votes", self._two_vote)
        self.ask(1, Op.MOVE_CANCEL, 2)
        self.pass_ms(1_000)

    def _alone_on(self, shard: int, number: int) -> bool:
        replica = self.at(number).replica(shard)
        return replica is not None and replica.leads and self._is_alone(replica)

    def _is_alone(self, replica: Replica) -> bool:
        conf = replica.raft.configuration
        told = self.at(1).host.view.shards[replica.shard].report.replicas
        return conf.members == {replica.id} and [each.replica for each in told] == [replica.id]

    def _leads_behind(self, shard: int, number: int, term: int) -> bool:
        replica = self.here(shard, number)
        return replica.leads and replica.raft.term > term

    def _two_vote(self) -> bool:
        known = self.here(2, 2).raft
        return len(known.configuration.voters) > 1 and known.commit >= known.last_index


class NodeLeftBehindAnOlderWish(Story):
    """What one leader says of a wish, and what the next one still believes.

    Shard 1 is to move from node 1 to 4; its leader does not reach node 4, and makes it no member.
    The move is taken back, its leader says that it knows, and node 4 is removed: it holds
    nothing. Node 3, which hears neither of that, leads the shard then.
    """

    changes: ClassVar = {"nodes": 4}

    def happen(self) -> None:
        """See the class."""
        self.lead(META_SHARD, 1)
        nodes = self.at(1).host.view.shards[1].nodes
        if 4 in nodes:
            free = next(iter({1, 2, 3} - set(nodes)))
            self.ask(1, Op.SHARD_MOVE, 1, 4, free)
            self.until("it has moved", lambda: not self.at(1).host.view.shards[1].in_motion)
        self.lead(1, 2)
        self.cut(2, 4)
        self.pass_ms(2_000)
        self.ask(1, Op.SHARD_MOVE, 1, 1, 4)
        for number in (3, 4):
            self.until(
                "they know that",
                lambda number=number: 4 in self.at(number).host.view.shards[1].nodes,  # type: ignore[misc]
            )
        self.cut(1, 3)
        self.cut(1, 4)
        self.ask(1, Op.MOVE_CANCEL, 1)
        self.ask(1, Op.NODE_SET, 4, _REMOVING, None)
        self.until("node 4 has left", lambda: self.at(1).host.view.nodes[4].left)
        self.lead(1, 3)
        self.pass_ms(3_000)
        self.mend()
        self.pass_ms(1_000)


class VoterIsRemoved(Story):
    """A node without data is removed, and the meta shard has not let it go yet."""

    def happen(self) -> None:
        """See the class."""
        self.lead(META_SHARD, 1)
        with self.stewards_rest():
            self.ask(1, Op.NODE_SET, 2, _REMOVING, None)
            self.until("node 2 knows that it has left", lambda: self.at(2).host.view.nodes[2].left)
            self.pass_ms(1_000)

    changes: ClassVar = {"factor": 1}


class VoterIsWantedNoMore(Story):
    """A shard is to move away from node 4, which is removed right behind that, and votes yet."""

    changes: ClassVar = {"nodes": 4}

    def happen(self) -> None:
        """See the class."""
        self.lead(META_SHARD, 1)
        nodes = self.at(1).host.view.shards[1].nodes
        free = next(iter({1, 2, 3, 4} - set(nodes)))
        if free == 4:
            free = next(node for node in nodes if node != 1)
            self.ask(1, Op.SHARD_MOVE, 1, free, 4)
        self.until("it is at rest", lambda: not self.at(1).host.view.shards[1].in_motion)
        with self.stewards_rest():
            self.ask(1, Op.SHARD_MOVE, 1, 4, free)
            self.ask(1, Op.NODE_SET, 4, _REMOVING, None)
            self.pass_ms(1_000)


class ExpelledInIgnorance(Story):
    """Of three nodes one is removed. Before the meta shard has let it go, a second one's
    replica of the meta shard is damaged and made anew, on a slow disk: for a while that node does
    not know who votes."""

    changes: ClassVar = {"factor": 1}
    settings: ClassVar = {
        "log_tail_bytes": 1,
        "flush_interval_ms": 100.0,
        "checkpoint_interval_ms": 200.0,
    }

    def happen(self) -> None:
        """See the class."""
        self.lead(META_SHARD, 3)
        self.ask(3, Op.NODE_LABEL, 3, "a", None)  # what is behind it is cut from the log
        self.pass_ms(1_000)
        first = self.at(1)
        with self.stewards_rest():
            self.ask(3, Op.NODE_SET, 2, _REMOVING, None)
            self.until("node 1 knows that 2 has left", lambda: first.host.view.nodes[2].left)
            meta = self.here(META_SHARD, 1)
            self.rotten[META_SHARD] = first
            first.host.on_damage(meta, Corrupt(META_SHARD, "a bit has flipped", "none"))
            self.until("node 3 has heard", lambda: self._knows_damage(self.at(3), meta.id))
        first.disk.factor = 1_000.0
        self.until("another one is here", lambda: self._is_other(first, meta.id))
        self.pass_ms(3_000)

    def _knows_damage(self, node: SimNode, replica: int) -> bool:
        return (META_SHARD, replica) in set(node.host.leadership.damaged())

    def _is_other(self, node: SimNode, before: int) -> bool:
        replica = node.replica(META_SHARD)
        return replica is not None and replica.id != before
