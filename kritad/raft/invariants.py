"""What must hold for one replica after every step (raft.md 2.6).

The core checks the dangerous ones where they could break; this is the full list,
run by tests after each step. What only several replicas together can break (one
leader per term, log matching, ...) is the test cluster's to check.
"""

from __future__ import annotations

from kritad.raft.configuration import check_configuration
from kritad.raft.errors import InvariantBroken
from kritad.raft.progress import Progress
from kritad.raft.state import RaftState
from kritad.raft.types import NOBODY, EntryKind, Role

_CONF = EntryKind.CONF


class Watcher:
    """Remembers what must not go back, and checks the rest on the spot."""

    def __init__(self) -> None:
        self._term = 0
        self._vote = NOBODY
        self._commit = 0
        self._applied = 0
        self._led = 0  # the term that this replica led at the last check

    def check(self, raft: RaftState) -> None:
        """Raises InvariantBroken, naming what is."""
        if raft.poisoned:
            return
        self._check_monotone(raft)
        self._check_log(raft)
        if raft.role is Role.LEADER:
            for progress in raft.progress.values():
                _check_progress(progress)
        elif raft.progress or raft.followers or raft.reads.waiting or raft.reads.unconfirmed:
            raise InvariantBroken("a replica that does not lead has a leader's state")

    def _check_monotone(self, raft: RaftState) -> None:
        if raft.term < self._term or raft.commit < self._commit:
            raise InvariantBroken("term or commit index went back")
        if raft.applied_index < self._applied:
            raise InvariantBroken("the applied index went back")
        if raft.term == self._term and self._vote not in (NOBODY, raft.vote):
            raise InvariantBroken(f"voted for {self._vote} and {raft.vote} in term {raft.term}")
        leads = raft.term if raft.role is Role.LEADER else 0
        counted = leads and self._led == leads and raft.commit > self._commit
        if counted and raft.log.term(raft.commit) != leads:
            raise InvariantBroken("an entry of an earlier term was committed by counting")
        self._led = leads
        self._term, self._vote = raft.term, raft.vote
        self._commit, self._applied = raft.commit, raft.applied_index

    def _check_log(self, raft: RaftState) -> None:
        log, ledger = raft.log, raft.ledger
        installing = ledger.durable_index < log.snapshot.index
        if not log.snapshot.index <= log.handed <= log.commit <= log.last_index:
            raise InvariantBroken(f"the cursors are not in order: {log}")
        if not installing and not log.snapshot.index <= log.applied <= log.handed:
            raise InvariantBroken(f"applied is not between snapshot and handed: {log}")
        if not installing and not log.handed <= ledger.durable_index <= log.last_index:
            raise InvariantBroken(f"handed out what is not durable: {log} {ledger}")
        if ledger.durable_term > raft.term:
            raise InvariantBroken(f"durable term {ledger.durable_term} above {raft.term}")
        held = log.held(log.first_held, log.last_index)
        if [entry.index for entry in held] != list(range(log.first_held, log.last_index + 1)):
            raise InvariantBroken("the entries in memory are not contiguous")
        if not log.terms_agree():
            raise InvariantBroken("the terms of the log are wrong")
        newest = max([entry.index for entry in held if entry.kind is _CONF], default=0)
        if newest > log.configuration_index:
            raise InvariantBroken(f"the conf entry {newest} is not in force")
        check_configuration(log.configuration)


def _check_progress(progress: Progress) -> None:
    if progress.match >= progress.next:
        raise InvariantBroken(f"match is not before next: {progress}")
    if progress.inflight_bytes < 0 or (progress.inflight_bytes and not progress.inflight):
        raise InvariantBroken(f"the window does not add up: {progress}")
