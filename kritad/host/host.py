"""All replicas of one node, and everything they need to live.

``Host`` puts the parts together: replicas (Raft core and state machine), the
drive loop's turn, flushing, routing, the transport, the steward. It decides
synchronously and on one thread; ``host/loop.py`` is the thin trio code that
calls it, so that a simulator can call it instead.

Rules:
* A replica is created only because the meta shard's state says so, durably,
  before it answers any message; a message for a replica that is not here is
  dropped (raft.md 4.4, B27).
* A replica whose rows or records are damaged is not opened (or, while running,
  is poisoned): it neither votes nor acknowledges. The node serves the others.
* A replica is removed once its shard has surely let it go (host/upkeep.py).
* A disk that fails ends the node: ``failure`` is set, nothing more is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from krita.errors import KritaError
from krita.handshake import Identity
from krita.operations import Op
from krita.ring import ShardInfo, ShardMap
from kritad.buggify import buggify
from kritad.cluster.view import MetaView
from kritad.host.admission import check_member
from kritad.host.bootstrap import META_SHARD
from kritad.host.clock import Clock
from kritad.host.drive import Drive, Effects
from kritad.host.flush import Flusher
from kritad.host.leaders import NO_NODE, LeaderTable
from kritad.host.leadership import Leadership
from kritad.host.opening import HostSettings, Opener
from kritad.host.peer_codec import decode_messages
from kritad.host.replica import Replica
from kritad.host.request import Deadlines, Request
from kritad.host.router import Router
from kritad.host.steward import Steward
from kritad.host.transport import Transport
from kritad.host.upkeep import Upkeep, was_let_go
from kritad.host.writer import Finished, Worker
from kritad.raft.messages import Message
from kritad.raft.ready import Fetch
from kritad.raft.types import Configuration, Role, SnapshotMeta
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.errors import Corrupt, StorageError, Tombstoned
from kritad.storage.raft_db import RaftDatabase

log = logging.getLogger(__name__)


@attrs.define
class Workers:
    """One for each database: a slow flush must not delay the log."""

    log: Worker
    data: Worker


class Host:
    """See the module's docstring."""

    def __init__(
        self,
        settings: HostSettings,
        identity: Identity,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        workers: Workers,
        transport: Transport,
        clock: Clock,
        *,
        seed: int,
        wake: Callable[[], None],
        observe_save: Callable[[float, int], None],
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.node = identity.node
        self.clock = clock
        self.replicas: dict[int, Replica] = {}
        self.leaders = LeaderTable()
        self.deadlines = Deadlines()
        self.transport = transport
        self.view = MetaView()
        self.shard_map: ShardMap | None = None
        self.failure: BaseException | None = None
        self.started_ms = clock.monotonic_ms()
        self.leader_known_ms: dict[int, float] = {}  # shard -> when one was last known
        self.damaged: dict[int, str] = {}  # shard -> why its replica was not opened
        self.snapshots_wanted: list[tuple[Replica, int]] = []  # taken by host/snapshots.py
        self._raft_db = raft_db
        self._data_db = data_db
        self.workers = workers
        # Snapshots that are wholly received, by generation, until they are installed.
        self.received: dict[int, Applied] = {}
        self._wake = wake
        self._opener = Opener(settings, raft_db, data_db, identity.node, seed)
        self._routes: dict[tuple[int, int], int] = {}  # (shard, replica) -> node, as heard
        self._meta_index = -1
        self.upkeep = Upkeep(raft_db, data_db, workers.log, workers.data, self.replicas, self.fail)
        self.flusher = Flusher(
            data_db,
            workers.data,
            clock,
            memtable_bytes=settings.memtable_bytes,
            log_tail_bytes=settings.log_tail_bytes,
            flush_interval_ms=settings.flush_interval_ms,
            checkpoint_interval_ms=settings.checkpoint_interval_ms,
            compact=self.upkeep.cut,
            on_failure=self.fail,
        )
        self.drive = Drive(self._effects(observe_save), workers.log, workers.data, clock)
        self.router = Router(
            self.node, self.replicas, self.leaders, transport, clock, self.drive.mark
        )
        self.leadership = Leadership(
            self.node, self.replicas, self.leaders, transport, clock, self.drive.mark
        )
        self.steward = Steward(
            self.replicas,
            self.leaders,
            clock,
            self.submit,
            self.drive.mark,
            transport.reachable,
            self.leadership.candidates,
        )
        transport.on_expelled = self.fail

    def _effects(self, observe_save: Callable[[float, int], None]) -> Effects:
        """What a turn does to the world."""
        return Effects(
            send=self._send,
            save=self._raft_db.save,
            installing=self.flusher.forget,
            install=self._install,
            installed=self._installed,
            fetch=self._fetch,
            snapshot=self._want_snapshot,
            on_failure=self.fail,
            observe_save=observe_save,
            after_save=self._checkpoint_log,
            wake=self._wake,
        )

    def __repr__(self) -> str:
        leads = sum(replica.leads for replica in self.replicas.values())
        return f"<Host of node {self.node}: {len(self.replicas)} replicas, leads {leads}>"

    # --- opening and creating replicas -------------------------------------------------

    def open_replicas(self) -> None:
        """Open everything that is on the disk; a damaged shard is left out."""
        applied = self._data_db.applied()
        for row in self._raft_db.replicas():
            try:
                self._open(row.shard, row.replica, applied.get(row.shard))
            except (Corrupt, ValueError) as damage:  # ValueError: the core's, of a boot
                self._note_damage(row.shard, damage)
        self._refresh_view()

    def _note_damage(self, shard: int, damage: Exception) -> None:
        self.damaged[shard] = str(damage)
        log.error("shard %d is damaged here and not served: %s", shard, damage)

    def on_damage(self, replica: Replica, problem: StorageError) -> None:
        """Damage costs the replica its life, a disk that fails the node."""
        if not isinstance(problem, Corrupt):
            self.fail(problem)
            return
        self._note_damage(replica.shard, problem)
        self._silence(replica, "the replica that had the request was found damaged")

    def _silence(self, replica: Replica, why: str) -> None:
        """The replica takes part in nothing any more. It is not flushed either: half
        an entry may stand in its memory."""
        replica.raft.poison(why)
        self.flusher.forget(replica)
        self.drive.forget([replica])  # also what this very turn was about to send
        replica.abandon(why)
        self.drive.mark(replica)  # its role has changed

    def _open(self, shard: int, replica_id: int, applied: Applied | None) -> None:
        raft, state = self._opener.open(shard, replica_id, applied)
        replica = self.replicas[shard] = Replica(
            raft,
            state,
            on_role=self._role_changed,
            requeue=self.router.requeue,
            on_damage=self.on_damage,
        )
        self.flusher.adopt(replica, state.index)
        self.drive.mark(replica)

    def create_replica(self, shard: int, replica_id: int, first: Configuration | None) -> None:
        """Make a replica that the meta shard wants here, durably, and open it.

        On the loop's thread: it happens a few times in a node's life, and
        nothing of the shard may be answered before it is done.
        """
        meta = None if first is None else SnapshotMeta(configuration=first)
        self._raft_db.create_replica(shard, replica_id, meta)
        self._open(shard, replica_id, None)

    def _refresh_view(self) -> None:
        """Follow the meta shard's state, if it has moved."""
        meta = self.replicas.get(META_SHARD)
        if meta is None or meta.state.index == self._meta_index:
            return
        self._meta_index = meta.state.index
        try:
            view = MetaView.load(meta.state.records)
        except StorageError as problem:
            self.on_damage(meta, problem)
            return
        if view.version == self.view.version:
            return
        self.view = view
        self.transport.set_peers({n.node: n.address for n in view.nodes.values()})
        self._remove_let_go()
        self._create_wanted()
        self.shard_map = self.build_shard_map()
        self.router.retry_parked()

    def _remove_let_go(self) -> None:
        for shard, replica in list(self.replicas.items()):
            if was_let_go(self.view, replica):
                log.info("shard %d: replica %d has moved away", shard, replica.id)
                del self.replicas[shard]
                self._silence(replica, "the replica that had the request has left its shard")
                self.upkeep.remove(replica, self._create_wanted)

    def _create_wanted(self) -> None:
        for shard, replica_id in sorted(self.view.replicas_on(self.node).items()):
            if shard in self.replicas or shard in self.damaged or shard in self.upkeep.leaving:
                continue
            record = self.view.shards[shard]
            # The shard's very first replica begins its group; every later one
            # waits, empty, for the leader's log. Only the bootstrap entry places
            # a first one: a shard that was moved since has its group elsewhere.
            begins = record.placement_version == 1 and record.report.conf_version == 0
            configuration = (
                Configuration(
                    version=1, voters=frozenset({replica_id}), nodes={replica_id: self.node}
                )
                if begins
                else None
            )
            try:
                self.create_replica(shard, replica_id, configuration)
            except Tombstoned:
                continue  # an old wish: after a restart the meta shard's log is lived again
            except Corrupt as problem:
                self._note_damage(shard, problem)
            except StorageError as problem:
                self.fail(problem)
                return

    def build_shard_map(self) -> ShardMap | None:
        """The map that clients get, with the leaders known now. None before
        the cluster is bootstrapped."""
        if not self.view.cluster_id:
            return None
        infos = []
        for record in self.view.data_shards:
            node, term = self.leaders.of(record.shard)
            infos.append(
                ShardInfo(record.shard, record.hash_lo, record.hash_hi, node, term, record.nodes)
            )
        nodes = {node.node: node.address for node in self.view.nodes.values()}
        return ShardMap(self.view.version, tuple(infos), nodes)

    # --- what comes in -----------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Take a request: it is answered by its deadline, whatever happens."""
        if buggify("host.impatient"):
            request.deadline_ms = self.clock.monotonic_ms() + self.settings.tick_ms
        self.deadlines.add(request)
        self.router.route(request)

    def admit_peer(self, identity: Identity) -> None:
        """Check who says to be a member. Raises Foreign.

        A node that we did not know of is remembered with its address: a newcomer
        has to answer those who bring it the cluster's state before it has all of it.
        """
        if not identity.node:
            return  # it is about to ask for its membership
        check_member(self.view, identity)
        if identity.node not in self.view.nodes:
            self.transport.learn(identity.node, identity.address)

    def deliver(self, node: int, op: int, body: bytes) -> None:
        """A one-way frame of another node. Raises ProtocolError."""
        if op == Op.RAFT:
            for message in decode_messages(body):
                self.step(node, message)
        elif op == Op.LEADERS and self.leadership.hear(node, body):
            self.router.retry_parked()

    def step(self, node: int, message: Message) -> None:
        """A Raft message that came from ``node``."""
        replica = self.replicas.get(message.shard)
        if replica is None or replica.id != message.recipient:
            return  # not here (yet, or any more); the sender will notice
        self._routes[message.shard, message.sender] = node
        replica.raft.step(message)
        self.drive.mark(replica)

    def tell_leaders(self) -> None:
        """Tell every node what is led here, unless this one has failed."""
        if self.failure is None:
            self.leadership.tell()

    # --- the passing of time -----------------------------------------------------------

    def turn(self) -> None:
        """One turn of the drive loop."""
        if self.failure is None:
            self.drive.turn()
            self._refresh_view()

    def tick(self) -> None:
        """One tick of every replica's clock."""
        now = self.clock.monotonic_ms()
        for replica in self.replicas.values():
            replica.raft.tick()
            replica.note_leader(now, self.settings.tick_ms)
            if replica.raft.has_ready:
                self.drive.mark(replica)
        for shard in self.view.shards:
            if self.leaders.of(shard)[0]:
                self.leader_known_ms[shard] = now
        self.deadlines.expire(now)
        self.router.retry_parked()
        self.flusher.tick()
        if self.drive.writing_ms > self.settings.election_ms / 2 or buggify("host.hand-over"):
            self.leadership.hand_over()

    def note_space(self, free_bytes: int, low: bool) -> None:
        """What the disk has left, and whether that is below the reserve."""
        self.router.space_low = low
        self.leadership.note_space(free_bytes, low)

    def fail(self, error: BaseException) -> None:
        """A disk has failed, the cluster has expelled us, or we have a bug: nothing
        more leaves this node."""
        if self.failure is None:
            self.failure = error
            explained = isinstance(error, KritaError)
            log.critical("the node stops: %s", error, exc_info=None if explained else error)
            self._wake()

    # --- effects of a turn -------------------------------------------------------------

    def _node_of(self, message: Message) -> int:
        nodes = self.replicas[message.shard].raft.configuration.nodes
        found = nodes.get(message.recipient)
        return found or self._routes.get((message.shard, message.recipient), NO_NODE)

    def _send(self, messages: list[Message]) -> None:
        if self.failure is not None:
            return  # found out in the very turn that made these
        by_node: dict[int, list[Message]] = {}
        for message in messages:
            by_node.setdefault(self._node_of(message), []).append(message)
        for node, batch in by_node.items():
            if not buggify("host.queue-full") and self.transport.send(node, batch):
                continue
            for message in batch:
                replica = self.replicas[message.shard]
                if replica.leads:
                    replica.raft.unreachable(message.recipient)

    def _install(self, shard: int, meta: SnapshotMeta) -> None:
        """On data.db's thread: make received rows the shard's state, durably."""
        applied = self.received.pop(meta.generation)
        assert applied.shard == shard
        self._data_db.install(applied)

    def _installed(self, replica: Replica, meta: SnapshotMeta) -> None:
        replica.abandon("the replica was replaced by a snapshot while the request was waiting")
        try:
            applied = self._data_db.applied()[replica.shard]
            assert applied.index == meta.index
            replica.state = self._opener.state(replica.shard, applied)
        except StorageError as problem:
            self.on_damage(replica, problem)
        else:
            self.flusher.adopt(replica, applied.index)

    def _fetch(self, replica: Replica, fetch: Fetch) -> None:
        bytes_max = 1 if buggify("host.short-fetch") else fetch.bytes_max
        try:
            entries = self._raft_db.entries(replica.shard, fetch.first, fetch.last, bytes_max)
        except StorageError as problem:
            self.on_damage(replica, problem)
            return
        replica.raft.fetched(fetch, entries)
        self.drive.mark(replica)

    def _checkpoint_log(self) -> None:
        """Move raft.db's WAL into the file when it has grown: now, when nobody
        waits for the batch that has just been saved."""
        if not self._raft_db.checkpoint_due:
            return

        def done(finished: Finished[None]) -> None:
            if finished.error is not None:
                self.fail(finished.error)

        self.workers.log.submit(self._raft_db.maybe_checkpoint, done)

    def _want_snapshot(self, replica: Replica, recipient: int) -> None:
        self.snapshots_wanted.append((replica, recipient))
        self._wake()

    def _role_changed(self, replica: Replica) -> None:
        raft = replica.raft
        node = raft.configuration.nodes.get(raft.leader, NO_NODE) if raft.leader else NO_NODE
        if raft.role is Role.LEADER:
            log.info("shard %d: this node leads in term %d", replica.shard, raft.term)
        if node:
            self.leaders.learn(replica.shard, node, raft.term)
        else:
            self.leaders.lost(replica.shard, raft.term)
        if raft.role is Role.LEADER:
            self.tell_leaders()
        if node:
            self.router.retry_parked()
