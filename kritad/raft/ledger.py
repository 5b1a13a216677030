"""What was handed out to be saved, and what of it the disk has confirmed.

Rules:
* Saves are confirmed in order and cumulatively (``saved(sequence)``).
* ``durable_index`` speaks of *this* log: when entries are truncated, every
  outstanding save loses its claim to them. A late confirmation of a save whose
  entries have been replaced can therefore never attest the replacements, which
  come with a save of their own (the ABA race of etcd's append acks; raft.md B31).
* Term and vote travel in one HardState, never apart (raft.md B2).
* A commit index alone is not worth a save: it rides along or is lost.
"""

from __future__ import annotations

from collections import deque

import attrs

from kritad.raft.log import Log
from kritad.raft.types import HardState, Save


@attrs.define
class Outstanding:
    """What the log and hard state will be worth once this save is durable."""

    sequence: int
    last_index: int
    term: int
    vote: int


class Ledger:
    """See the module's docstring. Everything a replica boots with is durable."""

    __slots__ = (
        "_asked",
        "_outstanding",
        "_sequence",
        "durable_index",
        "durable_term",
        "durable_vote",
    )

    def __init__(self, hard_state: HardState, last_index: int) -> None:
        self.durable_index = last_index
        self.durable_term = hard_state.term
        self.durable_vote = hard_state.vote
        self._asked = attrs.evolve(hard_state)  # what the last save that had one carried
        self._sequence = 0
        self._outstanding: deque[Outstanding] = deque()

    def __repr__(self) -> str:
        return (
            f"<Ledger index={self.durable_index} term={self.durable_term} "
            f"outstanding={len(self._outstanding)}>"
        )

    @property
    def idle(self) -> bool:
        """Whether every save handed out is durable."""
        return not self._outstanding

    def take(self, log: Log, term: int, vote: int, place_needed: bool) -> Save | None:
        """The next save, or None when there is nothing to save.

        ``place_needed``: messages wait for the saves before this one, so that an
        empty save is wanted as a place in the order.
        """
        asked = self._asked
        changed = term != asked.term or vote != asked.vote
        has_log = log.unsaved <= log.last_index or log.truncate_from or log.snapshot_unsaved
        if not (changed or has_log or place_needed):
            return None
        self._sequence += 1
        save = Save(self._sequence)
        if changed or (has_log and log.commit != asked.commit):
            save.hard_state = self._asked = HardState(term, vote, log.commit)
            save.sync_hard_state = changed
        if has_log:
            save.snapshot, log.snapshot_unsaved = log.snapshot_unsaved, None
            save.truncate_from, log.truncate_from = log.truncate_from, 0
            save.entries = log.held(log.unsaved, log.last_index)
            log.unsaved = log.last_index + 1
        self._outstanding.append(Outstanding(self._sequence, log.last_index, term, vote))
        return save

    def saved(self, sequence: int) -> bool:
        """Notes that all saves up to ``sequence`` are durable; whether any was outstanding."""
        outstanding = self._outstanding
        done: Outstanding | None = None
        while outstanding and outstanding[0].sequence <= sequence:
            done = outstanding.popleft()
            if done.last_index > self.durable_index:
                self.durable_index = done.last_index
        if done is None:
            return False
        self.durable_term, self.durable_vote = done.term, done.vote
        return True

    def forget_from(self, index: int) -> None:
        """The log dropped what it had from ``index`` on: nothing of it is durable any more."""
        self.durable_index = min(self.durable_index, index - 1)
        for save in self._outstanding:
            save.last_index = min(save.last_index, index - 1)
