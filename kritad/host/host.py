"""All replicas of one node, and everything they need to live.

``Host`` puts the parts together: replicas (Raft core and state machine), the drive loop's
turn, flushing, routing, the transport, the steward. It decides synchronously and on one
thread; ``host/loop.py`` is the thin trio code that calls it, or a simulator instead.

Rules:
* Which replicas there are is residence.py's business, who may speak to us belonging.py's,
  what a turn does to the world effects.py's. A message for a replica that is not here is
  dropped (raft.md 4.4, B27).
* A disk that fails ends the node: ``failure`` is set, nothing more is sent.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection

from krita.errors import KritaError
from krita.hello import Identity
from krita.operations import Op
from krita.ring import ShardMap
from kritad.buggify import buggify
from kritad.cluster.recovery import given_up
from kritad.cluster.view import MetaView
from kritad.host.belonging import Belonging
from kritad.host.bootstrap import META_SHARD
from kritad.host.clock import Clock
from kritad.host.demand import Demand
from kritad.host.drive import Drive, Effects
from kritad.host.effects import TurnEffects
from kritad.host.expiry import Reaper
from kritad.host.flush import Flusher
from kritad.host.leaders import LeaderTable
from kritad.host.leadership import Leadership
from kritad.host.opening import HostSettings, Opener
from kritad.host.ownership import no_map_yet, owner_of, shard_map_of
from kritad.host.peer_codec import decode_messages
from kritad.host.replica import Replica
from kritad.host.request import Deadlines, Request
from kritad.host.residence import Residence
from kritad.host.resolver import Resolver
from kritad.host.router import Router
from kritad.host.scrubber import Scrubber
from kritad.host.steward import Steward
from kritad.host.transfers import Transfers
from kritad.host.transport import Transport
from kritad.host.upkeep import Upkeep
from kritad.host.vigil import Vigil
from kritad.host.writer import Workers
from kritad.raft.core import Raft
from kritad.raft.messages import Append, Message
from kritad.raft.types import Role
from kritad.state.feed import keep_within
from kritad.state.machine import ShardState
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import StorageError
from kritad.storage.raft_db import RaftDatabase

log = logging.getLogger(__name__)

# What a shard may add to its memtable before somebody looks whether there is room for more: some
# seventy deletes. It costs 2 µs with eight shards.
_LOOK_BYTES = 16 << 10


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
        self.chance = random.Random(f"{seed}/{identity.node}")
        self.replicas: dict[int, Replica] = {}
        self.leaders = LeaderTable()
        self.deadlines = Deadlines()
        self.transport = transport
        self.view = MetaView()
        self.shard_map: ShardMap | None = None
        self.failure: BaseException | None = None
        self.disk_nearly_full = False
        self.started_ms = clock.monotonic_ms()
        self.leader_known_ms: dict[int, float] = {}  # shard -> when one was last known
        self.transfers = Transfers(clock)
        self.demand = Demand(self.started_ms)
        self._later: list[tuple[float, Callable[[], None]]] = []  # when, and what is to be called
        self._raft_db = raft_db
        self._data_db = data_db
        self.workers = workers
        self._wake = wake
        self.belonging = self._make_belonging(given_up(raft_db.recoveries()))
        self._opener = Opener(settings, raft_db, data_db, identity.node, seed)
        self._meta_index = -1
        self.upkeep = Upkeep(raft_db, data_db, workers.log, workers.data, self.replicas, self.fail)
        self.flusher = self._make_flusher()
        self.effects = self._make_effects()
        self.drive = Drive(self._in_order(observe_save), workers.log, workers.data, clock)
        self.router = self._make_router()
        self.residence = self._make_residence()
        self.leadership = self._make_leadership()
        self.reaper = Reaper(clock, self.drive.mark)
        self.resolver = Resolver(clock, self.submit, self.shard_of)
        self.vigil = Vigil(settings.dead_after_ms, clock, self.leadership.present)
        self.steward = self._make_steward()
        self.scrubber = self._make_scrubber(random.Random(f"{seed}/scrub").random())
        transport.on_expelled = self.belonging.refused

    def _make_flusher(self) -> Flusher:
        settings = self.settings
        return Flusher(
            self._data_db,
            self.workers.data,
            self.clock,
            node=self.node,
            memtable_bytes=settings.memtable_bytes,
            log_tail_bytes=settings.log_tail_bytes,
            flush_interval_ms=settings.flush_interval_ms,
            checkpoint_interval_ms=settings.checkpoint_interval_ms,
            compact=self.upkeep.cut,
            resume=lambda: self.drive.resume(),
            on_failure=self.fail,
        )

    def _make_scrubber(self, begins_at: float) -> Scrubber:
        return Scrubber(
            self._data_db,
            self.workers.data,
            self.clock,
            self.replicas,
            pass_ms=self.settings.scrub_pass_ms,
            begins_at=begins_at,
            on_damage=self.on_damage,
            on_failure=self.fail,
        )

    def _make_router(self) -> Router:
        return Router(
            self.node,
            self.replicas,
            self.leaders,
            self.transport,
            self.clock,
            self.drive.mark,
            self.shard_of,
            self.demand.served,
        )

    def _make_leadership(self) -> Leadership:
        return Leadership(
            self.node,
            self.replicas,
            self.leaders,
            self.transport,
            self.clock,
            self.drive.mark,
            self.residence.unsound,
            self.demand,
            follow_requests_per_s=self.settings.leaders_follow_requests_per_s,
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
            drive=self.drive,
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
            homes=self.leadership.homes,
            zones=self.settings.leader_zones,
            shard_bytes_max=self.settings.shard_bytes_max,
        )

    def _make_belonging(self, gone: Collection[int]) -> Belonging:
        return Belonging(
            self.node,
            self.transport,
            self.replicas,
            gone,
            view=lambda: self.view,
            on_failure=self.fail,
            wake=self._wake,
        )

    def _make_effects(self) -> TurnEffects:
        return TurnEffects(
            self._raft_db,
            self._data_db,
            self._opener,
            self.flusher,
            self.transport,
            self.replicas,
            may_send=lambda: self.failure is None,
            on_damage=self.on_damage,
            mark=lambda replica: self.drive.mark(replica),
            wake=self._wake,
        )

    def _in_order(self, observe_save: Callable[[float, int], None]) -> Effects:
        """What a turn does to the world, as the drive loop has it."""
        return Effects(
            send=self.effects.send,
            save=self._raft_db.save,
            installing=self.flusher.forget,
            install=self.effects.install,
            installed=self.effects.installed,
            fetch=self.effects.fetch,
            snapshot=self.effects.want_snapshot,
            on_failure=self.fail,
            observe_save=observe_save,
            has_room=self.flusher.has_room,
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
        self.residence.on_damage(replica, problem)

    def _make_replica(self, raft: Raft, state: ShardState) -> Replica:
        return Replica(
            raft,
            state,
            on_role=self._role_changed,
            requeue=self.router.requeue,
            misplaced=self.router.misplaced,
            on_split=self.residence.births.begin,
            on_damage=self.on_damage,
            has_room=self.drive.has_room,
            look_bytes=min(_LOOK_BYTES, self.settings.memtable_bytes // 4),
        )

    def _role_changed(self, replica: Replica) -> None:
        if replica.raft.poisoned:
            self.residence.on_poisoned(replica)
        known = self.leadership.note_role(replica)
        if replica.raft.role is Role.LEADER:
            self.tell_leaders()
        if known:
            self.router.retry_parked()

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
        # A replica that was made anew lives once more through what was before it was wanted.
        if view.version == self.view.version or view.replica_next <= meta.id:
            return
        self.view = view
        self.transport.set_peers(self.belonging.addresses())
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

    def owner(self, key: bytes) -> int:
        """The same for who cannot go on without it. Raises Unavailable."""
        shard = self.shard_of(key)
        if shard is None:
            raise no_map_yet()
        return shard

    # --- what comes in -----------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Take a request: it is answered by its deadline, whatever happens."""
        if buggify("host.impatient"):
            request.deadline_ms = self.clock.monotonic_ms() + self.settings.tick_ms
        if not (request.forwarded or request.nearest):
            self.demand.asked(request.shard)
        self.deadlines.add(request)
        self.router.route(request)

    def admit_peer(self, identity: Identity) -> None:
        """Check who says to be a member (belonging.py). Raises Foreign."""
        self.belonging.admit(identity)

    def deliver(self, node: int, op: int, body: bytes) -> None:
        """A one-way frame of another node. Raises ProtocolError, and Foreign for a node
        that is none of ours any more."""
        if op == Op.RAFT:
            for message in decode_messages(body):
                self.step(node, message)
        elif op == Op.LEADERS:
            self.belonging.check_stays(node)
            if self.leadership.hear(node, body):
                self.router.retry_parked()

    def step(self, node: int, message: Message) -> None:
        """A Raft message that came from ``node``."""
        replica = self.replicas.get(message.shard)
        if replica is None or replica.id != message.recipient:
            # Not here (yet, or any more); the sender will notice.
            if message.shard == META_SHARD:
                self.residence.make_meta(message)
            return
        if self.disk_nearly_full and message.shard != META_SHARD and _brings_entries(message):
            return  # as if it had been lost on the way: its leader will send it again
        self.effects.hear(node, message)
        replica.raft.step(message)
        self.drive.mark(replica)

    def tell_leaders(self) -> None:
        """Tell every node what is led here, unless this one has failed."""
        if self.failure is None:
            self.leadership.tell()

    # --- the passing of time -----------------------------------------------------------

    def after(self, pause_ms: float, call: Callable[[], None]) -> None:
        """Have it called at the first tick behind the pause. For few: each tick looks at all."""
        self._later.append((self.clock.monotonic_ms() + pause_ms, call))

    def _call_due(self, now_ms: float) -> None:
        due = [call for when_ms, call in self._later if when_ms <= now_ms]
        self._later = [item for item in self._later if item[0] > now_ms]
        for call in due:
            call()

    def turn(self) -> None:
        """One turn of the drive loop."""
        if self.failure is None:
            self.drive.turn()
            self._refresh_view()
            if self.flusher.urgent:
                self.flusher.tick()

    def tick(self) -> None:
        """One tick of every replica's clock."""
        now, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        for replica in self.replicas.values():
            replica.raft.tick()
            replica.note_time(now, wall_ms)
            replica.end_polls(now)
            replica.end_waits(now)
            if replica.raft.has_ready:
                self.drive.mark(replica)
        keep_within(replica.state.feed for replica in self.replicas.values())
        self.demand.step(now)
        self.reaper.step(self.replicas.values())
        self.resolver.step(self.replicas.values())
        for shard in self.view.shards:
            if self.leaders.of(shard)[0]:
                self.leader_known_ms[shard] = now
        if self._later:
            self._call_due(now)
        self.residence.tick()
        self.deadlines.expire(now)
        self.router.retry_parked()
        self.flusher.tick()
        self.scrubber.tick()
        self.leadership.note_stall(self.drive.writing_ms, self.settings.election_ms)
        if buggify("host.hand-over"):
            self.leadership.hand_over()
        self.belonging.look()

    def note_space(self, free_bytes: int, low: bool, *, nearly_full: bool = False) -> None:
        """What the disk has left, and whether that is below the reserve (storage/space.py)."""
        if nearly_full is not self.disk_nearly_full:
            self.disk_nearly_full = nearly_full
            also = "no longer taken either" if nearly_full else "taken again"
            log.warning(
                "deletes and entries of others' leaders are %s: %d bytes are free", also, free_bytes
            )
        self.router.space_low, self.router.nearly_full = low, nearly_full
        self.reaper.disk_nearly_full = nearly_full
        self.leadership.note_space(free_bytes, low)

    def fail(self, error: BaseException) -> None:
        """A disk has failed, the cluster has expelled us, or we have a bug: nothing
        more leaves this node."""
        if self.failure is None:
            self.failure = error
            explained = isinstance(error, KritaError)
            log.critical("the node stops: %s", error, exc_info=None if explained else error)
            self._wake()


def _brings_entries(message: Message) -> bool:
    return isinstance(message, Append) and bool(message.entries)
