"""A random life of a small cluster, all of it from one seed.

Messages are lost, repeated and reordered, disks sync late or never, replicas
crash and forget their unsynced saves and unflushed state, logs are compacted,
members are added, promoted, demoted and removed, leadership is handed around.
``Cluster`` checks the invariants after every step. ``recover`` then ends all
faults, and the group must elect, serve, agree and hold every acknowledged write.
"""

from __future__ import annotations

import random

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.core import ProposalRefused, Raft
from kritad.raft.types import Role
from tests.raft.cluster import Cluster, Node

SETTINGS = {
    "append_bytes_max": 120,
    "inflight_messages_max": 3,
    "inflight_bytes_max": 600,
    "window_bytes": 200,
    "promotion_lag_max": 8,
}


class Nemesis:
    """See the module's docstring."""

    def __init__(self, seed: int, size: int = 3) -> None:
        self.dice = random.Random(seed)
        self.cluster = Cluster(size, seed=seed, extra=2, **SETTINGS)
        self.acknowledged: list[bytes] = []
        self.proposed: dict[tuple[int, int], bytes] = {}
        self.tokens = 0
        self.loss = self.dice.choice([0.0, 0.02, 0.1])
        self.repeats = self.dice.choice([0.0, 0.05])
        self.crashes = self.dice.choice([0.0, 0.003, 0.01])
        self.lazy_disks = self.dice.choice([0.3, 0.9])

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            self.note_acknowledged()

    def step(self) -> None:
        cluster, dice = self.cluster, self.dice
        node = cluster.nodes[dice.choice(sorted(cluster.nodes))]
        chance = dice.random()
        if chance < 0.45 and cluster.network:
            self.deliver_one()
        elif not node.up:
            if dice.random() < 0.1:
                cluster.restart(node.replica)
        elif chance < 0.60:
            cluster.tick(node.replica)
        elif chance < 0.60 + 0.25 * self.lazy_disks:
            cluster.sync(node.replica, dice.choice([1, 1, 2, 100]))
        elif chance < 0.90:
            self.act(node)
        elif dice.random() < self.crashes * 10:
            self.crash(node)
        elif dice.random() < 0.02:
            self.partition()

    def deliver_one(self) -> None:
        network, dice = self.cluster.network, self.dice
        place = min(int(dice.expovariate(0.5)), len(network) - 1)
        message = network[place]
        if dice.random() >= self.repeats:
            del network[place]
        if len(network) > 400:
            del network[:100]
        if dice.random() >= self.loss:
            self.cluster.deliver(message)

    def act(self, node: Node) -> None:
        """What a host or client might do now."""
        dice, raft = self.dice, node.raft
        chance = dice.random()
        try:
            if node.fetches:
                self.cluster.serve_fetch(node.replica)
            elif node.snapshots_wanted:
                recipient = node.snapshots_wanted.pop()
                self.cluster.stream(node.replica, recipient, ok=dice.random() < 0.7)
            elif chance < 0.6:
                data = b"%d" % len(self.proposed)
                self.proposed[raft.propose(data)] = data
            elif chance < 0.75:
                self.tokens += 1
                self.cluster.read(raft, self.tokens)
            elif chance < 0.85:
                self.change_members(raft)
            elif chance < 0.88:
                raft.transfer(dice.choice(sorted(self.cluster.nodes)))
            elif chance < 0.91:
                raft.unreachable(dice.choice(sorted(self.cluster.nodes)))
            elif chance < 0.93:
                raft.campaign()
            elif chance < 0.94:
                raft.step_down()
            elif raft.applied_index > max(raft.log.snapshot.index, node.disk.snapshot.index):
                installing = any(save.snapshot for save, _ in node.disk.pending)
                if not installing:
                    self.cluster.compact(node.replica, raft.applied_index)
        except ProposalRefused:
            pass  # a definite no: nothing was appended
        self.cluster.pump(node.replica)

    def change_members(self, raft: Raft) -> None:
        kinds = [ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER, ChangeKind.ADD_VOTER]
        changes = [
            Change(self.dice.choice([*kinds, ChangeKind.REMOVE]), replica)
            for replica in self.dice.sample(sorted(self.cluster.nodes), self.dice.choice([1, 1, 2]))
        ]
        nodes = {change.replica: 100 + change.replica for change in changes}
        raft.propose_conf(changes, nodes, raft.configuration.version)

    def crash(self, node: Node) -> None:
        """Loses unsynced saves, and applied state that was not flushed."""
        self.cluster.crash(node.replica)
        floor = node.disk.snapshot.index
        node.applied = self.dice.randint(floor, max(floor, node.applied))
        node.state = [pair for pair in node.state if pair[0] <= node.applied]

    def partition(self) -> None:
        self.cluster.heal()
        if self.dice.random() < 0.6:
            ids = sorted(self.cluster.nodes)
            side = self.dice.sample(ids, self.dice.randint(1, len(ids) - 1))
            if self.dice.random() < 0.3:  # one way only
                self.cluster.cut |= {(a, b) for a in side for b in ids if b not in side}
            else:
                self.cluster.isolate(*side)

    def note_acknowledged(self) -> None:
        for node in self.cluster.nodes.values():
            if node.up and node.raft.role is Role.LEADER:
                for position in list(self.proposed):
                    index, term = position
                    if index <= node.applied and index in self.cluster.committed:
                        data = self.proposed.pop(position)
                        if self.cluster.committed[index].term == term:
                            self.acknowledged.append(data)

    def recover(self) -> Raft:
        """Ends all faults; returns the leader once everybody has caught up."""
        cluster = self.cluster
        cluster.heal()
        for replica, node in sorted(cluster.nodes.items()):
            if not node.up:
                cluster.restart(replica)
        for _ in range(300):
            leader = cluster.until_leader(rounds=400)
            try:
                cluster.propose(leader, b"after")
            except ProposalRefused:
                continue
            cluster.settle(ticks=2 * cluster.settings["heartbeat_ticks"])
            members = sorted(leader.configuration.members)
            if not leader.configuration.joint and all(
                cluster.nodes[member].applied == leader.commit for member in members
            ):
                assert cluster.states_agree(members)
                return cluster.leader()
        raise AssertionError(f"never whole again: {[n.raft for n in cluster.nodes.values()]}")
