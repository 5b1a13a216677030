"""Several Hosts in one process: real databases, an in-memory network, virtual time.

``Cluster.settle`` lets everything happen that can happen without time passing;
``run`` lets time pass, tick by tick. Links can be cut; a node can be crashed (its
files are copied as they are at that moment, which is what kill -9 leaves behind)
and started again from the copy.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.host.bootstrap import (
    META_SHARD,
    Membership,
    accept_membership,
    begin_cluster,
    bootstrap_body,
    next_boot,
    store_of,
)
from kritad.host.host import Host
from kritad.host.opening import HostSettings
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.snapshots import SnapshotReceiver, _Transfer
from kritad.host.writer import Workers
from kritad.storage.data_db import DataDatabase
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.snapshots import SnapshotReader
from tests.host.clock import VirtualClock
from tests.host.lone import Replies
from tests.host.network import MemoryTransport, Network
from tests.host.worker import QueuedWorker

SETTINGS = HostSettings(memtable_bytes=1 << 20, log_tail_bytes=32 << 10)


class Node:
    """One data directory and the host that runs on it."""

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.cluster = cluster
        self.path = path
        self.alive = False
        self.opened = False
        self.woken = False
        self.starts = 0
        path.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<Node {self.path.name} {'up' if self.alive else 'down'}>"

    def open(self) -> None:
        """Open the databases."""
        self.raft_db = RaftDatabase.open(self.path / "raft.db")
        self.data_db = DataDatabase.open(self.path / "data.db")
        self.opened = True

    def close(self) -> None:
        """Close them, if they are open."""
        if self.opened:
            self.opened = False
            self.raft_db.close()
            self.data_db.close()

    def start(self) -> None:
        """Run a host on the open databases, which say who we are."""
        store_uuid = store_of(self.raft_db)
        known = self.raft_db.identity()
        assert known is not None
        assert known.store_uuid == store_uuid
        self.starts += 1
        self.number = known.node_id
        self.identity = next_boot(self.raft_db, f"n{self.number}:8080")
        self.log, self.data = QueuedWorker(), QueuedWorker()
        self.host = Host(
            self.cluster.settings,
            self.identity,
            self.raft_db,
            self.data_db,
            Workers(self.log, self.data),
            MemoryTransport(self.cluster.network, self.identity),  # type: ignore[arg-type]
            self.cluster.clock,
            seed=self.starts,
            wake=self._wake,
            observe_save=lambda _seconds, _entries: None,
        )
        self.receiver = SnapshotReceiver(self.host, self.data_db)
        self.alive = True
        self.cluster.network.nodes[self.number] = self
        self.host.open_replicas()

    def _wake(self) -> None:
        self.woken = True

    def crash(self, *, power: bool = False) -> None:
        """kill -9: what the files hold now is what will be there. ``power``: the
        power goes too, and with it what data.db (synchronous=NORMAL) has written
        since its last checkpoint. Not for a node that has installed a snapshot,
        which is synced."""
        self.alive = False
        copy = self.path.with_name(f"{self.path.name}.{self.starts}")
        shutil.copytree(self.path, copy)
        if power:
            for name in ("data.db-wal", "data.db-shm"):
                (copy / name).unlink(missing_ok=True)
        self.close()
        self.path = copy

    def restart(self) -> None:
        self.open()
        self.start()

    def replica(self, shard: int) -> Replica:
        return self.host.replicas[shard]

    def step(self) -> bool:
        """One turn, or one job of each worker; False when there is nothing to do."""
        if not self.alive:
            return False
        if self.woken:
            self.woken = False
            self.host.turn()
            self._send_snapshots()
            return True
        log, data = self.log.run_one(), self.data.run_one()
        return log or data

    def _send_snapshots(self) -> None:
        wanted, self.host.effects.snapshots_wanted = self.host.effects.snapshots_wanted, []
        for replica, recipient in wanted:
            self.cluster.snapshots.append((self, replica, recipient))


class Cluster:
    """See the module's docstring. conftest.py closes all that a test has made."""

    made: ClassVar[list[Cluster]] = []

    def __init__(
        self, path: Path, *, shards: int = 2, factor: int = 3, settings: HostSettings = SETTINGS
    ) -> None:
        self.path = path
        self.settings = settings
        self.clock = VirtualClock()
        self.network = Network()
        self.nodes: list[Node] = []
        self.snapshots: deque[tuple[Node, Replica, int]] = deque()
        self.snapshots_sent = 0
        self._ticks = 0
        self.made.append(self)
        first = self._new_node()
        begin_cluster(first.raft_db, store_of(first.raft_db))
        first.start()
        self._found(first, shards, factor)

    def _new_node(self) -> Node:
        node = Node(self, self.path / f"node{len(self.nodes) + 1}")
        node.open()
        self.nodes.append(node)
        return node

    def _found(self, node: Node, shards: int, factor: int) -> None:
        body = bootstrap_body(
            node.identity.cluster_id,
            node.identity.store_uuid,
            shards=shards,
            replication_factor=factor,
            address=node.identity.address,
            zone="",
        )
        replies = self.submit(node, Op.META_BOOTSTRAP, body, META_SHARD)
        self.settle()
        assert replies.one[0] == Status.OK, replies.one

    def join(self) -> Node:
        """Make one more node a member, as kritad does, and start it."""
        node = self._new_node()
        store_uuid = store_of(node.raft_db)
        number = len(self.nodes)
        body = encode_body(Op.META_NODE_ADD, store_uuid, f"n{number}:8080", "")
        replies = self.submit(self.nodes[0], Op.META_NODE_ADD, body, META_SHARD)
        self.run_until(lambda: bool(replies.all))
        status, reply = replies.one
        assert status == Status.OK
        assert isinstance(reply, list)
        view = self.nodes[0].host.view
        members = tuple((n.node, n.address) for n in view.nodes.values())
        joined = Membership(view.cluster_id, reply[0], reply[1], members)
        accept_membership(node.raft_db, store_uuid, joined)
        node.start()
        return node

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    # --- what happens ------------------------------------------------------------------

    def settle(self) -> None:
        """All that can happen without time passing."""
        while self._step_all() or self.network.deliver() or self._carry_snapshot():
            pass

    def _step_all(self) -> bool:
        moved = False
        for node in self.nodes:
            moved = node.step() or moved
        return moved

    def tick(self) -> None:
        """One tick of everybody's clock, and what follows from it."""
        tick_ms = self.settings.tick_ms
        self.clock.advance(tick_ms)
        self._ticks += 1
        for node in self.nodes:
            if node.alive:
                node.host.tick()
                if self._ticks % 4 == 0:
                    node.host.steward.step(node.host.view)
                if self._ticks % 20 == 0:
                    node.host.tell_leaders()
        self.settle()

    def run(self, ms: int) -> None:
        for _ in range(ms // self.settings.tick_ms):
            self.tick()

    def run_until(self, condition: Callable[[], bool], limit_ms: int = 30_000) -> None:
        self.settle()
        for _ in range(limit_ms // self.settings.tick_ms):
            if condition():
                return
            self.tick()
        assert condition(), f"not within {limit_ms} ms: {[node.host for node in self.nodes]}"

    def crash(self, node: Node, *, power: bool = False) -> None:
        """End a node, as Node.crash says; ``Node.restart`` brings it back."""
        node.crash(power=power)
        self.snapshots = deque(item for item in self.snapshots if item[0] is not node)

    def cut(self, one: Node, *others: Node) -> None:
        """Nothing passes between ``one`` and ``others``."""
        for other in others:
            self.network.cut |= {(one.number, other.number), (other.number, one.number)}

    def heal(self) -> None:
        self.network.cut.clear()

    def _carry_snapshot(self) -> bool:
        """Bring one snapshot to whoever needs it, whole, without a socket."""
        if not self.snapshots:
            return False
        source, replica, recipient = self.snapshots.popleft()
        number = replica.raft.configuration.nodes.get(recipient, 0)
        ok = self.network.is_up(source.number, number) and self._transfer(
            source, replica, recipient, self.network.nodes[number]
        )
        replica.raft.snapshot_sent(recipient, ok)
        source.host.drive.mark(replica)
        return True

    def _transfer(self, source: Node, replica: Replica, recipient: int, target: Node) -> bool:
        flushed: list[bool] = []
        source.host.flusher.when_flushed(lambda: flushed.append(True))
        source.data.drain()
        assert flushed
        reader = SnapshotReader(source.data_db.path, source.data_db.applied()[replica.shard])
        try:
            transfer = _Transfer(
                source.host, replica, recipient, target.number, target.identity.address, reader
            )
            target.receiver.open(transfer._opening(), opened := Replies())
            target.data.drain()
            match opened.one:
                case (0, [0, bytes()]):
                    pass
                case _:
                    raise AssertionError(opened.one)
            while True:
                chunk = reader.next_chunk(4096)
                target.receiver.chunk(transfer._chunk_body(chunk), stored := Replies())
                target.data.drain()
                assert stored.one == (0, [chunk.number + 1, []])
                if chunk.last:
                    break
        finally:
            reader.close()
        self.snapshots_sent += 1
        return True

    # --- what people do ----------------------------------------------------------------

    def submit(
        self,
        node: Node,
        op: Op,
        body: bytes,
        shard: int,
        *,
        key: bytes = b"",
        write: bool = True,
        forwarded: bool = False,
    ) -> Replies:
        replies = Replies()
        deadline_ms = self.clock.monotonic_ms() + 10_000
        node.host.submit(
            Request(op, body, key, shard, replies, deadline_ms, forwarded, write=write)
        )
        return replies

    def put(self, node: Node, key: bytes, value: bytes) -> Replies:
        body = encode_body(Op.PUT, 0, 0, 0, key, value)
        return self.submit(node, Op.PUT, body, self.shard_of(node, key), key=key)

    def get(self, node: Node, key: bytes) -> Replies:
        body = encode_body(Op.GET, key)
        return self.submit(node, Op.GET, body, self.shard_of(node, key), key=key, write=False)

    def shard_of(self, node: Node, key: bytes) -> int:
        """Where the node takes the key to be."""
        shard = node.host.shard_of(key)
        assert shard is not None, "the cluster is not founded yet, as far as it knows"
        return shard

    def read(self, node: Node, key: bytes) -> object:
        """A linearizable read's value."""
        replies = self.get(node, key)
        self.run_until(lambda: bool(replies.all))
        status, body = replies.one
        assert status == Status.OK, replies.one
        assert isinstance(body, list)
        return body[0]

    # --- what is the case --------------------------------------------------------------

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def leader(self, shard: int) -> Node | None:
        leading = [n for n in self.alive if shard in n.host.replicas and n.replica(shard).leads]
        return max(leading, key=lambda n: n.replica(shard).raft.term, default=None)

    def grown(self, voters: int = 3) -> bool:
        """Whether every shard has so many voters and a settled configuration, as the
        meta shard knows it."""
        view = self.nodes[0].host.view
        return all(
            len(record.report.voters) == voters and len(record.replicas) >= voters
            for record in view.shards.values()
        )

    def grown_shard(self, shard: int, voters: int) -> bool:
        """The same of one shard."""
        record = self.nodes[0].host.view.shards[shard]
        return set(record.report.voters) == set(record.nodes) and len(record.nodes) == voters

    def hashes(self, shard: int) -> set[tuple[int, int]]:
        """(applied index, state hash) of all replicas of a shard."""
        return {
            (node.replica(shard).state.index, node.replica(shard).state.state_hash)
            for node in self.alive
            if shard in node.host.replicas
        }

    def converged(self) -> bool:
        """Whether all replicas of each shard are at the same place with the same state."""
        shards = self.nodes[0].host.view.shards
        return all(len(self.hashes(shard)) == 1 for shard in shards)


def grown_cluster(path: Path, nodes: int = 3, *, shards: int = 2, **more: object) -> Cluster:
    """A cluster of so many nodes, every shard on three of them."""
    cluster = Cluster(path, shards=shards, **more)  # type: ignore[arg-type]
    for _ in range(nodes - 1):
        cluster.join()
    cluster.run_until(lambda: cluster.grown(min(nodes, 3)))
    return cluster


Grow = Callable[..., Cluster]


def key_in(node: Node, shard: int, prefix: bytes = b"k") -> bytes:
    """A key that the shard owns, the first of those that begin so and end in a number."""
    keys = (b"%b%d" % (prefix, n) for n in range(100_000))
    return next(key for key in keys if node.host.shard_of(key) == shard)


def write_some(cluster: Cluster, count: int, prefix: bytes = b"k") -> None:
    """Acknowledged writes, through all nodes in turn."""
    alive = cluster.alive
    replies = [
        cluster.put(alive[n % len(alive)], b"%b%d" % (prefix, n), b"value %d" % n)
        for n in range(count)
    ]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    assert {reply.one[0] for reply in replies} == {Status.OK}


def check_written(cluster: Cluster, node: Node, count: int, prefix: bytes = b"k") -> None:
    for n in range(count):
        key = b"%b%d" % (prefix, n)
        assert cluster.read(node, key) == b"value %d" % n, f"{key!r} is lost on {node}"
