"""What a turn of the drive loop does to the world, for all replicas of a node.

``Drive`` (drive.py) says when; this knows the databases, the transport and who is to be
told. Everything here returns at once but ``install``, which is for data.db's thread.

Rules:
* A message goes to the node that the replica's own configuration names for its recipient;
  for one that it does not name (an answer to a leader that it has not heard of by its
  log), to where that one was last heard from.
* A leader whose messages could not be queued for somebody hears of it: its core then
  probes, instead of waiting for answers to what never left.
* After a failure nothing leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kritad.buggify import buggify
from kritad.host.flush import Flusher
from kritad.host.leaders import NO_NODE
from kritad.host.opening import Opener
from kritad.host.replica import Replica
from kritad.host.transport import Transport
from kritad.raft.messages import Message
from kritad.raft.ready import Fetch
from kritad.raft.types import SnapshotMeta
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.errors import StorageError
from kritad.storage.raft_db import RaftDatabase


class TurnEffects:
    """See the module's docstring. ``may_send`` says whether the node still lives; damage to
    a replica, and a disk that fails, go to ``on_damage``."""

    def __init__(
        self,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        opener: Opener,
        flusher: Flusher,
        transport: Transport,
        replicas: Mapping[int, Replica],
        *,
        may_send: Callable[[], bool],
        on_damage: Callable[[Replica, StorageError], None],
        mark: Callable[[Replica], None],
        wake: Callable[[], None],
    ) -> None:
        self.received: dict[int, Applied] = {}  # whole snapshots, by generation, till installed
        self.snapshots_wanted: list[tuple[Replica, int]] = []  # taken by host/snapshots.py
        self._raft_db = raft_db
        self._data_db = data_db
        self._opener = opener
        self._flusher = flusher
        self._transport = transport
        self._replicas = replicas
        self._may_send = may_send
        self._on_damage = on_damage
        self._mark = mark
        self._wake = wake
        self._heard: dict[tuple[int, int], int] = {}  # (shard, replica) -> node, as heard

    def hear(self, node: int, message: Message) -> None:
        """A message has come from there."""
        self._heard[message.shard, message.sender] = node

    def send(self, messages: list[Message]) -> None:
        """All that leaves in one piece, by node."""
        if not self._may_send():
            return  # found out in the very turn that made these
        by_node: dict[int, list[Message]] = {}
        for message in messages:
            by_node.setdefault(self._node_of(message), []).append(message)
        for node, batch in by_node.items():
            if not buggify("host.queue-full") and self._transport.send(node, batch):
                continue
            for message in batch:
                replica = self._replicas[message.shard]
                if replica.leads:
                    replica.raft.unreachable(message.recipient)

    def _node_of(self, message: Message) -> int:
        nodes = self._replicas[message.shard].raft.configuration.nodes
        found = nodes.get(message.recipient)
        return found or self._heard.get((message.shard, message.recipient), NO_NODE)

    def fetch(self, replica: Replica, fetch: Fetch) -> None:
        """Entries that only the disk has, for a follower that lags."""
        bytes_max = 1 if buggify("host.short-fetch") else fetch.bytes_max
        try:
            entries = self._raft_db.entries(replica.shard, fetch.first, fetch.last, bytes_max)
        except StorageError as problem:
            self._on_damage(replica, problem)
            return
        replica.raft.fetched(fetch, entries)
        self._mark(replica)

    def want_snapshot(self, replica: Replica, recipient: int) -> None:
        """The replica's log does not have what the recipient needs."""
        self.snapshots_wanted.append((replica, recipient))
        self._wake()

    def install(self, shard: int, meta: SnapshotMeta) -> None:
        """On data.db's thread: make received rows the shard's state, durably."""
        applied = self.received.pop(meta.generation)
        assert applied.shard == shard
        self._data_db.install(applied)

    def installed(self, replica: Replica, meta: SnapshotMeta) -> None:
        """Behind ``install``, on the loop: the replica goes on with that state."""
        replica.abandon("the replica was replaced by a snapshot while the request was waiting")
        try:
            applied = self._data_db.applied()[replica.shard]
            assert applied.index == meta.index
            replica.state = self._opener.state(replica.shard, applied)
        except StorageError as problem:
            self._on_damage(replica, problem)
        else:
            self._flusher.adopt(replica, applied.index)
