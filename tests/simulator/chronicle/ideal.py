"""A data shard as it should be: what each entry of its log makes of its keys, said plainly.

Written anew from the table of operations and their documents, with dicts and sorting where
the product has indexes, heaps, caches and files. Everything that the shard ever held is
kept, so that any moment can be asked for. Fields are taken for well-formed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import attrs

from krita.errors import Status
from krita.operations import Change, LeaseChange, Op
from tests.simulator.chronicle.draft import Answer, Draft, Held, refuse

MEMO_MS = 3_600_000  # for so long the same idempotency key gets the same answer
KEYED = frozenset((Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH, Op.LOCK, Op.TXN))
# Where an idempotency key stands among the fields from the key on.
_NAME = {Op.PUT: 7, Op.DELETE: 3, Op.ADD: 6, Op.APPEND: 6, Op.TOUCH: 5, Op.LOCK: 4, Op.TXN: 4}

# A kind, the key, what it holds since (None: nothing) and the entry that did it. Of a
# split: the new shard and the place of the cut, instead of what is held.
Event = tuple[int, bytes, Held | tuple[int, int] | None, int]


def token(key: bytes) -> int:
    """Where a key stands on the ring: by what is in its first braces, if anything is."""
    before, brace, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc32(tag) if brace and closed and tag else crc32(before + brace + rest)


@attrs.define
class IdealSession:
    """One client's memory of itself."""

    used_ms: int
    acked_to: int = 0
    answers: dict[int, Answer] = attrs.field(factory=dict)


@attrs.define(eq=False)
class IdealShard:
    """See the module's docstring."""

    shard: int
    arc: tuple[int, int]
    session_ttl_ms: int
    clock_ms: int = 0
    keys: dict[bytes, Held] = attrs.field(factory=dict)
    leases: dict[int, tuple[int, int]] = attrs.field(factory=dict)  # ttl_ms, deadline_ms
    memos: dict[tuple[bytes, int], tuple[Any, Answer, int]] = attrs.field(factory=dict)
    sessions: dict[int, IdealSession] = attrs.field(factory=dict)
    rules: dict[bytes, tuple[int, int]] = attrs.field(factory=dict)  # ms kept, since which entry
    history: dict[bytes, list[tuple[int, Held | None]]] = attrs.field(factory=dict)
    events: list[Event] = attrs.field(factory=list)  # of the entry that is being applied

    # --- entries ------------------------------------------------------------------------

    def move_clock(self, stamp_ms: int, index: int) -> None:
        """What comes first of every command: time, and what it ends."""
        self.events = []
        if stamp_ms <= self.clock_ms:
            return
        self.clock_ms = stamp_ms
        since_ms = stamp_ms - self.session_ttl_ms
        self.sessions = {n: s for n, s in self.sessions.items() if s.used_ms >= since_ms}
        self._end_what_is_due(index)

    def _end_what_is_due(self, index: int) -> None:
        due = [(h.deadline_ms, k) for k, h in self.keys.items() if h.deadline_ms > 0]
        for deadline_ms, key in sorted(due):
            if deadline_ms <= self.clock_ms:
                self._change(Change.EXPIRE, key, None, index)
        over = [(deadline_ms, lease) for lease, (_, deadline_ms) in self.leases.items()]
        for deadline_ms, lease in sorted(over):
            if deadline_ms <= self.clock_ms:
                for key in self._leased(lease):
                    self._change(Change.EXPIRE, key, None, index)
                del self.leases[lease]

    def _leased(self, lease: int) -> list[bytes]:
        return sorted(key for key, held in self.keys.items() if held.lease == lease)

    def _change(self, kind: Change | None, key: bytes, held: Held | None, index: int) -> None:
        """``kind`` None: only how long the key lasts is another."""
        if held is None:
            del self.keys[key]
        else:
            self.keys[key] = held
        self.history.setdefault(key, []).append((index, held))
        if kind is not None:
            self.events.append((int(kind), key, held, index))

    def write(self, op: int, fields: Sequence[Any], index: int) -> tuple[Answer, bool]:
        """A keyed write; and whether this entry has executed it."""
        session_id, sequence, acked_to, *rest = fields
        named = [rest[0]]
        if op == Op.TXN:
            named += [row[0] for row in rest[1] or ()]
            named += [row[1] for part in rest[2:4] for row in part or ()]
        if not all(self.arc[0] <= token(key) < self.arc[1] for key in named):
            return refuse(Status.WRONG_SHARD), False
        if not session_id:
            return self._once(op, rest, index)
        session = self.sessions.get(session_id)
        if session is None:
            return refuse(Status.SESSION_EXPIRED), False
        known = session.answers.get(sequence)
        if acked_to >= sequence or (known is None and sequence <= session.acked_to):
            return refuse(Status.BAD_REQUEST), False
        session.used_ms = self.clock_ms
        session.acked_to = max(session.acked_to, acked_to)
        session.answers = {n: a for n, a in session.answers.items() if n > session.acked_to}
        if known is not None:
            return known, False
        answer, executed = self._once(op, rest, index)
        session.answers[sequence] = answer
        return answer, executed

    def _once(self, op: int, fields: Sequence[Any], index: int) -> tuple[Answer, bool]:
        fields = [*fields, *[None] * 12]
        name = fields[_NAME[Op(op)]]
        memo_key = (name, token(fields[0]))
        request = "" if name is None else repr((op, fields))
        asked, answer, until_ms = self.memos.get(memo_key, ("", refuse(Status.CONFLICT), 0))
        if until_ms > self.clock_ms:
            return (answer if asked == request else refuse(Status.CONFLICT)), False
        draft = Draft(self.keys, self.leases, self.clock_ms, index)
        answer = draft.decide(op, fields)
        for kind, key, held in draft.effects:
            self._change(kind, key, held, index)
        if name is not None:
            self.memos[memo_key] = (request, answer, self.clock_ms + MEMO_MS)
        return answer, True

    def other(self, op: int, fields: Sequence[Any], body: Any, index: int) -> Answer | None:
        """What is about the whole shard. None: whatever the answer was (``body``) is so."""
        if op == Op.LEASE_CHANGE:
            return self._lease_change(fields, index)
        if op == Op.RETENTION_CHANGE:
            prefix, retention_ms = fields[1:3]
            _, since = self.rules.get(prefix, (0, index))
            self.rules.pop(prefix, None)
            if retention_ms:
                self.rules[prefix] = (retention_ms, since)
            return Answer(Status.OK, [*self.arc])
        if op == Op.EXPIRE:
            return Answer(Status.OK, [False])
        if op == Op.SESSION_OPEN and isinstance(body[0], int):
            self.sessions[body[0]] = IdealSession(self.clock_ms)
        elif op == Op.SESSION_KEEPALIVE:
            if fields[1] not in self.sessions:
                return refuse(Status.SESSION_EXPIRED)
            self.sessions[fields[1]].used_ms = self.clock_ms
        return None

    def _lease_change(self, fields: Sequence[Any], index: int) -> Answer:
        _, lease, change, ttl_ms = fields[:4]
        if change != LeaseChange.GRANT:
            if lease not in self.leases and change == LeaseChange.REVOKE:
                return Answer(Status.OK, [None, 0, *self.arc])
            if lease not in self.leases:
                return refuse(Status.LEASE_UNKNOWN)
            ttl_ms = self.leases[lease][0]
        keys = len(self._leased(lease))
        lasts_ms = 0 if change == LeaseChange.REVOKE else ttl_ms
        self.leases[lease] = (ttl_ms, self.clock_ms + lasts_ms)
        self._end_what_is_due(index)
        return Answer(Status.OK, [ttl_ms, keys, *self.arc])

    def cut(self, shard_new: int, at: int, index: int) -> IdealShard:
        """The other half, which begins with all that is not keys, and with its keys."""
        other = IdealShard(shard_new, (at, self.arc[1]), self.session_ttl_ms, self.clock_ms)
        other.keys = {key: held for key, held in self.keys.items() if token(key) >= at}
        other.history = {key: [(index, held)] for key, held in other.keys.items()}
        other.leases, other.rules = dict(self.leases), dict(self.rules)
        other.memos = {name: memo for name, memo in self.memos.items() if name[1] >= at}
        for number, session in self.sessions.items():
            own = IdealSession(session.used_ms, session.acked_to, dict(session.answers))
            other.sessions[number] = own
        self.keys = {key: held for key, held in self.keys.items() if token(key) < at}
        self.memos = {name: memo for name, memo in self.memos.items() if name[1] < at}
        self.arc = (self.arc[0], at)
        self.events.append((int(Change.SPLIT), b"", (shard_new, at), index))
        return other

    # --- what was -----------------------------------------------------------------------

    def held_at(self, key: bytes, index: int) -> Held | None:
        """What the key held behind an entry."""
        changes = self.history.get(key, [])
        place = bisect_right(changes, index, key=lambda change: change[0])
        return changes[place - 1][1] if place else None

    @property
    def due_ms(self) -> int | None:
        """When something ends, at the earliest."""
        times = [held.deadline_ms for held in self.keys.values() if held.deadline_ms]
        return min(times + [deadline_ms for _, deadline_ms in self.leases.values()], default=None)
