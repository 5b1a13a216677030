"""What is done to the databases beside saving and flushing: logs are cut, replicas leave.

Rules:
* A log is cut in slices, and saves go in between: all rows of a long log in one
  piece would be a second or more in which nothing is acknowledged.
* A replica leaves only on proof: a configuration that its shard's leader has
  reported, newer than the newest one that the replica is in, or of a later term, does
  not have it.
  (What the meta shard *wants* proves nothing: the replica may be needed for the
  very majority that will let it go. raft.md 4.4, B27.) One that does not know of its own
  membership needs no proof: see ``was_let_go``. Nor does one that is damaged.
* Its log goes first and leaves a tombstone, durably, then its state. A crash in
  between leaves rows that nothing refers to, which are swept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kritad.cluster.view import MetaView
from kritad.host.replica import Replica
from kritad.host.writer import Finished, Worker
from kritad.raft.messages import Heartbeat, Message
from kritad.raft.types import Role, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.raft_db import RaftDatabase

Cuts = list[tuple[Replica, SnapshotMeta]]


def was_let_go(view: MetaView, replica: Replica) -> bool:
    """Whether it is certain that the replica is no member of its shard any more.

    A replica that was told of its own membership waits for a report of a configuration that
    is newer, or is another one of the same version: reported are those that are committed,
    so the one that it was told of was overwritten. So it was if a leader of a later term than
    that entry's has reported an older one: it reports the newest that its log has. (Should
    yet another leader bring the entry back, it brings a learner, which it lets go: who votes
    in it was a learner in the one before.) One that was not told cannot wait:
    nobody may ever tell it. It does not vote, since nobody is made a voter who has not been
    told (raft/membership.py); but by a split, and then the report says so. So it goes as
    soon as its id was given out for a wish that is not there any more. If it is a learner,
    the leader will see what we see and let it go. Otherwise it would stand for ever in the
    way of the next replica of its shard here. Replica ids are not used again, so who has
    left stays away.
    """
    record = view.shards.get(replica.shard)
    if (
        record is None
        or any(wanted.replica == replica.id for wanted in record.replicas)
        or any(member.replica == replica.id for member in record.report.replicas)
    ):
        return False
    known, log = replica.raft.configuration, replica.raft.log
    if replica.id in known.members:
        told_term = log.term(log.configuration_index)
        return record.report.conf_version >= known.version or record.report.term > told_term
    return replica.id < view.replica_next


def is_unnamed(view: MetaView, shard: int, replica: int) -> bool:
    """Whether a replica is neither wanted nor reported any more: one that is damaged, and so
    of no use to any majority, goes on that. (Not while the view is older than its id.)"""
    record = view.shards.get(shard)
    return (
        record is not None
        and replica < view.replica_next
        and all(wanted.replica != replica for wanted in record.replicas)
        and all(member.replica != replica for member in record.report.replicas)
    )


def is_left(replica: Replica, message: Message) -> bool:
    """Whether a replica that has a successor already, because it was damaged and seems well
    since a restart, has surely been left by its group, which sends its successor ``message``:
    by its own newest configuration it does not vote, or it hears no leader, though its
    successor does. (One that votes stays for as long: it may be needed for the majority that
    lets it go.)

    Only a heartbeat proves that. A leader sends it to all members in one frame, in the order of
    their ids, so one that is a member still has just heard its own and follows. Entries come on
    another connection, and to a successor when it is added, before the other is let go."""
    raft = replica.raft
    if replica.id not in raft.configuration.voters_all:
        return True
    hears = isinstance(message, Heartbeat) and message.term >= raft.term
    return hears and raft.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)


class Upkeep:
    """See the module's docstring. Everything returns at once; a failure of the disk
    goes to ``on_failure``."""

    def __init__(
        self,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        log_worker: Worker,
        data_worker: Worker,
        replicas: Mapping[int, Replica],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._raft_db = raft_db
        self._data_db = data_db
        self._log_worker = log_worker
        self._data_worker = data_worker
        self._replicas = replicas
        self._on_failure = on_failure
        self.leaving: set[int] = set()  # shards whose replica is on its way out

    def cut(self, cuts: Cuts) -> None:
        """Cut logs on the disk where their cores have been told already."""
        items = [(replica.shard, meta) for replica, meta in cuts]

        def done(finished: Finished[bool]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            # Not left to the next save, which may be long in coming: it would have to wait for
            # all that the cuts have written.
            self.checkpoint_log()
            if not finished.unwrap():
                rest = [(replica, meta) for replica, meta in cuts if self._stands(replica, meta)]
                if rest:
                    self.cut(rest)

        self._log_worker.submit(lambda: self._raft_db.compact(items), done)

    def _stands(self, replica: Replica, meta: SnapshotMeta) -> bool:
        """Whether the log begins where this cut has put it. If it begins farther on by
        now, whoever moved it there deletes these rows too."""
        known = self._replicas.get(replica.shard) is replica
        return known and replica.raft.log.snapshot.index == meta.index

    def acknowledge_boot(self) -> None:
        """The cluster knows of this start; see RaftDatabase.acknowledge_boot."""

        def done(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)

        self._log_worker.submit(self._raft_db.acknowledge_boot, done)

    def checkpoint_log(self) -> None:
        """Move raft.db's WAL into the file when it has grown: now, when nobody waits for
        what has just been written."""
        if not self._raft_db.checkpoint_due:
            return

        def done(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)

        self._log_worker.submit(self._raft_db.maybe_checkpoint, done)

    def remove(self, shard: int, replica: int, then: Callable[[], None]) -> None:
        """Delete what the disk has of a replica that nobody uses any more, behind
        everything that was submitted for it; then call ``then``."""
        self.leaving.add(shard)

        def dropped(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            self.leaving.discard(shard)
            then()

        def removed(finished: Finished[None]) -> None:
            if finished.error is not None:
                self._on_failure(finished.error)
                return
            self._data_worker.submit(lambda: self._data_db.drop(shard), dropped)

        self._log_worker.submit(lambda: self._raft_db.remove_replica(shard, replica), removed)
