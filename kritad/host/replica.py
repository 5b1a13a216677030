"""One replica: its consensus core, its state machine, and who waits on them.

Rules:
* A write is answered when the entry at its index *and term* was applied. An
  applied entry of another term at that index proves that it was not applied;
  nothing else does, so a lost leadership alone answers nobody (the new leader
  may well commit the entry; the deadline says *unknown* if we do not hear).
* A read is answered when the index that its ReadIndex round confirmed has been
  applied. One round serves every read that was waiting when it began.
* What is asked for a key that the shard does not own (it was split) is handed back
  (``misplaced``): a key that is somewhere else is never said to be absent. A write that
  the log has refused for that reason was surely not applied.
* A write that meets keys which a transaction holds waits in a line (line.py), and a read
  until it is known what that transaction does.
* A shard that an entry has split off is handed on (``on_split``) before the next entry
  is applied.
* A stored row that turns out to be damaged is reported (``on_damage``), and no
  entry behind the one that met it is applied; nor behind one that cannot be applied for a bug,
  which stops this replica like a broken invariant of its core.
* Everything here runs on the loop's thread and never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from krita.errors import Busy, Compacted, KritaError, Outcome, OutcomeUnknown, Status, Unavailable
from krita.operations import Op
from kritad.host.clock import Clock
from kritad.host.line import Line, keys_of
from kritad.host.log_marks import LogMarks
from kritad.host.polls import POLLS_MAX, Polls
from kritad.host.read_rounds import ReadRounds
from kritad.host.request import KEYED, Request
from kritad.host.stamps import Stamps
from kritad.raft.core import Raft
from kritad.raft.errors import ProposalRefused
from kritad.raft.ready import ReadReady, Ready
from kritad.raft.types import Entry, Role
from kritad.state.command import pack_command
from kritad.state.feed import NEWEST
from kritad.state.machine import ShardState
from kritad.state.reading import OF_SHARD, changes, history, holders, read_key, read_then, upto_of
from kritad.state.results import Result
from kritad.state.split import Offspring
from kritad.storage.errors import StorageError
from kritad.trail import Trails

log = logging.getLogger(__name__)

_EVENTS_ALL = 1 << 30
_WRONG_SHARD = int(Status.WRONG_SHARD)
_HELD = Busy("a key is held by a transaction", hint="try again in a moment")


class Replica:
    """See the module's docstring. ``on_role`` is told of every change of role,
    term or leader, and when the core is poisoned; ``requeue`` gets what was not begun and has
    to find another leader, ``misplaced`` what is for another shard; ``on_split`` answers for
    the shards that were split off (see ShardState.take_offspring); ``on_damage`` hears what the
    storage said when it could not read."""

    def __init__(
        self,
        raft: Raft,
        state: ShardState,
        *,
        on_role: Callable[[Replica], None],
        requeue: Callable[[Request], None],
        misplaced: Callable[[Request], None],
        on_split: Callable[[Replica, Offspring], None],
        on_damage: Callable[[Replica, StorageError], None],
        has_room: Callable[[], bool],
        look_bytes: int,
    ) -> None:
        """``has_room`` says whether more may be applied: it is asked whenever about
        ``look_bytes`` more are in memory."""
        self.raft = raft
        self.state = state
        self.shard = raft.shard
        self.id = raft.replica
        self.marks = LogMarks()
        self.split_proposed = (0, 0)  # term, index of the newest SPLIT (host/splitting.py)
        self.fresh_ms: float | None = None  # what is applied had all of then; None: not known
        self._told_seen = raft.told
        self._told: tuple[int, float] | None = None  # a commit index to reach, told when
        self._noted_ms: float | None = None  # the last tick
        self._on_role = on_role
        self._requeue = requeue
        self._misplaced = misplaced
        self._on_split = on_split
        self._on_damage = on_damage
        self._has_room = has_room
        self._look_bytes = look_bytes
        self._looked_bytes = 0  # what was in memory when ``has_room`` was asked last
        self._writes: dict[int, Request] = {}  # by log index
        self._reads = ReadRounds()
        self._held: list[Request] = []  # reads of keys that a transaction holds
        self.line = Line()
        self.polls = Polls()
        self._stamps = Stamps()
        self._trails = Trails()
        self._role_seen: tuple[Role, int, int, str] | None = None

    def __repr__(self) -> str:
        return (
            f"<Replica {self.id} of shard {self.shard}: {self.raft.role.name.lower()}"
            f" term {self.raft.term} applied {self.state.index}/{self.raft.commit}"
            f"/{self.raft.last_index}, {len(self._writes)} writes waiting, {self._reads!r}>"
        )

    @property
    def leads(self) -> bool:
        """Whether this replica believes itself the leader."""
        return self.raft.role is Role.LEADER

    def propose(self, request: Request, clock_ms: int) -> None:
        """Append a write to the log, when the keys are free. Raises ProposalRefused, and
        then it was surely not appended. Cost: a few µs."""
        held = self.state.keys.intents.by_key
        if (held or self.line.busy) and self._must_wait(request, clock_ms):
            return
        self._append(request, clock_ms)

    def stamp_ms(self, clock: Clock) -> int:
        """What time an entry is given that is made now: for who leads."""
        return self._stamps.now_ms(clock, self.state.clock_ms)

    def _must_wait(self, request: Request, clock_ms: int) -> bool:
        """Whether it waits in the line, or was refused because it may not."""
        keys = keys_of(request)
        if self.line.is_free(keys, self.state.keys.intents.by_key):
            return False
        patient = request.op != Op.TXN_PREPARE or request.wait_until_ms
        if not patient or not self.line.join(request, keys, clock_ms):
            request.fail(_HELD)
        return True

    def _append(self, request: Request, clock_ms: int) -> None:
        data = pack_command(clock_ms, request.op, request.body)
        index, request.term = self.raft.propose(data)
        request.older = self._writes.get(index)
        self._writes[index] = request
        if (trail := request.trail) is not None:
            self._trails.add(index, trail)
        if request.op == Op.TXN_PREPARE:
            self.line.proposed(index, keys_of(request))

    def end_waits(self, now_ms: float) -> None:
        """Refuse the writes that have waited for their time. Called on each tick."""
        if self.line.busy:
            for request in self.line.overdue(now_ms):
                request.fail(_HELD)
            self._move_line()

    def _move_line(self) -> None:
        """Propose the writes whose turn it is."""
        held, owns = self.state.keys.intents.by_key, self.state.owns
        refused = []
        while (waiting := self.line.next(held, owns)) is not None:
            if waiting.request.respond is None:
                continue  # it has waited for as long as it could
            try:
                self._append(waiting.request, max(waiting.clock_ms, self.state.clock_ms))
            except ProposalRefused:
                refused.append(waiting.request)
        for request in refused:  # they may come back, and behind the others
            self._requeue(request)

    def read(self, request: Request) -> None:
        """Queue a linearizable read for the next round. Cost: an append."""
        self._reads.add(request)

    def take_ready(self) -> Ready | None:
        """Begin a round for the queued reads, then ask the core what to do."""
        for request in self._reads.begin(self.raft):
            self._requeue(request)
        ready = self.raft.ready()
        seen = (self.raft.role, self.raft.term, self.raft.leader, self.raft.poisoned)
        if seen != self._role_seen:
            self._role_seen = seen
            self._trails.clear()
            if not self.leads:
                for request in self.line.clear():
                    self._requeue(request)
            self._on_role(self)
        return ready

    def apply(self, entries: Sequence[Entry]) -> int:
        """Apply committed entries and answer those who wait for them, until there is no room
        in memory for more. Returns how many of them are not to be given to it again."""
        if len(entries) > 1:
            try:
                self.state.prepare(entries)
            except Exception as problem:  # see _cannot_apply
                self._cannot_apply(entries[0], problem)
                return len(entries)
        before = self.state.index
        count = 0
        # It may have been flushed since.
        self._looked_bytes = min(self._looked_bytes, self.state.table.size_bytes)
        for entry in entries:
            if self._trails:
                self._trails.committed(entry.index)
            try:
                result = self.state.apply(entry)
            except Exception as problem:  # see _cannot_apply
                self._cannot_apply(entry, problem)
                return len(entries)
            count += 1
            self.marks.count(entry)
            if self.state.offspring is not None:
                offspring = self.state.take_offspring()
                assert offspring is not None
                self._on_split(self, offspring)
            request = self._writes.pop(entry.index, None)
            if request is not None:
                self._answer_writes(request, entry.term, result)
            if self._is_full():
                break
        self.raft.applied(self.state.index)
        if self.polls.count:
            self._wake_polls(before)
        if self._held:
            held, self._held = self._held, []
            for request in held:
                self.answer_read(request, None)
        if self.line.busy:
            self.line.applied(self.state.index)
            self._move_line()
        return count

    def _cannot_apply(self, entry: Entry, problem: Exception) -> None:
        """What the storage says is the host's to judge. Anything else is a bug of ours, most
        likely in what this one entry does: all replicas of the shard will meet it, and again at
        each start, so it must not cost the nodes their other shards."""
        if isinstance(problem, StorageError):
            self._on_damage(self, problem)
            return
        log.error("shard %d: a bug at entry %d", self.shard, entry.index, exc_info=problem)
        self.raft.poison(f"entry {entry.index} cannot be applied: {problem!r}")
        self._on_role(self)

    def _is_full(self) -> bool:
        """Whether no more is to be applied now. Between two entries: it may have the state
        frozen."""
        table = self.state.table
        if table.size_bytes - self._looked_bytes < self._look_bytes:
            return False
        full = not self._has_room()
        self._looked_bytes = table.size_bytes
        return full

    def _answer_writes(self, newest: Request, term: int, result: Result) -> None:
        """Answer all who have proposed something for the place of the entry of ``term``."""
        request: Request | None = newest
        while request is not None:
            older, request.older = request.older, None
            if request.term != term:
                request.fail(
                    Unavailable(
                        "the shard changed its leader before the write was replicated",
                        hint="send it again",
                    )
                )
            elif result.status == _WRONG_SHARD and request.op in KEYED:
                request.term = 0  # it is in no log any more that could execute it
                self._misplaced(request)
            else:
                request.answer(result.status, result.body)
            request = older

    def note_saved(self) -> None:
        """The log's disk has more of this replica's log than before."""
        if self._trails:
            self._trails.saved(self.raft.ledger.durable_index)

    def note_reads(self, reads: Sequence[ReadReady], lost: Sequence[int]) -> None:
        """What the core says of the read rounds."""
        for request in self._reads.note(reads, lost):
            self._requeue(request)

    def serve_reads(self) -> None:
        """Answer every read whose index has been applied."""
        for request in self._reads.applied(self.state.index):
            self.answer_read(request, None)

    def staleness_ms(self, clock: Clock) -> int | None:
        """How old what is read here may be. None: it should not be read here at all,
        because the replica is poisoned, or no voter: one that is still being filled
        hears its leader as well as any, and has next to nothing.

        NB: the way of the leader's word is not in it. Nor is it that another one may have been
        elected behind a cut in the network: an old leader, and those that hear it, find that out
        within two election timeouts.
        """
        if self.raft.poisoned or self.id not in self.raft.configuration.voters:
            return None
        if self.fresh_ms is None:  # not since we started: by the shard's own clock
            return max(0, clock.wall_ms() - self.state.clock_ms)
        return max(0, int(clock.monotonic_ms() - self.fresh_ms))

    def note_time(self, now_ms: float, wall_ms: int) -> None:
        """Called on each tick: notes what time it is, and since when nothing is missing here.

        What was heard since the last tick counts as heard then: the process may have been
        stopped since. While what is committed is not applied here, its moment is kept: under
        load there is always something newer.
        """
        raft = self.raft
        self.state.wall_ms = wall_ms
        if raft.told != self._told_seen and self._told is None and self._noted_ms is not None:
            self._told_seen, self._told = raft.told, (raft.told_commit, self._noted_ms)
        if self._told is not None and self.state.index >= self._told[0]:
            self.fresh_ms, self._told = self._told[1], None
        self._noted_ms = now_ms

    def answer_read(self, request: Request, staleness_ms: int | None) -> None:
        """Read the key now. ``staleness_ms`` None: the read is linearizable."""
        if request.respond is None:
            return
        if request.op in KEYED and not self.state.owns(request.key):
            request.awaits = None
            self._misplaced(request)
            return
        if request.op == Op.CHANGES and type(request.fields[0]) is int:
            self._poll_confirmed(request)
            return
        if staleness_ms is None and self.state.keys.intents.by_key and self._is_held(request):
            self._held.append(request)
            return
        try:
            if request.op == Op.GET and not request.fields:
                answer = read_key(self.state, request.key, staleness_ms)
            else:
                answer = self._read_more(request)
        except StorageError as problem:
            request.fail(Unavailable("the replica that was asked is damaged", hint="ask again"))
            self._on_damage(self, problem)
        except KritaError as refusal:
            request.fail(refusal)
        else:
            request.answer(Status.OK, answer)

    def _is_held(self, request: Request) -> bool:
        """Whether it has to wait until it is known what a transaction does. Not for one that
        came later: what that does has not happened when the read was asked for, and a key in
        demand is never free."""
        if request.awaits is None:
            request.awaits = holders(self.state, request.op, request.key, request.fields)
        intents = self.state.keys.intents
        request.awaits = {attempt for attempt in request.awaits if intents.get(attempt)}
        return bool(request.awaits)

    def _read_more(self, request: Request) -> list[object]:
        state, fields = self.state, request.fields
        if request.op == Op.GET:
            return read_then(state, request.key, fields)
        if request.op == Op.KEY_HISTORY:
            return history(state, request.key, fields)
        if request.op == Op.CHANGES:
            answer = changes(state, fields)
            assert answer is not None, "a round of reads is only for where a watch begins"
            return answer
        return OF_SHARD[request.op](state, fields)

    def has_applied(self, index: object) -> bool:
        """Whether it is an index up to which this replica has applied its log, or behind."""
        return type(index) is int and index <= self.state.index

    def poll(self, request: Request, now_ms: float) -> None:
        """Answer ``changes`` behind some revision, now or when there are some."""
        try:
            answer = changes(self.state, request.fields)
        except KritaError as refusal:
            request.fail(refusal)
            return
        if answer is not None:
            request.answer(Status.OK, answer)
        elif request.wait_until_ms <= now_ms:
            self._bookmark(request)
        elif self.polls.count >= POLLS_MAX:
            request.fail(Busy(f"{POLLS_MAX} watches wait at this replica", hint="ask another node"))
        else:
            self.polls.add(request)

    def _poll_confirmed(self, request: Request) -> None:
        """``poll`` for one that was ahead of us, now that all has been applied which anybody had
        heard of when it came. What is ahead still is of another history."""
        if self.has_applied(request.fields[0]):
            self.poll(request, 0.0)
            return
        request.fail(
            Compacted(
                f"shard {self.shard} has not had revision {request.fields[0]} yet: the cluster was"
                " set back to a backup, or the revision is another cluster's",
                hint="read what you watch anew, and go on from there",
                detail={"oldest": self.state.feed.oldest},
            )
        )

    def end_polls(self, now_ms: float) -> None:
        """Answer the polls that have waited for their time. Called on each tick."""
        if self.polls.count:
            for request in self.polls.overdue(now_ms):
                self._bookmark(request)

    def _bookmark(self, request: Request) -> None:
        after = request.fields[0]
        assert isinstance(after, int), request
        request.answer(Status.OK, [[], upto_of(self.state, after), self.state.feed.oldest])

    def _wake_polls(self, before: int) -> None:
        """Entries behind the index ``before`` have been applied."""
        events, upto = self.state.feed.behind(before, b"", None, _EVENTS_ALL) or ([], before)
        woken = self.polls.woken(events) if upto == NEWEST else self.polls.all()
        for request in woken:
            self.poll(request, 0.0)

    def abandon(self, why: str) -> None:
        """This replica goes away or jumps over part of the log: whoever waits
        for an entry of it can be told nothing but *unknown*."""
        writes, self._writes = self._writes, {}
        for request in writes.values():
            chained: Request | None = request
            while chained is not None:
                chained.fail(OutcomeUnknown(why, hint="read the key before you write it again"))
                chained = chained.older
        held, self._held = self._held, []
        for request in self._reads.clear() + held + self.line.clear() + self.polls.all():
            request.fail(Unavailable(why, hint="ask again", outcome=Outcome.NOT_APPLIED))
