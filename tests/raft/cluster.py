"""Cores on an in-memory network, each with a disk that forgets what is not synced.

A test drives everything by hand: ``pump`` does what ``Ready`` asks for, ``sync``
makes saves durable, ``deliver`` brings a message, ``crash`` loses what was not
synced, ``restart`` boots from the rest. ``settle`` does all of it until nothing
moves. After every step the global invariants of Raft are checked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import attrs

from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.core import Raft, RaftConfig
from kritad.raft.messages import Message, PreVote, PreVoteReply, SnapshotInstalled
from kritad.raft.quorum import quorum_reached
from kritad.raft.ready import Fetch, Ready
from kritad.raft.types import (
    Boot,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Role,
    Save,
    SnapshotMeta,
)

SHARD = 7


class Disk:
    """What survives a crash, and the saves that would not."""

    def __init__(self, snapshot: SnapshotMeta) -> None:
        self.hard_state = HardState()
        self.snapshot = snapshot
        self.entries: list[Entry] = []
        self.pending: list[tuple[Save, list[Message]]] = []
        self.sequence = 0

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.snapshot.index

    def write(self, save: Save) -> None:
        """One transaction, in the order that ``Save`` prescribes."""
        assert save.sequence == self.sequence + 1, "saves were reordered"
        self.sequence = save.sequence
        if save.snapshot is not None:
            self.snapshot, self.entries = save.snapshot, []
        if save.truncate_from:
            assert save.truncate_from > self.snapshot.index
            self.entries = [entry for entry in self.entries if entry.index < save.truncate_from]
        for entry in save.entries:
            assert entry.index == self.last_index + 1, f"hole before {entry}"
            self.entries.append(entry)
        if save.hard_state is not None:
            self.hard_state = attrs.evolve(save.hard_state)

    def has(self, index: int, term: int) -> bool:
        if index <= self.snapshot.index:
            return True
        position = index - self.snapshot.index - 1
        return position < len(self.entries) and self.entries[position].term == term

    def compact(self, snapshot: SnapshotMeta) -> None:
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]
        self.snapshot = snapshot

    def boot(self, applied_index: int) -> Boot:
        terms: list[tuple[int, int]] = []
        for entry in self.entries:
            if not terms or terms[-1][1] != entry.term:
                terms.append((entry.index, entry.term))
        return Boot(
            hard_state=attrs.evolve(self.hard_state),
            snapshot=self.snapshot,
            last_index=self.last_index,
            terms=terms,
            configurations=[
                (entry.index, decode_configuration(entry.data))
                for entry in self.entries
                if entry.kind is EntryKind.CONF
            ],
            entries=[entry for entry in self.entries if entry.index > applied_index],
            applied_index=applied_index,
        )


class Node:
    """One replica: core, disk, and a state machine that is the list of its commands."""

    def __init__(self, replica: int, disk: Disk, seed: int, settings: dict[str, int]) -> None:
        self.replica = replica
        self.disk = disk
        self.seed = seed
        self.settings = settings
        self.state: list[tuple[int, bytes]] = []
        self.applied = disk.snapshot.index
        self.snapshots_wanted: list[int] = []
        self.reads: dict[int, int] = {}
        self.reads_lost: list[int] = []
        self.fetches: list[Fetch] = []
        self.up = False
        self.boots = 0
        self.boot()

    def boot(self) -> None:
        self.boots += 1
        self.disk.pending.clear()
        self.disk.sequence = 0
        self.snapshots_wanted.clear()
        self.fetches.clear()
        config = RaftConfig(SHARD, self.replica, strict=True, **self.settings)
        dice = random.Random(f"{self.seed}/{self.replica}/{self.boots}")
        self.raft = Raft(config, self.disk.boot(self.applied), dice)
        self.up = True

    def apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert entry.index == self.applied + 1, f"applied {entry} after {self.applied}"
            self.applied = entry.index
            if entry.kind is EntryKind.COMMAND:
                self.state.append((entry.index, entry.data))


class Cluster:
    """See the module's docstring. ``size`` voters with the ids 1 to ``size``."""

    def __init__(self, size: int, *, seed: int = 1, extra: int = 0, **settings: int) -> None:
        voters = frozenset(range(1, size + 1))
        first = Configuration(1, voters, nodes={voter: 100 + voter for voter in sorted(voters)})
        self.settings = {"election_ticks": 10, "heartbeat_ticks": 2, **settings}
        self.seed = seed
        self.nodes: dict[int, Node] = {}
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.filter: Callable[[Message], bool] = everything
        # What the whole cluster may never contradict:
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}  # the term in which that was first seen
        self.written: dict[tuple[int, int], Entry] = {}
        self.read_floors: dict[int, int] = {}
        self.hashes: dict[int, int] = {}
        for replica in range(1, size + extra + 1):
            self.add_node(replica, first if replica <= size else Configuration())

    def __getitem__(self, replica: int) -> Raft:
        return self.nodes[replica].raft

    def add_node(self, replica: int, configuration: Configuration | None = None) -> Node:
        disk = Disk(SnapshotMeta(configuration=configuration or Configuration()))
        self.nodes[replica] = Node(replica, disk, self.seed, self.settings)
        return self.nodes[replica]

    # --- one step at a time -------------------------------------------------

    def pump(self, replica: int) -> None:
        """Does what the replica's Ready asks for, except syncing."""
        node = self.nodes[replica]
        while node.up and (ready := node.raft.ready()) is not None:
            self._perform(node, ready)
            self.check(node)
        if node.up:
            self.check(node)

    def _perform(self, node: Node, ready: Ready) -> None:
        for message in ready.messages:
            self._check_early(node, message)
        self.network += ready.messages
        assert ready.save is not None or not ready.messages_after_save
        if ready.save is not None:
            for entry in ready.save.entries:
                known = self.written.setdefault((entry.index, entry.term), entry)
                assert known == entry, f"{known} and {entry} have the same index and term"
            node.disk.pending.append((ready.save, ready.messages_after_save))
        for entry in ready.committed:
            assert node.disk.has(entry.index, entry.term), f"handed out undurable {entry}"
            known = self.committed.setdefault(entry.index, entry)
            assert known == entry, f"{entry} committed, {known} was"
            self.committed_in.setdefault(entry.index, node.raft.term)
        node.apply(ready.committed)
        if ready.committed:
            node.raft.applied(node.applied)
            digest = hash(tuple(node.state))
            assert self.hashes.setdefault(node.applied, digest) == digest, "states differ"
        for read in ready.reads:
            assert read.index >= self.read_floors[read.token], f"stale {read}"
            node.reads[read.token] = read.index
        node.reads_lost += ready.reads_lost
        node.snapshots_wanted += ready.snapshots
        node.fetches += ready.fetches

    def _check_early(self, node: Node, message: Message) -> None:
        term = message.term - 1 if isinstance(message, PreVote) else message.term
        if isinstance(message, PreVoteReply) and message.granted:
            return
        assert term <= node.disk.hard_state.term, f"{message} left before its term was durable"

    def sync(self, replica: int, count: int = 1 << 30) -> bool:
        """The disk writes the next ``count`` saves; whether there was one."""
        node = self.nodes[replica]
        done, node.disk.pending = node.disk.pending[:count], node.disk.pending[count:]
        for save, messages in done:
            node.disk.write(save)
            if save.snapshot is not None:
                self._load(node, save.snapshot)
            node.raft.saved(save.sequence)
            self.network += messages
        self.pump(replica)
        return bool(done)

    def _load(self, node: Node, snapshot: SnapshotMeta) -> None:
        """The state machine becomes that of the snapshot (whose rows it has)."""
        indexes = [index for index in sorted(self.committed) if index <= snapshot.index]
        entries = [self.committed[index] for index in indexes]
        node.state = [(e.index, e.data) for e in entries if e.kind is EntryKind.COMMAND]
        node.applied = max(node.applied, snapshot.index)

    def deliver(self, message: Message) -> None:
        node = self.nodes.get(message.recipient)
        cut = (message.sender, message.recipient) in self.cut or not self.filter(message)
        if node is not None and node.up and not cut:
            node.raft.step(message)
            self.pump(message.recipient)

    def deliver_all(self) -> None:
        """Delivers what is in flight now; answers stay in flight."""
        messages, self.network = self.network, []
        for message in messages:
            self.deliver(message)

    def tick(self, *replicas: int) -> None:
        for replica in replicas or sorted(self.nodes):
            if self.nodes[replica].up:
                self.nodes[replica].raft.tick()
                self.pump(replica)

    def crash(self, replica: int) -> None:
        node = self.nodes[replica]
        node.up = False
        node.disk.pending.clear()

    def restart(self, replica: int) -> None:
        self.nodes[replica].boot()
        self.pump(replica)

    def isolate(self, *replicas: int) -> None:
        for one in replicas:
            for other in self.nodes:
                if other not in replicas:
                    self.cut |= {(one, other), (other, one)}

    def heal(self) -> None:
        self.cut.clear()
        self.filter = everything

    # --- many steps ---------------------------------------------------------

    def settle(self, ticks: int = 0) -> None:
        """Until nothing moves, then ``ticks`` times a tick and until nothing moves."""
        for remaining in range(ticks, -1, -1):
            for _ in range(1000):
                for replica in sorted(self.nodes):
                    self.pump(replica)
                    self.sync(replica)
                    self._serve(self.nodes[replica])
                if not self.network:
                    break
                self.deliver_all()
            else:
                raise AssertionError("it never settles")
            if remaining:
                self.tick()

    def _serve(self, node: Node) -> None:
        """Answers fetches and streams snapshots, in no time."""
        while node.fetches:
            self.serve_fetch(node.replica)
        while node.snapshots_wanted:
            self.stream(node.replica, node.snapshots_wanted.pop(0))

    def serve_fetch(self, replica: int) -> None:
        node = self.nodes[replica]
        fetch = node.fetches.pop(0)
        entries = [e for e in node.disk.entries if fetch.first <= e.index <= fetch.last]
        taken, total = 0, 0
        while taken < len(entries) and (taken == 0 or total < fetch.bytes_max):
            total += len(entries[taken].data)
            taken += 1
        node.raft.fetched(fetch, entries[:taken])
        self.pump(replica)

    def stream(self, replica: int, recipient: int, *, ok: bool = True) -> None:
        """Sends a snapshot of ``replica``'s state and reports the outcome."""
        node, target = self.nodes[replica], self.nodes.get(recipient)
        arrives = ok and target is not None and target.up and (replica, recipient) not in self.cut
        if arrives and target is not None:
            meta = node.raft.snapshot_at(node.raft.applied_index)
            target.raft.step(SnapshotInstalled(SHARD, replica, recipient, node.raft.term, meta))
            self.pump(recipient)
        node.raft.snapshot_sent(recipient, arrives)
        self.pump(replica)

    def compact(self, replica: int, index: int) -> None:
        node = self.nodes[replica]
        node.disk.compact(node.raft.snapshot_at(index))
        node.raft.compact(index)
        self.check(node)

    def elect(self, replica: int) -> Raft:
        """Makes ``replica`` the leader, with everybody's consent."""
        for _ in range(3 * self.settings["election_ticks"]):
            raft = self[replica]
            if raft.role is not Role.LEADER:
                raft.campaign()
            self.settle()
            if raft.role is Role.LEADER:
                self.settle(ticks=self.settings["heartbeat_ticks"])
                return raft
            self.tick(*[other for other in sorted(self.nodes) if other != replica])
        raise AssertionError(f"replica {replica} cannot be elected")

    def leader(self) -> Raft:
        """The leader of the highest term that is up; AssertionError without one."""
        found = [n.raft for n in self.nodes.values() if n.up and n.raft.role is Role.LEADER]
        assert found, f"no leader: {[node.raft for node in self.nodes.values()]}"
        return max(found, key=lambda raft: raft.term)

    def until_leader(self, *, rounds: int = 200) -> Raft:
        """Ticks until somebody who can commit leads."""
        for _ in range(rounds):
            self.settle(ticks=1)
            leading = [n.raft for n in self.nodes.values() if n.up and n.raft.role is Role.LEADER]
            for raft in leading:
                if raft.commit >= raft.term_start and raft.term == max(
                    n.raft.term for n in self.nodes.values() if n.up
                ):
                    return raft
        raise AssertionError(f"no leader after {rounds} ticks")

    def propose(self, raft: Raft, *commands: bytes) -> list[int]:
        """Proposes, and settles until they are committed or cannot be."""
        indexes = [raft.propose(command)[0] for command in commands]
        self.pump(raft.replica)
        self.settle(ticks=self.settings["heartbeat_ticks"] + 1)
        return indexes

    def read(self, raft: Raft, token: int) -> None:
        self.read_floors[token] = max(self.committed, default=0)
        raft.read_index(token)
        self.pump(raft.replica)

    def commands(self, replica: int) -> list[bytes]:
        """What the state machine of ``replica`` has executed."""
        return [data for _, data in self.nodes[replica].state]

    def states_agree(self, replicas: Iterable[int]) -> bool:
        return len({tuple(self.nodes[replica].state) for replica in replicas}) == 1

    # --- what must hold -----------------------------------------------------

    def check(self, node: Node) -> None:
        raft = node.raft
        raft.check_invariants()
        if raft.role is not Role.LEADER:
            return
        first = self.leaders.setdefault(raft.term, raft.replica)
        assert first == raft.replica, f"{first} and {raft.replica} both lead term {raft.term}"
        for index, entry in self.committed.items():
            if index > raft.log.snapshot.index and self.committed_in[index] <= raft.term:
                assert raft.log.term(index) == entry.term, f"leader {raft} lacks {entry}"
        if raft.commit >= raft.term_start:
            term = raft.log.term(raft.commit)
            on_disk = {n.replica for n in self.nodes.values() if n.disk.has(raft.commit, term)}
            assert any(
                quorum_reached(configuration, on_disk)
                for configuration in self._configurations_since(raft, raft.commit)
            ), f"{raft} committed on {sorted(on_disk)} only"

    def _configurations_since(self, raft: Raft, index: int) -> list[Configuration]:
        """The configurations by which ``index`` may have been committed: the one
        in force there and those appended behind it, since the newest counts."""
        configurations = raft.log.configurations
        before = [conf for at, conf in configurations if at <= index]
        return [before[-1]] + [conf for at, conf in configurations if at > index]


def everything(message: Message) -> bool:
    """The filter that lets all messages through."""
    return bool(message)


def configuration_entry(index: int, term: int, configuration: Configuration) -> Entry:
    """A conf entry, for logs written by hand."""
    return Entry(index, term, EntryKind.CONF, encode_configuration(configuration))


def command(index: int, term: int, data: bytes = b"x") -> Entry:
    """A command entry, for logs written by hand."""
    return Entry(index, term, EntryKind.COMMAND, data)
