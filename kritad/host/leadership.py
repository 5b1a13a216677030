"""Whether this node should lead, who else could, and handing over.

A node that is about to stop, or whose disk is below its reserve, gives its shards
away and says in its ``leaders`` frames that it takes none. Without that word the
meta shard's leader would give them back for the sake of balance, and the shards
would go to and fro.

Rules:
* Leadership goes only to replicas that answer, on nodes that are willing. When
  nobody is, it stays: a leader that refuses puts still serves reads and deletes.
* For want of space it is handed over once a second at most; nodes that fill up
  together learn of each other's only after a moment.
* A disk that stalls for half an election timeout gives its shards away, each time to
  another heir than the last: the first one's disk may hang as well. After a whole
  election timeout the shards are let go of, to nobody: without heartbeats the others
  elect whom they can (raft.md 2.4). Not where nobody else answers.
* A node is *present* when frames would get to it and it has spoken of late: a process
  that hangs may keep its connections for long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from krita.operations import Op
from kritad.buggify import buggify
from kritad.cluster.homes import homes
from kritad.host.clock import Clock
from kritad.host.demand import Demand, Row
from kritad.host.leaders import NO_NODE, LeaderTable, Word
from kritad.host.replica import Replica
from kritad.host.transport import Transport
from kritad.raft.errors import ProposalRefused
from kritad.raft.types import Role

log = logging.getLogger(__name__)

_SPACE_PAUSE_MS = 1_000.0
# Nodes say each second what they lead.
_SILENT_MS = 5_000.0


class Leadership:
    """See the module's docstring."""

    def __init__(
        self,
        node: int,
        replicas: Mapping[int, Replica],
        leaders: LeaderTable,
        transport: Transport,
        clock: Clock,
        mark: Callable[[Replica], None],
        unsound: Callable[[], Sequence[tuple[int, int]]],
        demand: Demand,
        *,
        follow_requests_per_s: int,
    ) -> None:
        self._node = node
        self._replicas = replicas
        self._leaders = leaders
        self._transport = transport
        self._clock = clock
        self._mark = mark
        self._unsound = unsound
        self._demand = demand
        self._follow_requests_per_s = follow_requests_per_s
        self.stopping = False  # told to stop
        self.space_low = False  # the disk is below its reserve
        self.disk_free_bytes = 0
        self._unwilling: set[int] = set()  # nodes that take no leadership, as they say
        self._handed_ms = -_SPACE_PAUSE_MS  # when it was last handed over for want of space
        self._stalled = False  # the disk does not answer
        # (shard, replica) of each node that are damaged, as it says.
        self._damaged: dict[int, frozenset[tuple[int, int]]] = {}
        self._asked_of: dict[int, Sequence[Row]] = {}  # what each node's clients ask, as it says
        self._spoken_ms: dict[int, float] = {}  # when each node was last heard
        self._asked: dict[int, list[int]] = {}  # shard -> heirs that were asked in vain

    def note_role(self, replica: Replica) -> bool:
        """The role or the leader of a replica here has changed; whether one is known now."""
        raft = replica.raft
        node = raft.configuration.nodes.get(raft.leader, NO_NODE) if raft.leader else NO_NODE
        if raft.role is Role.LEADER:
            log.info("shard %d: this node leads in term %d", replica.shard, raft.term)
        if node:
            self._leaders.learn(replica.shard, node, raft.term)
        else:
            self._leaders.lost(replica.shard, raft.term)
        return bool(node)

    def tell(self) -> None:
        """Tell every node what is led here, whether it could be more, what is damaged, and
        what is asked for."""
        led = [(r.shard, r.raft.term) for r in self._replicas.values() if r.leads]
        word = Word(led, self._unwilling_here, self._unsound(), self._demand.rows())
        body = word.encode()
        for node in self._transport.peers:
            self._transport.tell(node, Op.LEADERS, body)

    def hear(self, node: int, body: bytes) -> bool:
        """Another node's word; whether it brought a leader that we did not know of.
        Raises ProtocolError."""
        word = Word.decode(body)
        self._spoken_ms[node] = self._clock.monotonic_ms()
        if buggify("leadership.deaf"):
            return False
        self._damaged[node] = frozenset(word.damaged)
        self._asked_of[node] = word.demand
        if word.unwilling:
            self._unwilling.add(node)
        else:
            self._unwilling.discard(node)
        news = [self._leaders.learn(shard, node, term) for shard, term in word.led]
        return any(news)

    def damaged(self) -> set[tuple[int, int]]:
        """(shard, replica) of those that are damaged, here and on the nodes that can be
        counted on: what others have said once is out of date."""
        here = set(self._unsound())
        return here.union(*(self._damaged.get(node, ()) for node in self.present()))

    def homes(self) -> dict[int, int]:
        """The shards that should be led where their requests come in, and the node where."""
        leaders = {shard: node for shard, node, _ in self._leaders}
        demand = {node: self._asked_of.get(node, ()) for node in self.present()}
        return homes(
            leaders, {**demand, self._node: self._demand.rows()}, self._follow_requests_per_s
        )

    @property
    def _unwilling_here(self) -> bool:
        return self.space_low or self.stopping or self._stalled

    def present(self) -> set[int]:
        """The nodes that can be counted on now, this one included."""
        since_ms = self._clock.monotonic_ms() - _SILENT_MS
        spoken = {node for node, ms in self._spoken_ms.items() if ms >= since_ms}
        return self._transport.reachable() & (spoken | {self._node})

    def candidates(self) -> set[int]:
        """The nodes that may be given a shard to lead."""
        here = {self._node} if self._unwilling_here else set()
        return self.present() - self._unwilling - here

    def note_space(self, free_bytes: int, low: bool) -> None:
        """What the disk has left, and whether that is below the reserve. It clears
        by itself."""
        if low and not self.space_low:
            log.error("only %d bytes are left on the disk: no puts are taken here", free_bytes)
        elif self.space_low and not low:
            log.warning("there is room on the disk again (%d bytes)", free_bytes)
        changed = low != self.space_low
        self.disk_free_bytes, self.space_low = free_bytes, low
        if changed:
            self.tell()
        now = self._clock.monotonic_ms()
        if low and now - self._handed_ms >= _SPACE_PAUSE_MS:
            self._handed_ms = now
            self.hand_over()

    def note_stall(self, writing_ms: float, election_ms: float) -> None:
        """For how long the log's disk has been busy with the same batch. Called on each
        tick; costs nothing while the disk answers."""
        stalled = writing_ms > election_ms / 2
        if stalled != self._stalled:
            self._stalled = stalled
            self.tell()
        if writing_ms > election_ms:
            self._let_go()
        elif stalled:
            self.hand_over()

    def hand_over(self) -> int:
        """Ask a willing follower of every shard led here to take over, the most advanced
        of those that were not asked already; returns for how many shards there is one.
        Used when stopping, and when the disk is full or stalls: a leader that cannot
        save must not keep its group waiting."""
        leading = 0
        for replica in self._replicas.values():
            heirs = self._heirs(replica)
            if not heirs:
                self._asked.pop(replica.shard, None)
                continue
            leading += 1
            raft = replica.raft
            if raft.transferring:
                continue
            heir = self._next_heir(replica, heirs)
            try:
                raft.transfer(heir)
            except ProposalRefused:
                continue  # an election, say, has come first; the next call will see
            self._mark(replica)
        return leading

    def _next_heir(self, replica: Replica, heirs: list[int]) -> int:
        asked = self._asked.setdefault(replica.shard, [])
        left = [member for member in heirs if member not in asked]
        if not left:
            asked.clear()
            left = heirs
        heir = max(left, key=lambda member: replica.raft.progress[member].match)
        asked.append(heir)
        return heir

    def _let_go(self) -> None:
        for replica in self._replicas.values():
            if self._heirs(replica):
                log.warning("shard %d: the disk does not answer; others may lead", replica.shard)
                replica.raft.step_down()
                self._mark(replica)

    def _heirs(self, replica: Replica) -> list[int]:
        """The other voters that could lead the replica's shard, if it leads."""
        if not replica.leads:
            return []
        conf, progress = replica.raft.configuration, replica.raft.progress
        return [
            member
            for member in sorted(conf.voters - {replica.id})
            if member in progress
            and progress[member].recent_active
            and conf.nodes.get(member) not in self._unwilling
        ]
