"""One replica: its consensus core, its state machine, and who waits on them.

Rules:
* A write is answered when the entry at its index *and term* was applied. An
  applied entry of another term at that index proves that it was not applied;
  nothing else does, so a lost leadership alone answers nobody (the new leader
  may well commit the entry; the deadline says *unknown* if we do not hear).
* A read is answered when the index that its ReadIndex round confirmed has been
  applied. One round serves every read that was waiting when it began.
* Everything here runs on the loop's thread and never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from krita.errors import Outcome, OutcomeUnknown, Status, Unavailable
from kritad.host.request import Request
from kritad.raft.core import Raft
from kritad.raft.errors import ProposalRefused
from kritad.raft.ready import ReadReady, Ready
from kritad.raft.types import Entry, Role
from kritad.state.command import pack_command
from kritad.state.machine import ShardState

# Marks in the log every so many bytes: what compaction measures a tail with.
_MARK_BYTES = 64 << 10


@attrs.define
class LogMarks:
    """How many bytes of log lie behind which index, to within ``_MARK_BYTES``."""

    total_bytes: int = 0
    _marks: list[tuple[int, int]] = attrs.field(factory=list)  # (index, total up to it)

    def count(self, entry: Entry) -> None:
        """An entry was applied."""
        self.total_bytes += len(entry.data) + 32
        if not self._marks or self.total_bytes - self._marks[-1][1] >= _MARK_BYTES:
            self._marks.append((entry.index, self.total_bytes))

    def index_before_tail(self, tail_bytes: int) -> int:
        """The highest marked index with at least ``tail_bytes`` of log behind
        it; 0: there is none."""
        limit = self.total_bytes - tail_bytes
        found = 0
        for index, total in self._marks:
            if total > limit:
                break
            found = index
        return found

    def forget_below(self, index: int) -> None:
        """The log was cut at ``index``."""
        self._marks = [mark for mark in self._marks if mark[0] >= index]


class Replica:
    """See the module's docstring. ``on_role`` is told of every change of role,
    term or leader; ``requeue`` gets reads that have to find another leader."""

    def __init__(
        self,
        raft: Raft,
        state: ShardState,
        *,
        on_role: Callable[[Replica], None],
        requeue: Callable[[Request], None],
    ) -> None:
        self.raft = raft
        self.state = state
        self.shard = raft.shard
        self.id = raft.replica
        self.marks = LogMarks()
        self.leader_heard_ms = 0.0  # when a leader was last known; for staleness
        self._on_role = on_role
        self._requeue = requeue
        self._writes: dict[int, Request] = {}  # by log index
        self._read_queue: list[Request] = []  # no round begun for these
        self._read_rounds: dict[int, list[Request]] = {}  # by token
        self._readable: list[tuple[int, list[Request]]] = []  # (index to be applied, reads)
        self._read_token = 0
        self._role_seen: tuple[Role, int, int] | None = None

    def __repr__(self) -> str:
        return (
            f"<Replica {self.id} of shard {self.shard}: {self.raft.role.name.lower()}"
            f" term {self.raft.term} applied {self.state.index}/{self.raft.commit}"
            f"/{self.raft.last_index}, {len(self._writes)} writes and"
            f" {len(self._read_queue) + len(self._read_rounds)} reads waiting>"
        )

    @property
    def leads(self) -> bool:
        """Whether this replica believes itself the leader."""
        return self.raft.role is Role.LEADER

    def propose(self, request: Request, clock_ms: int) -> None:
        """Append a write to the log. Raises ProposalRefused, and then it was
        surely not appended. Cost: a few µs."""
        data = pack_command(clock_ms, request.op, request.body)
        index, request.term = self.raft.propose(data)
        request.older = self._writes.get(index)
        self._writes[index] = request

    def read(self, request: Request) -> None:
        """Queue a linearizable read for the next round. Cost: an append."""
        self._read_queue.append(request)

    def take_ready(self) -> Ready | None:
        """Begin a round for the queued reads, then ask the core what to do."""
        if self._read_queue:
            self._begin_read_round()
        ready = self.raft.ready()
        seen = (self.raft.role, self.raft.term, self.raft.leader)
        if seen != self._role_seen:
            self._role_seen = seen
            self._on_role(self)
        return ready

    def _begin_read_round(self) -> None:
        requests, self._read_queue = self._read_queue, []
        self._read_token += 1
        try:
            self.raft.read_index(self._read_token)
        except ProposalRefused:
            for request in requests:
                self._requeue(request)
        else:
            self._read_rounds[self._read_token] = requests

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries and answer those who wait for them."""
        for entry in entries:
            result = self.state.apply(entry)
            self.marks.count(entry)
            request = self._writes.pop(entry.index, None)
            while request is not None:
                if request.term == entry.term:
                    request.answer(result.status, result.body)
                else:
                    request.fail(
                        Unavailable(
                            "the shard changed its leader before the write was replicated",
                            hint="send it again",
                        )
                    )
                request = request.older
        self.raft.applied(entries[-1].index)

    def note_reads(self, reads: Sequence[ReadReady], lost: Sequence[int]) -> None:
        """What the core says of the read rounds."""
        for read in reads:
            self._readable.append((read.index, self._read_rounds.pop(read.token, [])))
        for token in lost:
            for request in self._read_rounds.pop(token, []):
                self._requeue(request)

    def serve_reads(self) -> None:
        """Answer every read whose index has been applied."""
        if not self._readable:
            return
        applied = self.state.index
        waiting = []
        for index, requests in self._readable:
            if index > applied:
                waiting.append((index, requests))
                continue
            for request in requests:
                self.answer_read(request, None)
        self._readable = waiting

    def answer_read(self, request: Request, staleness_ms: int | None) -> None:
        """Read the key now. ``staleness_ms`` None: the read is linearizable."""
        if request.respond is None:
            return
        row = self.state.read(request.key)
        index = self.state.index
        if row is None:
            request.answer(Status.OK, [None, 0, None, index, staleness_ms])
        else:
            request.answer(
                Status.OK, [row.value, row.revision, row.content_type, index, staleness_ms]
            )

    def abandon(self, why: str) -> None:
        """This replica goes away or jumps over part of the log: whoever waits
        for an entry of it can be told nothing but *unknown*."""
        for request in self._writes.values():
            chained: Request | None = request
            while chained is not None:
                chained.fail(OutcomeUnknown(why, hint="read the key before you write it again"))
                chained = chained.older
        self._writes.clear()
        self._read_queue += [r for requests in self._read_rounds.values() for r in requests]
        self._read_queue += [r for _, requests in self._readable for r in requests]
        self._read_rounds.clear()
        self._readable.clear()
        for request in self._read_queue:
            request.fail(Unavailable(why, hint="ask again", outcome=Outcome.NOT_APPLIED))
        self._read_queue.clear()
