"""Linearizable reads without the log: ReadIndex (thesis 6.4).

A read may be answered at the commit index of the moment it came, once a quorum
has confirmed *after that moment* that this replica still leads. Confirmation is
a counter: every round raises ``sequence``, all messages to followers carry it,
they echo it in their answers, and the value that a quorum has echoed confirms
every round up to it. So a delayed answer of an older round can confirm only
older rounds, whatever the tokens (raft.md B39, etcd#20418).

Rules:
* No round begins before an entry of the leader's own term is committed: before
  that its commit index may be behind what an earlier leader acknowledged.
  Reads that come earlier wait.
* One round serves all reads that came since the last ``ready()``.
* The quorum is that of the configuration in force, both halves while joint.
* When leadership goes away all waiting tokens are lost, none is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kritad.raft.quorum import quorum_index
from kritad.raft.ready import ReadReady
from kritad.raft.types import Configuration


class ReadQueue:
    """The reads of a leader that wait for confirmation."""

    __slots__ = ("_rounds", "_waiting", "sequence")

    def __init__(self) -> None:
        self.sequence = 0  # of the last round; never lowered, also not in a new term
        self._waiting: list[int] = []  # tokens that no round covers yet
        self._rounds: deque[tuple[int, int, list[int]]] = deque()  # (sequence, index, tokens)

    def __repr__(self) -> str:
        return f"<ReadQueue #{self.sequence} rounds={len(self._rounds)} new={len(self._waiting)}>"

    @property
    def waiting(self) -> bool:
        """Whether reads wait for a round to begin."""
        return bool(self._waiting)

    @property
    def unconfirmed(self) -> bool:
        """Whether a round waits for its quorum."""
        return bool(self._rounds)

    def add(self, token: int) -> None:
        """Takes a read up; the next round covers it."""
        self._waiting.append(token)

    def begin_round(self, commit: int) -> None:
        """All waiting reads become a round at ``commit``; messages must follow."""
        self.sequence += 1
        self._rounds.append((self.sequence, commit, self._waiting))
        self._waiting = []

    def confirm(
        self, configuration: Configuration, echoed_by: Callable[[int], int]
    ) -> list[ReadReady]:
        """The reads of all rounds that a quorum has echoed."""
        confirmed = quorum_index(configuration, echoed_by)
        ready: list[ReadReady] = []
        while self._rounds and self._rounds[0][0] <= confirmed:
            _, index, tokens = self._rounds.popleft()
            ready.extend([ReadReady(token, index) for token in tokens])
        return ready

    def drain(self) -> list[int]:
        """All tokens, unanswered: leadership is gone."""
        lost = [token for _, _, tokens in self._rounds for token in tokens] + self._waiting
        self._rounds.clear()
        self._waiting = []
        return lost
