"""All replicas of one node, and everything they need to live.

``Host`` puts the parts together: replicas (Raft core and state machine), the
drive loop's turn, flushing, routing, the transport, the steward. It decides
synchronously and on one thread; ``host/loop.py`` is the thin trio code that
calls it, so that a simulator can call it instead.

Rules:
* Which replicas there are is residence.py's business; a message for a replica that is
  not here is dropped (raft.md 4.4, B27).
* A disk that fails ends the node: ``failure`` is set, nothing more is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from krita.errors import Foreign, KritaError
from krita.handshake import Identity
from krita.operations import Op
from krita.ring import ShardMap
from kritad.buggify import buggify
from kritad.cluster.recovery import given_up
from kritad.cluster.view import MetaView
from kritad.host.admission import check_kept, check_member
from kritad.host.bootstrap import META_SHARD
from kritad.host.clock import Clock
from kritad.host.departure import LEAVING, has_gone, removed_from_cluster
from kritad.host.drive import Drive, Effects
from kritad.host.expiry import Reaper
from kritad.host.flush import Flusher
from kritad.host.leaders import NO_NODE, LeaderTable
from kritad.host.leadership import Leadership
from kritad.host.link import Expelled
from kritad.host.opening import HostSettings, Opener
from kritad.host.ownership import owner_of, shard_map_of
from kritad.host.peer_codec import decode_messages
from kritad.host.replica import Replica
from kritad.host.request import Deadlines, Request
from kritad.host.residence import Residence
from kritad.host.router import Router
from kritad.host.steward import Steward
from kritad.host.transfers import Transfers
from kritad.host.transport import Transport
from kritad.host.upkeep import Upkeep
from kritad.host.vigil import Vigil
from kritad.host.writer import Worker
from kritad.raft.core import Raft
from kritad.raft.messages import Message
from kritad.raft.ready import Fetch
from kritad.raft.types import Role, SnapshotMeta
from kritad.state.machine import ShardState
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.errors import Corrupt, StorageError
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
        self.removed = False  # from the cluster, as people wanted it: time to stop
        self.started_ms = clock.monotonic_ms()
        self.given_up = given_up(raft_db.recoveries())  # nodes that may not come back
        self.leader_known_ms: dict[int, float] = {}  # shard -> when one was last known
        self.snapshots_wanted: list[tuple[Replica, int]] = []  # taken by host/snapshots.py
        self.transfers = Transfers(clock)
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
        self.flusher = self._make_flusher()
        self.drive = Drive(self._effects(observe_save), workers.log, workers.data, clock)
        self.router = Router(
            self.node, self.replicas, self.leaders, transport, clock, self.drive.mark, self.shard_of
        )
        self.residence = self._make_residence()
        self.leadership = Leadership(
            self.node,
            self.replicas,
            self.leaders,
            transport,
            clock,
            self.drive.mark,
            self.residence.unsound,
        )
        self.reaper = Reaper(clock, self.drive.mark)
        self.vigil = Vigil(settings.dead_after_ms, clock, self.leadership.present)
        self.steward = self._make_steward()
        transport.on_expelled = self.refused

    def _make_flusher(self) -> Flusher:
        settings = self.settings
        return Flusher(
            self._data_db,
            self.workers.data,
            self.clock,
            memtable_bytes=settings.memtable_bytes,
            log_tail_bytes=settings.log_tail_bytes,
            flush_interval_ms=settings.flush_interval_ms,
            checkpoint_interval_ms=settings.checkpoint_interval_ms,
            compact=self.upkeep.cut,
            on_failure=self.fail,
        )

    def _make_residence(self) -> Residence:
        return Residence(
            self.node,
            self._raft_db,
            self._data_db,
            self.workers.log,
            self.workers.data,
            self._opener,
            self.flusher,
            self.upkeep,
            replicas=self.replicas,
            make=self._make_replica,
            silence=self._silence,
            mark=self.drive.mark,
            on_failure=self.fail,
        )

    def _make_steward(self) -> Steward:
        return Steward(
            self.replicas,
            self.leaders,
            self.clock,
            self.submit,
            self.drive.mark,
            self.leadership.present,
            self.leadership.candidates,
            vigil=self.vigil,
            damaged=self.leadership.damaged,
            zones=self.settings.leader_zones,
            shard_bytes_max=self.settings.shard_bytes_max,
        )

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
            after_save=self.upkeep.checkpoint_log,
            wake=self._wake,
        )

    def __repr__(self) -> str:
        leads = sum(replica.leads for replica in self.replicas.values())
        return f"<Host of node {self.node}: {len(self.replicas)} replicas, leads {leads}>"

    # --- the replicas that live here ---------------------------------------------------

    @property
    def damaged(self) -> dict[int, str]:
        """Shard -> why its replica here is not open."""
        return self.residence.damaged

    def open_replicas(self) -> None:
        """Open everything that is on the disk; a damaged shard is left out."""
        self.residence.open_all()
        self._refresh_view()

    def on_damage(self, replica: Replica, problem: StorageError) -> None:
        """Damage costs the replica its life, a disk that fails the node."""
        if not isinstance(problem, Corrupt):
            self.fail(problem)
            return
        self.residence.note_damage(replica.shard, problem)
        self._silence(replica, "the replica that had the request was found damaged")

    def _silence(self, replica: Replica, why: str) -> None:
        """The replica takes part in nothing any more. It is not flushed either: half
        an entry may stand in its memory."""
        replica.raft.poison(why)
        self.flusher.forget(replica)
        self.drive.forget([replica])  # also what this very turn was about to send
        replica.abandon(why)
        self.drive.mark(replica)  # its role has changed

    def _make_replica(self, raft: Raft, state: ShardState) -> Replica:
        return Replica(
            raft,
            state,
            on_role=self._role_changed,
            requeue=self.router.requeue,
            misplaced=self.router.misplaced,
            on_split=self.residence.births.begin,
            on_damage=self.on_damage,
        )

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
        self.residence.follow(view)
        self.shard_map = self.build_shard_map()
        self.router.retry_parked()

    def build_shard_map(self) -> ShardMap | None:
        """The map that clients get, with the leaders known now. None before
        the cluster is bootstrapped."""
        return shard_map_of(self.view, self.leaders)

    def shard_of(self, key: bytes) -> int | None:
        """The shard that owns the key; None before the cluster is bootstrapped."""
        return None if self.shard_map is None else owner_of(key, self.shard_map, self.replicas)

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
        check_kept(self.given_up, identity)
        check_member(self.view, identity)
        if has_gone(self.view, identity.node, self.replicas.get(META_SHARD)):
            raise removed_from_cluster(identity.node)
        self.transport.check_single(identity)
        if identity.node not in self.view.nodes:
            self.transport.learn(identity.node, identity.address)

    def deliver(self, node: int, op: int, body: bytes) -> None:
        """A one-way frame of another node. Raises ProtocolError, and Foreign for a node
        that is none of ours any more."""
        if op == Op.RAFT:
            for message in decode_messages(body):
                self.step(node, message)
        elif op == Op.LEADERS:
            if has_gone(self.view, node, self.replicas.get(META_SHARD)):
                raise removed_from_cluster(node)  # it may not have heard its last entry
            if self.leadership.hear(node, body):
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
            if self.flusher.urgent:
                self.flusher.tick()

    def tick(self) -> None:
        """One tick of every replica's clock."""
        now = self.clock.monotonic_ms()
        for replica in self.replicas.values():
            replica.raft.tick()
            replica.note_leader(now, self.settings.tick_ms)
            replica.end_polls(now)
            if replica.raft.has_ready:
                self.drive.mark(replica)
        self.reaper.step(self.replicas.values())
        for shard in self.view.shards:
            if self.leaders.of(shard)[0]:
                self.leader_known_ms[shard] = now
        self.residence.tick()
        self.deadlines.expire(now)
        self.router.retry_parked()
        self.flusher.tick()
        self.leadership.note_stall(self.drive.writing_ms, self.settings.election_ms)
        if buggify("host.hand-over"):
            self.leadership.hand_over()
        if has_gone(self.view, self.node, self.replicas.get(META_SHARD)):
            self._leave()

    def note_space(self, free_bytes: int, low: bool) -> None:
        """What the disk has left, and whether that is below the reserve."""
        self.router.space_low = low
        self.leadership.note_space(free_bytes, low)

    def refused(self, error: Foreign) -> None:
        """The others take us for no member of the cluster. For a node that is about to
        leave that is how it hears that it has left; for any other it is the end."""
        own = self.view.nodes.get(self.node)
        if own is None or own.state not in LEAVING or "removed" not in error.detail:
            self.fail(error)
        elif isinstance(error, Expelled):
            self._leave()
        # Else the meta shard has said so, to our announcement. It may need our vote until
        # it has let go of us: whoever has seen that tells us (see ``deliver``).

    def _leave(self) -> None:
        if not self.removed:
            self.removed = True
            log.warning(
                "this node has been removed from the cluster; its data directory may be deleted"
            )
            self._wake()

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
