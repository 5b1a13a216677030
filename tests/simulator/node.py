"""One simulated node: the daemon's own parts, with the world's side made of ``Loop``.

What host/loop.py, daemon.py and server/cbor_server.py do with trio is done here with
events: turns, ticks, the steward's rounds, founding, joining, announcing, answering
clients. All of the rest is the product: Host, Service, SnapshotReceiver, and what
they are made of.

Rules:
* Everything that reaches a node goes through ``do``: it is dropped when the node is
  dead, put off while it is paused, and after it a failed node ends.
* Its disk (two stores) outlives it; a crash keeps of them what the stores say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from krita.codec import decode_body, encode_body
from krita.connection import FLAG_FORWARDED
from krita.errors import Foreign, Status, from_wire
from krita.operations import Op
from kritad.access import PEER, Access, Principal
from kritad.host.bootstrap import (
    META_SHARD,
    accept_membership,
    announce_body,
    begin_cluster,
    bootstrap_body,
    next_boot,
    parse_membership,
    store_of,
)
from kritad.host.host import Host
from kritad.host.link import Expelled, after_welcome
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.snapshots import SnapshotReceiver
from kritad.host.writer import Workers
from kritad.metrics import Metrics
from kritad.raft.messages import Message
from kritad.service import Service
from tests.simulator.clock import NodeClock
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.disk import Disk, SimWorker
from tests.simulator.invariants import Seen
from tests.simulator.loop import MS_US, Act
from tests.simulator.network import SimTransport
from tests.simulator.raft_store import MemoryRaftDatabase
from tests.simulator.snapshot_sender import SnapshotSender
from tests.simulator.snapshot_store import MemorySnapshotWriter
from tests.simulator.stillness import check_still, stopped_by_people

if TYPE_CHECKING:
    from tests.simulator.world import World

_STEWARD_MS = 200.0
_LEADERS_ROUNDS = 5  # of the steward's
_ANNOUNCE_MS = 200.0
_JOIN_MS = 300.0


class SimNode:
    """See the module's docstring. Made without data; ``found`` or ``join`` begin its
    life, ``start`` goes on with it after a crash."""

    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.loop = world.loop
        self.name = name  # its place among the nodes; its number is the cluster's to give
        self.number = 0
        self.alive = False
        self.life = 0  # +1 with every start and end: old timers find another one
        self.paused = False
        dice = world.chance.stream("node", name)
        plan = world.plan
        spread = plan.clock_spread
        wall_ms = dice.randint(-plan.wall_spread_ms, plan.wall_spread_ms)
        self.clock = NodeClock(self.loop, 1.0 + dice.uniform(-spread, spread), wall_ms)
        self.disk = Disk(plan.disk_us, world.chance.stream("disk", name))
        self.raft_db = MemoryRaftDatabase()
        self.data_db = MemoryDataDatabase()
        self._observe_saves()
        self.disk_failing = False  # the next write will be refused
        self.removed = False  # from the cluster, for good
        self.zone = plan.zone_of(name)
        self.address = f"n{name}:8080"
        self.space_low = False
        self.connections: list[Any] = []  # of clients: see client.py
        self.replied = False  # one of them may have replies that are to be sent
        self.seen: dict[int, Seen] = {}  # in this life, by shard: see invariants.py
        self._dice = dice
        self._bits = dice.getrandbits
        self._backlog: list[tuple[Act, tuple[Any, ...]]] = []
        self._turn_due = False
        self._steward_rounds = 0

    def __repr__(self) -> str:
        state = "paused" if self.paused else "up" if self.alive else "down"
        return f"<SimNode {self.number or f'({self.name})'} {state}>"

    # --- being reached ------------------------------------------------------------------

    def do(self, act: Act, *args: Any) -> None:
        """Something happens to the process: now, or once it runs again."""
        if not self.alive:
            return
        if self.paused:
            self._backlog.append((act, args))
            return
        act(*args)
        if self.alive and (self.host.failure is not None or self.host.belonging.removed):
            self._stop()

    def _stop(self) -> None:
        self.end()
        self.world.ended(self)

    def later(self, delay_us: int, act: Act, *args: Any) -> None:
        """A timer of this life of the process."""
        self.loop.after(delay_us, self._due, self.life, act, args)

    def _due(self, life: int, act: Act, args: tuple[Any, ...]) -> None:
        if life != self.life or not self.alive:
            return
        # As ``do``, without calling it: two of three events come by here.
        if self.paused:
            self._backlog.append((act, args))
            return
        act(*args)
        if self.alive and (self.host.failure is not None or self.host.belonging.removed):
            self._stop()

    def later_raw(self, delay_us: int, act: Act) -> None:
        """What the kernel does for this life of the process, paused or not."""
        self.loop.after(delay_us, self._due_raw, self.life, act)

    def _due_raw(self, life: int, act: Act) -> None:
        if life == self.life:
            act()

    def resume(self) -> None:
        """SIGCONT: whatever has come meanwhile, in order."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for act, args in backlog:
            self.do(act, *args)

    # --- a life -------------------------------------------------------------------------

    def found(self) -> None:
        """Begin a cluster of this one node."""
        store_uuid = store_of(self.raft_db, self._make_uuid)
        begin_cluster(self.raft_db, store_uuid, self._make_uuid)
        self.start()

    def join(self, seed: SimNode) -> None:
        """Become a member of ``seed``'s cluster, however long that takes."""
        store_uuid = store_of(self.raft_db, self._make_uuid)
        body = encode_body(Op.NODE_JOIN, store_uuid, self.address, self.zone)
        again_us = int(_JOIN_MS * MS_US)

        def joined(status: int, reply: object) -> None:
            if self.number or status != Status.OK:
                return  # an answer too many; or none, and then the next attempt counts
            membership = parse_membership(reply)
            accept_membership(self.raft_db, store_uuid, membership)
            self.start()

        def attempt() -> None:
            if self.number:
                return
            self.loop.after(again_us, attempt)
            delay_us = self.world.network.delay_us()
            self.loop.after(
                delay_us, seed.serve_peer, 0, Op.NODE_JOIN, body, 5_000.0,
                lambda status, reply: self.loop.after(delay_us, joined, status, reply),
            )  # fmt: skip

        attempt()

    def _make_uuid(self) -> bytes:
        return self._dice.randbytes(16)

    def start(self) -> None:
        """A process on this disk: what daemon._Node.live does."""
        self.life += 1
        self.alive = True
        self.identity = next_boot(self.raft_db, self.address, self._make_uuid)
        self.number = self.identity.node
        self.world.network.nodes[self.number] = self
        transport = SimTransport(self.world.network, self)
        host = self.host = Host(
            self.world.plan.settings,
            self.identity,
            self.raft_db,
            self.data_db,
            Workers(SimWorker(self, self.disk), SimWorker(self, self.disk)),
            transport,  # type: ignore[arg-type]
            self.clock,
            seed=self._dice.getrandbits(32),
            wake=self._wake,
            observe_save=lambda _seconds, _entries: None,
        )
        self.receiver = SnapshotReceiver(host, self.data_db, make_writer=MemorySnapshotWriter)
        self.service = Service(
            host,
            Access(None),
            Metrics(),
            None,  # type: ignore[arg-type]  # reports to people are not asked for here
            receiver=self.receiver,
            value_bytes_max=self.world.plan.settings.value_bytes_max,
            request_timeout_ms=5_000,
        )
        self.sender = SnapshotSender(self)
        self._turn_due = False
        self.seen = {}
        self.do(self._begin)

    def _begin(self) -> None:
        self.host.open_replicas()
        self.world.invariants.look(self)
        tick_ms = self.world.plan.settings.tick_ms
        self.later(self.clock.real_us(tick_ms), self._tick, tick_ms)
        self.later(self.clock.real_us(_STEWARD_MS), self._keep_shape)
        if self.number == 1:
            self._found()
        self._announce()
        if self.space_low:
            self.host.note_space(0, low=True)

    def _found(self) -> None:
        """Propose the first entry of a new cluster's life, until it is there."""
        if self.host.view.cluster_id:
            return
        identity, plan = self.identity, self.world.plan
        body = bootstrap_body(
            identity.cluster_id,
            identity.store_uuid,
            shards=plan.shards,
            replication_factor=plan.factor,
            address=self.address,
            zone=self.zone,
        )
        deadline_ms = self.clock.monotonic_ms() + 5_000.0
        self.host.submit(
            Request(
                Op.META_BOOTSTRAP, body, b"", META_SHARD,
                lambda _status, _body: self.later(20 * MS_US, self._found),
                deadline_ms, forwarded=True, write=True,
            )
        )  # fmt: skip

    def _announce(self) -> None:
        """Tell the cluster that we have started; ours not to be is the end."""

        def answered(status: int, reply: object) -> None:
            if status == Status.FOREIGN:
                refusal = from_wire(status, reply)
                assert isinstance(refusal, Foreign)
                self.host.belonging.refused(refusal)
            elif status != Status.OK:
                self.later(self.clock.real_us(_ANNOUNCE_MS), self._announce)
            else:
                self.host.upkeep.acknowledge_boot()

        body = announce_body(self.identity)
        self.serve_peer(self.number, Op.NODE_ANNOUNCE, body, 5_000.0, answered)

    def crash(self, *, power: bool) -> None:
        """The process ends; with the power goes what was not synced. (A node that is
        down already keeps what it has.)"""
        if self.alive:
            self.end()
            self.keep_disk(power=power)

    def keep_disk(self, *, power: bool) -> None:
        """The databases as the next process finds them."""
        self.disk_failing = False
        self.raft_db = self.raft_db.crash(power=power, chance=self._dice)
        self.data_db = self.data_db.crash(power=power, chance=self._dice)
        self._observe_saves()

    def _observe_saves(self) -> None:
        self.raft_db.observer = partial(self.world.invariants.on_save, self)
        self.raft_db.on_removal = partial(self.world.invariants.on_removal, self)

    def end(self) -> None:
        """The process is gone, whatever the reason."""
        self.alive = False
        self.life += 1
        self.paused = False
        self._backlog.clear()
        self.world.network.lose_node(self.number)
        for connection in list(self.connections):
            connection.lose()

    # --- what the daemon's tasks do -----------------------------------------------------

    def _wake(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            bits = self._bits(7)  # what randrange(100) does, in three calls less
            while bits >= 100:
                bits = self._bits(7)
            self.loop.after(10 + bits, self._turn, self.life)

    def _turn(self, life: int) -> None:
        """As ``_due``: a third of all events are turns."""
        if life != self.life or not self.alive:
            return
        if self.paused:
            self._backlog.append((self._turn, (life,)))
            return
        self._turn_due = False
        self.host.turn()
        if self.host.effects.snapshots_wanted:
            self.sender.start_wanted()
        self.world.invariants.look(self)
        if self.replied:
            self.replied = False
            for connection in self.connections:
                connection.flush()
        if self.host.failure is not None or self.host.belonging.removed:
            self._stop()

    def _tick(self, tick_ms: int) -> None:
        self.later(self.clock.real_us(tick_ms), self._tick, tick_ms)
        self.loop.count(len(self.host.replicas) - 1)
        self.host.tick()

    def _keep_shape(self) -> None:
        self.later(self.clock.real_us(_STEWARD_MS), self._keep_shape)
        stopped = stopped_by_people(self.host)
        self.host.steward.step(self.host.view)
        check_still(self, stopped)
        self._steward_rounds += 1
        if self._steward_rounds % _LEADERS_ROUNDS == 0:
            self.host.tell_leaders()
            if self.space_low:
                self.host.note_space(0, low=True)

    # --- what others say ----------------------------------------------------------------

    def hear(self, sender: int, batch: list[Message]) -> None:
        """A frame of Raft messages has arrived. As ``do``."""
        if not self.alive:
            return
        if self.paused:
            self._backlog.append((self.hear, (sender, batch)))
            return
        step = self.host.step
        for message in batch:
            step(sender, message)
        if self.host.failure is not None or self.host.belonging.removed:
            self._stop()

    def admits(self, sender: int) -> bool:
        """Whether a connection from that node is accepted; if not, it is told why."""
        caller = self.world.network.nodes[sender]
        try:
            self.host.admit_peer(caller.identity)
        except Foreign as refusal:
            caller.expelled(refusal)
            return False
        return True

    def expelled(self, refusal: Foreign) -> None:
        """A node of the cluster has ended the connection with these words."""
        meant = after_welcome(refusal)
        assert isinstance(meant, Expelled)
        self.do(lambda: self.host.belonging.refused(meant))

    def serve_peer(
        self,
        sender: int,
        op: int,
        body: bytes,
        left_ms: float,
        respond: Callable[[int, object], None],
        *,
        forwarded: bool = False,
    ) -> None:
        """A request of another node, or of this one's own."""
        principal = Principal(PEER, sender, loopback=True)
        flags = FLAG_FORWARDED if forwarded else 0
        if op == Op.SNAPSHOT_OPEN:
            respond = self._watching_displacements(body, respond)
        self.do(self.service.submit, op, body, principal, max(1.0, left_ms), flags, respond)

    def _watching_displacements(
        self, body: bytes, respond: Callable[[int, object], None]
    ) -> Callable[[int, object], None]:
        """``respond`` to an opening: should it be granted, a snapshot of a later leader's was
        not on its way here."""
        shard, _, _, term, transfer, _ = decode_body(Op.SNAPSHOT_OPEN, body)
        assert isinstance(shard, int)
        assert isinstance(term, int)
        known = self.receiver._writers.get(shard)
        same = known is not None and known.replica is self.replica(shard)

        def responding(status: int, answer: object) -> None:
            if status == Status.OK and same and known is not None and known.transfer != transfer:
                self.world.invariants.on_displaced(self, shard, term, known.term)
            respond(status, answer)

        return responding

    def replica(self, shard: int) -> Replica | None:
        """Its replica of a shard, while it runs."""
        return self.host.replicas.get(shard) if self.alive else None
