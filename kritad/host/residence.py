"""Which replicas live on this node: those on its disk, those that come, those that go.

Rules:
* A replica comes only because the meta shard's state wants it here or reports that it votes
  here, or because one that lives here was split (births.py); durably, before it answers
  any message. Who votes here and is not made yet is of a shard that a split made while
  this node was away. Although it may be about to move away, its shard counts on it till
  then: without it, one of three that is lost would be the second.
* One whose rows or records are damaged is not opened: it neither votes nor
  acknowledges. The node serves the others.
* One that has no state yet begins with the arc that its shard was founded with, or has
  none and waits for a snapshot (bootstrap.py: ``birth_arc``). That stands in the meta
  shard's state; until this node has it, such a replica is not opened.
* One leaves when its shard has surely let it go (upkeep.py).
* The meta shard's replica is what a node hears of all that by. When that one is damaged, the
  node hears its successor's id from whoever leads the meta shard, as the recipient of
  messages (``make_meta``): who sends them has applied the wish for it. What was wanted
  before that is history, and not followed (host.py).
* A replica whose core has found itself broken, or whose state met a bug of ours, does nothing any
  more and is told like a damaged one. It is not made anew, for it may be the one that is right,
  and what its disk has is what the bug is found by; but for one whose log has lost what it had
  acknowledged: the others have that.
* Those that are damaged are told to the others (``unsound``), and so are those that are
  wanted here but were removed for ever. The meta shard's leader has them made anew under
  another id, which comes when the old one has left.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from kritad.cluster.model import ShardRecord
from kritad.cluster.view import MetaView
from kritad.host.births import Births, complete, is_due
from kritad.host.bootstrap import META_SHARD, birth_arc
from kritad.host.drive import Drive
from kritad.host.flush import Flusher
from kritad.host.opening import Opener, needs_arc
from kritad.host.replica import Replica
from kritad.host.upkeep import Upkeep, is_left, is_unnamed, was_let_go
from kritad.host.writer import Worker
from kritad.raft.core import Raft
from kritad.raft.errors import InvariantBroken
from kritad.raft.messages import Message
from kritad.raft.types import Configuration, SnapshotMeta
from kritad.state.machine import ShardState
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StorageError, Tombstoned
from kritad.storage.extent import Arc
from kritad.storage.raft_db import RaftDatabase

log = logging.getLogger(__name__)


class Residence:
    """See the module's docstring. For the loop's thread.

    ``replicas`` holds those that are open, by shard; ``damaged`` says of the others why not.
    ``make`` makes a Replica of its parts. A failure of the disk goes to ``on_failure``.
    """

    def __init__(
        self,
        node: int,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        log_worker: Worker,
        data_worker: Worker,
        opener: Opener,
        flusher: Flusher,
        upkeep: Upkeep,
        *,
        replicas: dict[int, Replica],
        make: Callable[[Raft, ShardState], Replica],
        drive: Drive,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.replicas = replicas
        self.damaged: dict[int, str] = {}
        self.broken: set[int] = set()  # those of the damaged that are not made anew
        self.births = Births(
            raft_db,
            data_db,
            log_worker,
            data_worker,
            flusher,
            is_here=self.has,
            opened=self._open_born,
            ended=self.create_wanted,
            mark=drive.mark,
            on_failure=on_failure,
        )
        self._node = node
        self._raft_db = raft_db
        self._data_db = data_db
        self._opener = opener
        self._flusher = flusher
        self._upkeep = upkeep
        self._make = make
        self._drive = drive
        self._on_failure = on_failure
        self._view = MetaView()
        self._waiting: dict[int, int] = {}  # shard -> replica, until the view says its arc
        self._dead: dict[int, int] = {}  # shard -> replica: wanted here under a dead id
        self.remade: Counter[int] = Counter()  # damaged ones removed since the start, by shard
        self._births_due = False  # a wanted one is not made, because it may be split off

    def __repr__(self) -> str:
        return (
            f"<Residence of {sorted(self.replicas)}, damaged {sorted(self.damaged)},"
            f" waiting {sorted(self._waiting)}, {self.births!r}>"
        )

    def has(self, shard: int) -> bool:
        """Whether a replica of the shard is on this node's disk."""
        return (
            shard in self.replicas
            or shard in self.damaged
            or shard in self._waiting
            or shard in self._upkeep.leaving
        )

    def note_damage(self, shard: int, damage: Exception) -> None:
        """The shard's replica cannot be used, for this reason."""
        self.damaged[shard] = str(damage)
        log.error("shard %d is damaged here and not served: %s", shard, damage)

    def on_damage(self, replica: Replica, problem: StorageError) -> None:
        """What the storage said when a replica here could not be served. Damage costs the
        replica its life, a disk that fails the node."""
        if not isinstance(problem, Corrupt):
            self._on_failure(problem)
            return
        if self.replicas.get(replica.shard) is not replica:
            return  # found late, by who sends a snapshot of it: it has gone, and another is here
        self.note_damage(replica.shard, problem)
        self._silence(replica, "the replica that had the request was found damaged")

    def on_poisoned(self, replica: Replica) -> None:
        """The core does nothing any more. If nobody here has told it so, it has found out
        by itself that something is wrong, or a bug was met."""
        shard, raft = replica.shard, replica.raft
        if self.replicas.get(shard) is not replica or shard in self.damaged:
            return
        if not raft.log_lost:
            self.broken.add(shard)
        self.note_damage(shard, InvariantBroken(f"it has stopped itself: {raft.poisoned}"))
        self._silence(replica, "the replica that had the request has stopped itself")

    def _silence(self, replica: Replica, why: str) -> None:
        """The replica takes part in nothing any more. It is not flushed either: half
        an entry may stand in its memory."""
        replica.raft.poison(why)
        self._flusher.forget(replica)
        self._drive.forget([replica])  # also what this very turn was about to send
        replica.abandon(why)
        self._drive.mark(replica)  # its role has changed

    def open_all(self) -> None:
        """Open everything that is on the disk; a damaged shard is left out. Raises
        StorageError for a disk that fails."""
        complete(self._raft_db, self._data_db)
        applied = self._data_db.applied()
        for row in self._raft_db.replicas():
            if needs_arc(row.shard, row.replica, applied.get(row.shard)):
                self._waiting[row.shard] = row.replica
                continue
            try:
                self._open(row.shard, row.replica, None)
            except (Corrupt, ValueError) as damage:  # ValueError: the core's, of a boot
                self.note_damage(row.shard, damage)

    def follow(self, view: MetaView) -> None:
        """The meta shard's state is this now. Who was let go leaves, who is wanted comes."""
        self._view = view
        waiting, self._waiting = self._waiting, {}
        for shard, replica_id in sorted(waiting.items()):
            self._try_open(shard, replica_id)
        for shard, replica in list(self.replicas.items()):
            if shard not in self.damaged and was_let_go(view, replica):
                log.info("shard %d: replica %d has moved away", shard, replica.id)
                del self.replicas[shard]
                self._silence(replica, "the replica that had the request has left its shard")
                self._upkeep.remove(shard, replica.id, self.create_wanted)
        for shard, replica_id in self._damaged_replicas():
            if is_unnamed(view, shard, replica_id):
                log.info("shard %d: the damaged replica %d is removed", shard, replica_id)
                del self.damaged[shard]
                if shard not in self.broken:
                    self.remade[shard] += 1
                self.broken.discard(shard)
                self.replicas.pop(shard, None)  # silenced when the damage was found
                self._upkeep.remove(shard, replica_id, self.create_wanted)
        self.create_wanted()

    def unsound(self) -> list[tuple[int, int]]:
        """(shard, replica) of those here that will never be of use again, and are to be made
        anew."""
        damaged = [row for row in self._damaged_replicas() if row[0] not in self.broken]
        return [*damaged, *sorted(self._dead.items())]

    def _damaged_replicas(self) -> list[tuple[int, int]]:
        if not self.damaged:
            return []
        return [(r.shard, r.replica) for r in self._raft_db.replicas() if r.shard in self.damaged]

    def create_wanted(self) -> None:
        """Make what the meta shard wants here, or knows to vote here, and is not here,
        durably, and open it. (What is wanted goes first: ids only ever rise.)

        On the loop's thread: it happens a few times in a node's life, and
        nothing of the shard may be answered before it is done.
        """
        self._births_due = False
        self._dead.clear()
        wanted = self._view.voters_on(self._node) | self._view.replicas_on(self._node)
        for shard, replica_id in sorted(wanted.items()):
            if self.has(shard) or self.births.expects(shard):
                continue
            record = self._view.shards[shard]
            if is_due(record, self.replicas):
                self._births_due = True
                continue
            try:
                first = _beginning(record, replica_id, self._node)
                self._raft_db.create_replica(shard, replica_id, first)
            except Tombstoned:
                # An old wish: after a restart the meta shard's log is lived again. If it is
                # not, the meta shard's leader has to wish for another.
                self._dead[shard] = replica_id
                continue
            except StorageError as problem:
                self._on_failure(problem)
                return
            self._try_open(shard, replica_id)

    def make_meta(self, message: Message) -> None:
        """The meta shard has its replica here under the recipient's id. If the one that is here,
        or was here when a crash came in between, is of no use, that one follows it."""
        replica_id = message.recipient
        if META_SHARD in self._upkeep.leaving:
            return
        old = next((r.replica for r in self._raft_db.replicas() if r.shard == META_SHARD), None)
        if old is None:
            self._make_meta(replica_id)
            return
        known = self.replicas.get(META_SHARD)
        if replica_id <= old or not (
            META_SHARD in self.damaged or (known and is_left(known, message))
        ):
            return
        log.info("the meta shard's replica %d makes room for %d", old, replica_id)
        self.remade[META_SHARD] += 1
        self.damaged.pop(META_SHARD, None)
        self.broken.discard(META_SHARD)
        self.replicas.pop(META_SHARD, None)
        if known is not None and not known.raft.poisoned:
            self._silence(known, "the replica that had the request is made anew")
        self._upkeep.remove(META_SHARD, old, lambda: self._make_meta(replica_id))

    def _make_meta(self, replica_id: int) -> None:
        try:
            self._raft_db.create_replica(META_SHARD, replica_id, None)
        except Tombstoned:
            return  # an old message: it was here and is gone
        except StorageError as problem:
            self._on_failure(problem)
            return
        self._try_open(META_SHARD, replica_id)

    def tick(self) -> None:
        """What waits for a split here may not have to wait any more."""
        self.births.tick()
        if self._births_due:
            self.create_wanted()

    def _open(self, shard: int, replica_id: int, arc: Arc | None) -> Replica:
        applied = self._data_db.applied().get(shard)
        raft, state = self._opener.open(shard, replica_id, applied, arc)
        replica = self.replicas[shard] = self._make(raft, state)
        self._flusher.adopt(replica, state.index)
        self._drive.mark(replica)
        return replica

    def _try_open(self, shard: int, replica_id: int) -> Replica | None:
        """Open a replica whose shard's arc is known by now, if it has to be."""
        try:
            return self._open(shard, replica_id, birth_arc(self._view.shards_founded, shard))
        except (Corrupt, ValueError) as damage:
            self.note_damage(shard, damage)
        except StorageError as problem:
            self._on_failure(problem)
        return None

    def _open_born(self, shard: int, replica_id: int) -> Replica | None:
        return self._try_open(shard, replica_id)


def _beginning(record: ShardRecord, replica: int, node: int) -> SnapshotMeta | None:
    """What the log of a new replica begins with. The shard's very first replica begins its
    group; every later one waits, empty (None), for the leader's log. Only the bootstrap
    entry places a first one: a shard that was moved since has its group elsewhere."""
    if record.placement_version != 1 or record.report.conf_version != 0:
        return None
    return SnapshotMeta(
        configuration=Configuration(version=1, voters=frozenset({replica}), nodes={replica: node})
    )
