"""The consensus core of one replica of one shard.

``Raft`` holds the state and dispatches; the rules are in election.py (who
leads), replication.py (the log), membership.py (who is in the group) and
reads.py. It does no I/O, reads no clock and has no chance of its own: messages,
ticks and answers of the disk go in, one ``Ready`` comes out (ready.py says what
the host must do with it and in which order)::

    raft.step(message) | tick() | propose(data) | read_index(token) | saved(n) | ...
    while (ready := raft.ready()) is not None:
        perform(ready)

Rules:
* **Nothing of term T leaves before T and the own vote in T are durable.**
  ``send`` sorts messages by that, ``ready`` checks it once more (raft.md B48).
* Answers that attest something (votes, acks) always wait for the save that
  holds it, and so for every save before.
* A broken invariant *poisons* the replica: it neither votes nor acknowledges
  nor sends any more, ``ready()`` is None, ``poisoned`` says why. The process
  and the other shards go on.
* What a peer or the host sends too late or twice is ignored, never an error.

Sources: Ongaro's thesis; etcd raft for the shape; raft.md 2 for the departures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kritad.raft import dispatch, election, membership, replication
from kritad.raft.config import RaftConfig
from kritad.raft.configuration import Change
from kritad.raft.errors import InvariantBroken, LogLost, ProposalRefused, Refusal
from kritad.raft.invariants import Watcher
from kritad.raft.messages import Message
from kritad.raft.progress import ProgressState
from kritad.raft.ready import Fetch, Ready
from kritad.raft.state import RaftState, attested_term
from kritad.raft.types import NOBODY, Boot, Entry, EntryKind, Role, SnapshotMeta

if TYPE_CHECKING:
    import random

__all__ = ["ProposalRefused", "Raft", "RaftConfig", "Refusal"]

_FOLLOWER, _LEADER, _CANDIDATE = Role.FOLLOWER, Role.LEADER, Role.CANDIDATE
_COMMAND = EntryKind.COMMAND


class Raft(RaftState):
    """One replica; see the module's docstring.

    Attributes that are no method's business but the rule modules' are not
    underscored; a host uses the methods and the properties below them only.
    ``random`` is this replica's own, so that a seed repeats its life.
    Raises ValueError for a ``boot`` that contradicts itself.
    """

    def __init__(self, config: RaftConfig, boot: Boot, random: random.Random) -> None:
        super().__init__(config, boot, random)
        self._watcher = Watcher()

    # --- what comes in ----------------------------------------------------

    def tick(self) -> None:
        """One tick of the host's clock. ~0.15 µs for a follower that hears its leader."""
        self.elapsed += 1
        if self.role is not _LEADER and self.elapsed < self.timeout_ticks:
            return
        if self.poisoned:
            return
        self.dirty = True
        try:
            if self.role is _LEADER:
                election.tick_leader(self)
            else:
                election.on_election_timeout(self)
        except InvariantBroken as broken:
            self._become_poisoned(broken)

    def step(self, message: Message) -> None:
        """A message from a peer (or SnapshotInstalled from the own host).

        Messages for another replica, late ones and malformed ones are ignored.
        """
        if self.poisoned or message.recipient != self.replica or message.shard != self.shard:
            return
        self.dirty = True
        try:
            dispatch.step(self, message)
        except InvariantBroken as broken:
            self._become_poisoned(broken)

    def propose(self, data: bytes) -> tuple[int, int]:
        """Appends a command; where it stands: (index, term). ~1.5 µs.

        It is committed when an entry of this index *and this term* is; should one
        of another term be, it was not applied. Raises ProposalRefused before
        anything is appended: NOT_LEADER, TRANSFERRING, TOO_LARGE, BUSY, POISONED.
        """
        if self.role is not _LEADER or self.transferring or self.poisoned:
            raise self._refusal()
        log, config, data_bytes = self.log, self.config, len(data)
        if data_bytes > config.entry_bytes_max:
            raise ProposalRefused(
                Refusal.TOO_LARGE, f"{data_bytes} of {config.entry_bytes_max} bytes"
            )
        pending = log.uncommitted_bytes
        if pending and pending + data_bytes > config.uncommitted_bytes_max:
            raise ProposalRefused(Refusal.BUSY, f"{pending} bytes")
        self.dirty = True
        return replication.append_own(self, _COMMAND, data), self.term

    def propose_conf(
        self, changes: Sequence[Change], nodes: Mapping[int, int], expected_version: int
    ) -> tuple[int, int]:
        """Appends a new configuration; where it stands: (index, term).

        ``nodes`` names the nodes of replicas that are new. Raises ProposalRefused:
        as propose, and VERSION, CONF_PENDING, ILLEGAL, LAGGING, UNHEALTHY.
        A joint configuration is left by the leader, without being asked.
        """
        if self.role is not _LEADER or self.transferring or self.poisoned:
            raise self._refusal()
        self.dirty = True
        return membership.propose_conf(self, changes, nodes, expected_version), self.term

    def read_index(self, token: int) -> None:
        """A linearizable read: ``token`` comes back in ``reads`` or ``reads_lost``.

        Raises ProposalRefused: NOT_LEADER, POISONED.
        """
        if self.role is not _LEADER or self.poisoned:
            raise self._refusal()
        self.dirty = True
        self.reads.add(token)

    def transfer(self, replica: int) -> None:
        """Hands leadership to ``replica`` as soon as it has the whole log.

        Proposals are refused meanwhile; it is given up after one election
        timeout. Raises ProposalRefused: NOT_LEADER, ILLEGAL, POISONED.
        """
        if self.poisoned:
            raise self._refusal()
        self.dirty = True
        election.transfer(self, replica)

    def campaign(self) -> None:
        """Starts an election now instead of at the timeout, if it may at all."""
        if not self.poisoned:
            self.dirty = True
            self.reset_election_timer()
            election.campaign(self)

    def step_down(self) -> None:
        """Gives up leadership at once, to nobody (a disk that does not answer)."""
        if self.role is _LEADER:
            self.dirty = True
            election.become_follower(self, self.term, NOBODY)

    # --- what the host did ------------------------------------------------

    def saved(self, sequence: int) -> None:
        """All saves up to ``sequence`` are durable (and no later one is claimed to be)."""
        if self.poisoned or not self.ledger.saved(sequence):
            return
        self.dirty = True
        log, durable_index = self.log, self.ledger.durable_index
        if log.applied < log.snapshot.index <= durable_index:
            log.applied = log.snapshot.index  # an installed snapshot is applied state
        try:
            if self.role is _LEADER:
                own = self.progress.get(self.replica)
                if own is not None and own.note_match(durable_index):
                    dispatch.advance(self)
            elif self.role is _CANDIDATE:
                election.count_own_vote(self)
        except InvariantBroken as broken:
            self._become_poisoned(broken)

    def applied(self, index: int) -> None:
        """Everything up to ``index`` of what ``committed`` handed out is applied."""
        if self.poisoned:
            return
        try:
            self.log.applied_to(index)
        except InvariantBroken as broken:
            self._become_poisoned(broken)

    def fetched(self, fetch: Fetch, entries: list[Entry]) -> None:
        """The answer to one of ``Ready.fetches``; empty when the entries are gone."""
        if not self.poisoned:
            self.dirty = True
            replication.on_fetched(self, fetch, entries)

    def snapshot_sent(self, replica: int, ok: bool) -> None:
        """The transfer asked for by ``Ready.snapshots`` has ended, well or not."""
        progress = self.progress.get(replica)
        if progress is not None and not self.poisoned:
            self.dirty = True
            replication.on_snapshot_sent(self, progress, ok)

    def unreachable(self, replica: int) -> None:
        """Messages to ``replica`` were dropped: stop sending ahead of its answers."""
        progress = self.progress.get(replica)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe(progress.match + 1)
            progress.probe_sent = True  # until a heartbeat is answered

    def snapshot_at(self, index: int) -> SnapshotMeta:
        """What a snapshot of the state at ``index`` is described by; see ``compact``.

        ``index`` is applied and not below the present snapshot's.
        """
        return self.log.snapshot_at(index)

    def compact(self, index: int) -> None:
        """The storage has cut its log up to ``index`` (applied), with the
        SnapshotMeta that ``snapshot_at(index)`` gave."""
        if self.poisoned:
            return
        try:
            self.log.compact(index)
        except InvariantBroken as broken:
            self._become_poisoned(broken)

    def poison(self, why: str) -> None:
        """The host has found this replica's log or state damaged: it does nothing
        any more, as after a broken invariant."""
        if not self.poisoned:
            self._become_poisoned(InvariantBroken(why))

    # --- what comes out ---------------------------------------------------

    @property
    def has_ready(self) -> bool:
        """Whether ready() is worth calling; it may still be None."""
        return self.dirty

    def ready(self) -> Ready | None:
        """What is to be done, or None. Each call hands out what came since the last."""
        if not self.dirty:
            return None
        self.dirty = False
        if self.poisoned:
            return None
        try:
            return self._gather()
        except InvariantBroken as broken:
            self._become_poisoned(broken)
            return None

    def check_invariants(self) -> None:
        """Raises InvariantBroken if a per-replica promise is broken. For tests: ~20 µs."""
        self._watcher.check(self)

    # --- inside -----------------------------------------------------------

    def _gather(self) -> Ready | None:
        if self.role is _LEADER:
            self._lead()
        outbox, log, ledger = self.outbox, self.log, self.ledger
        appliable = min(log.commit, ledger.durable_index)
        if appliable > log.handed:
            outbox.committed = log.held(log.handed + 1, appliable)
            log.handed = appliable
        waiting = outbox.messages_after_save
        outbox.save = ledger.take(log, self.term, self.vote, bool(waiting) and not ledger.idle)
        if waiting and outbox.save is None:
            outbox.messages += waiting  # all that they attest is durable
            outbox.messages_after_save = []
        if not (
            outbox.messages
            or outbox.save
            or outbox.committed
            or outbox.reads
            or outbox.reads_lost
            or outbox.fetches
            or outbox.snapshots
        ):
            return None
        for message in outbox.messages:
            if message.term > ledger.durable_term and attested_term(message) > ledger.durable_term:
                raise InvariantBroken(f"{message} before term {message.term} is durable")
        self.outbox = Ready()
        return outbox

    def _lead(self) -> None:
        """What a leader puts off until it is asked for everything at once."""
        while self.quorum_changed:
            self.quorum_changed = False
            dispatch.advance(self)
            replication.confirm_reads(self)
        if self.reads.waiting and self.log.commit >= self.term_start:
            replication.begin_read_round(self)
            replication.confirm_reads(self)  # a single voter needs nobody
        if self.replicate_due:
            replication.replicate_all(self)

    def _refusal(self) -> ProposalRefused:
        if self.poisoned:
            return ProposalRefused(Refusal.POISONED, self.poisoned)
        if self.role is not _LEADER:
            return ProposalRefused(Refusal.NOT_LEADER)
        return ProposalRefused(Refusal.TRANSFERRING, f"to replica {self.transferring}")

    def _become_poisoned(self, broken: InvariantBroken) -> None:
        self.poisoned = str(broken)
        self.log_lost = isinstance(broken, LogLost)
        self.dirty = True  # for the host to look, and see it
        self.role = _FOLLOWER
        self.leader = NOBODY
        self.progress = {}
        self.followers = []
        self.outbox = Ready()
        if self.config.strict:
            raise broken
