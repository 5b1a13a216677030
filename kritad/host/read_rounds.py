"""The linearizable reads of one replica, from their coming until they may be answered.

A read waits for a round of the leader's (ReadIndex, thesis 6.4), and then until the index
that the round confirmed is applied here. One round serves every read that was waiting
when it began: what comes later may have seen a write acknowledged that the round's index
does not cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kritad.host.request import Request
from kritad.raft.core import Raft
from kritad.raft.errors import ProposalRefused
from kritad.raft.ready import ReadReady
from kritad.trail import QUEUE, QUORUM


class ReadRounds:
    """See the module's docstring. It only keeps them: who answers is the replica."""

    def __init__(self) -> None:
        self._queue: list[Request] = []  # no round begun for these
        self._rounds: dict[int, list[Request]] = {}  # by token
        self._confirmed: list[tuple[int, list[Request]]] = []  # (index to be applied, reads)
        self._token = 0

    def __repr__(self) -> str:
        return (
            f"<ReadRounds {len(self._queue)} queued, {len(self._rounds)} under way,"
            f" {len(self._confirmed)} confirmed>"
        )

    def add(self, request: Request) -> None:
        """Queue it for the next round. Cost: an append."""
        self._queue.append(request)

    def begin(self, raft: Raft) -> list[Request]:
        """Begin a round for those that are queued. Those that have to look for another
        leader: all of them, if this one refuses."""
        if not self._queue:
            return []
        requests, self._queue = self._queue, []
        _passed(QUEUE, requests)
        self._token += 1
        try:
            raft.read_index(self._token)
        except ProposalRefused:
            return requests
        self._rounds[self._token] = requests
        return []

    def note(self, reads: Sequence[ReadReady], lost: Sequence[int]) -> list[Request]:
        """What the core says of the rounds. Those that have to look for another leader."""
        for read in reads:
            requests = self._rounds.pop(read.token, [])
            _passed(QUORUM, requests)
            self._confirmed.append((read.index, requests))
        return [request for token in lost for request in self._rounds.pop(token, [])]

    def applied(self, index: int) -> Iterator[Request]:
        """Those that may be answered now that ``index`` is applied; once."""
        if not self._confirmed:
            return
        confirmed, self._confirmed = self._confirmed, []
        for wanted, requests in confirmed:
            if wanted > index:
                self._confirmed.append((wanted, requests))
            else:
                yield from requests

    def clear(self) -> list[Request]:
        """All of them; none waits any more."""
        found = self._queue
        found += [request for requests in self._rounds.values() for request in requests]
        found += [request for _, requests in self._confirmed for request in requests]
        self._queue, self._rounds, self._confirmed = [], {}, []
        return found


def _passed(stage: bytes, requests: Sequence[Request]) -> None:
    for request in requests:
        if (trail := request.trail) is not None:
            trail.passed(stage)
