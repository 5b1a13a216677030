"""One replica on real databases, with a drive loop, and the world's other side recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs

from kritad.host.bootstrap import fresh_applied
from kritad.host.drive import Drive, Effects
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.config import RaftConfig
from kritad.raft.core import Raft
from kritad.raft.messages import Message, PreVoteReply, VoteReply
from kritad.raft.ready import Fetch
from kritad.raft.types import Configuration, Save, SnapshotMeta
from kritad.state.machine import ShardState
from kritad.state.split import Offspring
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import StorageError
from kritad.storage.extent import WHOLE_RING
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.table import Table
from tests.host.clock import VirtualClock
from tests.host.worker import QueuedWorker

SHARD = 1


def configuration(voters: int) -> Configuration:
    """Replica r on node r."""
    members = range(1, voters + 1)
    return Configuration(version=1, voters=frozenset(members), nodes={m: m for m in members})


class Replies:
    """Collects what a request is answered."""

    def __init__(self) -> None:
        self.all: list[tuple[int, object]] = []

    def __call__(self, status: int, body: object) -> None:
        self.all.append((int(status), body))

    @property
    def one(self) -> tuple[int, object]:
        assert len(self.all) == 1, f"answered {len(self.all)} times: {self.all}"
        return self.all[0]

    @property
    def outcome(self) -> int:
        body = self.one[1]
        assert isinstance(body, list)
        return int(body[2])


@attrs.define(eq=False)
class World:
    """What happened, in the order in which it happened."""

    events: list[tuple[str, object]] = attrs.field(factory=list)
    damage: list[StorageError] = attrs.field(factory=list)
    requeued: list[Request] = attrs.field(factory=list)
    misplaced: list[Request] = attrs.field(factory=list)
    split_off: list[Offspring] = attrs.field(factory=list)
    failures: list[BaseException] = attrs.field(factory=list)
    roles: int = 0

    def named(self, name: str) -> list[object]:
        return [what for event, what in self.events if event == name]

    @property
    def order(self) -> list[str]:
        return [event for event, _ in self.events]


class LoneNode:
    """Replicas 1 of some shards, with ``voters`` each, of which only 1 is here."""

    def __init__(
        self, path: Path, *, voters: int = 3, shards: int = 1, window_bytes: int = 1 << 20
    ):
        self.world = World()
        self.clock = VirtualClock()
        self.log, self.data = QueuedWorker(), QueuedWorker()
        # Whether more may be applied; False: until drive.resume().
        self.has_room: Callable[[], bool] = lambda: True
        self.raft_db = RaftDatabase.open(path / "raft.db")
        self.data_db = DataDatabase.open(path / "data.db")
        self.drive = Drive(self._effects(), self.log, self.data, self.clock)
        self.replicas = {
            shard: self._replica(shard, voters, window_bytes) for shard in range(1, shards + 1)
        }
        self.replica = self.replicas[SHARD]
        self.raft = self.replica.raft

    def close(self) -> None:
        self.raft_db.close()
        self.data_db.close()

    def _replica(self, shard: int, voters: int, window_bytes: int) -> Replica:
        first = configuration(voters)
        self.raft_db.create_replica(shard, 1, SnapshotMeta(configuration=first))
        applied = fresh_applied(self.data_db, shard, 1, first, WHOLE_RING)
        config = RaftConfig(shard=shard, replica=1, window_bytes=window_bytes, strict=False)
        table = Table(self.data_db, applied.generation, RowCache(1 << 20))
        return Replica(
            Raft(config, self.raft_db.load(shard, 0), random.Random(shard)),
            ShardState(shard, table, applied),
            on_role=self._on_role,
            requeue=self.world.requeued.append,
            misplaced=self.world.misplaced.append,
            on_split=lambda _replica, offspring: self.world.split_off.append(offspring),
            on_damage=self._on_damage,
            has_room=self.drive.has_room,
            look_bytes=1,
        )

    def _on_role(self, _replica: Replica) -> None:
        self.world.roles += 1

    def _on_damage(self, replica: Replica, problem: StorageError) -> None:
        self.world.damage.append(problem)
        replica.raft.poison(str(problem))

    def _effects(self) -> Effects:
        events = self.world.events

        def send(messages: list[Message]) -> None:
            events.extend(("send", message) for message in messages)

        def save(batch: list[tuple[int, Save]]) -> None:
            events.append(("save", batch))
            self.raft_db.save(batch)

        def install(shard: int, meta: SnapshotMeta) -> None:
            events.append(("install", (shard, meta)))

        def installing(replica: Replica) -> None:
            events.append(("installing", replica))

        def installed(_replica: Replica, meta: SnapshotMeta) -> None:
            events.append(("installed", meta))

        def fetch(_replica: Replica, wanted: Fetch) -> None:
            events.append(("fetch", wanted))

        def snapshot(_replica: Replica, recipient: int) -> None:
            events.append(("snapshot", recipient))

        return Effects(
            send=send,
            save=save,
            installing=installing,
            install=install,
            installed=installed,
            fetch=fetch,
            snapshot=snapshot,
            on_failure=self.world.failures.append,
            observe_save=lambda _seconds, _entries: None,
            has_room=lambda: self.has_room(),
            after_save=lambda: None,
            wake=lambda: None,
        )

    def step(self, message: Message) -> None:
        replica = self.replicas[message.shard]
        replica.raft.step(message)
        self.drive.mark(replica)

    def settle(self) -> None:
        """Turn and save until nothing moves."""
        self.drive.turn()
        while self.log.run_all() or self.data.run_all():
            self.drive.turn()

    def lead(self, shard: int = SHARD) -> None:
        """Let replica 1 win an election; with three voters, 2 is its friend."""
        raft = self.replicas[shard].raft
        raft.campaign()
        self.drive.mark(self.replicas[shard])
        self.settle()
        if len(raft.configuration.voters) > 1:
            self.step(PreVoteReply(shard, 2, 1, raft.term + 1, True))
            self.settle()
            self.step(VoteReply(shard, 2, 1, raft.term, True))
            self.settle()
        assert self.replicas[shard].leads
        self.world.events.clear()

    def lead_again(self) -> None:
        """The same, later: whoever led has fallen silent."""
        for _ in range(2 * self.raft.config.election_ticks):
            self.raft.tick()
        self.lead()
