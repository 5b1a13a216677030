"""From a state that was cut off to a replica of its own: the births of shards here.

An entry SPLIT leaves each replica of a shard with a second state in memory, the
*unborn* shard's. It has no replica, so nobody can write to it. Then, in this order:

1. It goes to data.db together with the state that it was cut from, in one durable
   transaction (host/flush.py).
2. Its log is made in raft.db, durably: empty, and beginning behind the split.
3. It is opened like any other. If the old shard is led here, the new one's replica
   here campaigns at once, and again until the others have got as far.

Rules:
* No crash leaves half of that. Before 1 the log of the old shard has the entry still, and
  it is lived again. Between 1 and 2 data.db has a state without a log, which ``complete``
  gives one when the node starts. A state without a log that is *not* in the midst of its
  birth (its replica was removed, or raft.db is another than it was) must not get one: it
  would vote anew. What tells them apart: the removed have left a tombstone, and the
  unborn share their rows with a replica that is in raft.db.
* What the meta shard has had made here before is left alone; the state is dropped, and
  its rows are nobody's and swept.
* When the old shard's replica is found damaged, goes away or gets a snapshot before 1, the
  unborn goes with it. The meta shard's state will have it made, empty, and its group
  fills it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import attrs

from kritad.cluster.model import ShardRecord
from kritad.host.bootstrap import META_SHARD
from kritad.host.flush import Flusher
from kritad.host.replica import Replica
from kritad.host.writer import Finished, Worker
from kritad.raft.configuration import decode_configuration
from kritad.raft.types import Role, SnapshotMeta
from kritad.state.split import Offspring
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.errors import Tombstoned
from kritad.storage.raft_db import RaftDatabase

log = logging.getLogger(__name__)

# A newborn campaigns at so many ticks. Whoever cannot hear it for that long finds out who
# leads by the usual timeouts.
_CAMPAIGNS_MAX = 100


@attrs.frozen(eq=False)
class Birth:
    """A shard on its way into this world."""

    parent: Replica
    offspring: Offspring


class Births:
    """See the module's docstring. Everything returns at once.

    ``is_here`` says whether this node has, or has had and has not yet removed, a replica
    of a shard. ``opened`` opens the replica that is on the disk now and returns it, or None
    when that failed; ``ended`` is called when there is none after all. A failure of the
    disk goes to ``on_failure``.
    """

    def __init__(
        self,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        log_worker: Worker,
        data_worker: Worker,
        flusher: Flusher,
        *,
        is_here: Callable[[int], bool],
        opened: Callable[[int, int], Replica | None],
        ended: Callable[[], None],
        mark: Callable[[Replica], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._raft_db = raft_db
        self._data_db = data_db
        self._log_worker = log_worker
        self._data_worker = data_worker
        self._flusher = flusher
        self._is_here = is_here
        self._opened = opened
        self._ended = ended
        self._mark = mark
        self._on_failure = on_failure
        self._unborn: dict[int, Birth] = {}  # by the new shard
        # Newborn: the one it was cut from, and how often it may campaign yet.
        self._to_lead: dict[Replica, tuple[Replica, int]] = {}

    def __repr__(self) -> str:
        return f"<Births of {sorted(self._unborn)}, {len(self._to_lead)} to lead>"

    def expects(self, shard: int) -> bool:
        """Whether a replica of the shard is about to be here."""
        return shard in self._unborn

    def begin(self, parent: Replica, offspring: Offspring) -> None:
        """The entry that ``parent`` has just applied has cut ``offspring`` off. To be
        called before the next one is applied."""
        shard = offspring.shard
        if self._is_here(shard):
            log.info("shard %d: a replica of it was here before the split", shard)
            return
        assert shard not in self._unborn, f"shard {shard} was split off twice: {self!r}"
        birth = self._unborn[shard] = Birth(parent, offspring)
        self._flusher.adopt_unborn(
            parent, offspring.state, lambda durable: self._flushed(birth, durable)
        )

    def _flushed(self, birth: Birth, durable: bool) -> None:
        if not durable:
            self._end(birth.offspring.shard)
            return
        applied = self._data_db.applied()[birth.offspring.shard]
        self._log_worker.submit(
            lambda: give_log(self._raft_db, applied), lambda made: self._made(birth, made)
        )

    def _made(self, birth: Birth, made: Finished[None]) -> None:
        shard, parent = birth.offspring.shard, birth.parent
        if isinstance(made.error, Tombstoned):
            self._drop(shard)
        elif made.error is not None:
            self._on_failure(made.error)
        else:
            del self._unborn[shard]
            replica = self._opened(shard, birth.offspring.replica)
            if replica is not None:
                log.info("shard %d: split off from shard %d", shard, parent.shard)
                self._campaign(replica, parent, _CAMPAIGNS_MAX)

    def _drop(self, shard: int) -> None:
        """The replica was removed from here before the log of the old shard was lived
        again: it is dead for ever."""

        def dropped(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
            else:
                self._end(shard)

        self._data_worker.submit(lambda: self._data_db.drop(shard), dropped)

    def _end(self, shard: int) -> None:
        del self._unborn[shard]
        self._ended()

    def tick(self) -> None:
        """Have newborns campaign whose group has no leader yet."""
        for replica, (parent, times) in list(self._to_lead.items()):
            self._campaign(replica, parent, times)

    def _campaign(self, replica: Replica, parent: Replica, times: int) -> None:
        """Others of the group may not be born yet, and hear nothing. Waiting for an
        election timeout instead would be a second without writes; asking again costs
        a few messages, and no term: a pre-vote comes first."""
        raft = replica.raft
        if raft.leader or raft.poisoned or not parent.leads or not times:
            self._to_lead.pop(replica, None)
            return
        self._to_lead[replica] = parent, times - 1
        if raft.role is not Role.CANDIDATE:
            raft.campaign()
            self._mark(replica)


def is_due(record: ShardRecord, replicas: Mapping[int, Replica]) -> bool:
    """Whether a replica here may yet split off the shard of that record, which the meta
    shard wants here: its own arc contains that one still, and it votes. Making it empty
    would have its rows sent from another node. O(replicas).

    One that does not vote by its own log came behind the split, most likely: a shard is cut
    only when all its members vote, and no others get a half. On its way here it may be held
    for as long as people like."""
    for replica in replicas.values():
        arc = replica.state.extent
        if (
            replica.shard not in (META_SHARD, record.shard)
            and not replica.raft.poisoned
            and replica.id in replica.raft.configuration.voters_all
            and arc.hash_lo <= record.hash_lo
            and record.hash_hi <= arc.hash_hi
        ):
            return True
    return False


def complete(raft_db: RaftDatabase, data_db: DataDatabase) -> None:
    """At a start, before any replica is opened: finish the births that a crash has
    interrupted, and drop the states whose replica is gone. Raises StorageError."""
    held = {row.shard: row.replica for row in raft_db.replicas()}
    applied = data_db.applied()
    shared = {own.rows for shard, own in applied.items() if held.get(shard) == own.replica}
    for shard, state in sorted(applied.items()):
        if shard in held:
            continue
        if state.rows in shared:
            try:
                give_log(raft_db, state)
                continue
            except Tombstoned:
                pass  # it has lived, and was removed
        data_db.drop(shard)


def give_log(raft_db: RaftDatabase, applied: Applied) -> None:
    """Make the replica whose state that is: its log begins behind it, empty. Durable.
    Raises Tombstoned, StoreFailed."""
    configuration = decode_configuration(applied.configuration)
    first = SnapshotMeta(applied.index, applied.term, configuration)
    raft_db.create_replica(applied.shard, applied.replica, first)
