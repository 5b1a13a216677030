"""What a data shard does with its users' keys: writes, and what time ends.

Rules:
* A write happens once a session and sequence (sessions.py) and once an idempotency key
  (memos.py). What is over by the shard's clock goes before a write looks.
* Keys outside of the shard's arc are refused before anything else is looked at: also a
  repetition, since whoever owns the key now has a copy of the session (split.py).
* Whatever an entry does, what is due goes first, up to ``ENDED_MAX`` keys, or fewer large
  ones: an entry that ends a million would stop the node. The leader proposes another one
  for the rest.
* A lease that is over has ended for good once its last key has. Until then nobody can have
  one of its number: its keys would be back.

A put of 256 bytes costs 5 µs where the key is in memory; the verbs' detours 5 more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from krita.errors import BadRequest, Busy, LeaseUnknown, Status, WrongShard
from krita.limits import KEY_BYTES_MAX, TTL_MS_MAX
from krita.operations import OPERATIONS, Change, LeaseChange, Op
from kritad.state.intents import Intents
from kritad.state.keyspace import Keyspace
from kritad.state.leases import Leases
from kritad.state.memos import Memo, asked_by
from kritad.state.notes import Notes
from kritad.state.repeats import NO_SESSION, Repeats
from kritad.state.results import Result, answer, success
from kritad.state.sessions import Sessions
from kritad.state.transactions import Transaction
from kritad.state.two_phase import TwoPhase
from kritad.state.verbs import VERBS, Action, Effect, Reply, check_lease, check_ttl, decide
from kritad.storage.errors import REBUILD_HINT, Corrupt
from kritad.storage.extent import OUTSIDE
from kritad.storage.places import is_users_key, stored_token
from kritad.storage.rows import Row, Stamp

ENDED_MAX = 1_000  # keys that one entry ends by the clock, and leases
_ENDED_BYTES = 8 << 10  # of a value, which is read before it goes, count as another key

KEYED = frozenset(int(op) for op in (*VERBS, Op.TXN))
KEY_PLACE = 3  # of the key among their fields

_OK = int(Status.OK)
_PLAIN_PUT_FIELDS = (
    7  # all there are of: session, sequence, acked_to, key, value, content_type, if_revision
)


class UserKeys:
    """See the module's docstring. It is a verb's ``Sight`` as well."""

    def __init__(self, shard: int, keyspace: Keyspace, notes: Notes, sessions: Sessions) -> None:
        self.leases = Leases(notes)
        self.intents = Intents(notes)
        repeats = Repeats(keyspace, sessions)
        self.two_phase = TwoPhase(shard, self, keyspace, self.intents, repeats)
        self._shard = shard
        self._keyspace = keyspace
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<UserKeys of shard {self._shard}: {self._keyspace!r} {self.leases!r}>"

    @property
    def operations(self) -> dict[int, Callable[[list[Any], int], Result]]:
        """What it does, by operation: of the fields and the entry's index."""
        keyed: dict[int, Callable[[list[Any], int], Result]] = {
            int(op): partial(self._keyed, op) for op in (*map(Op, VERBS), Op.TXN)
        }
        return (
            keyed
            | self.two_phase.operations
            | {
                Op.PUT: self._put,
                Op.EXPIRE: self._expire,
                Op.LEASE_CHANGE: self._lease_change,
                Op.RETENTION_CHANGE: self._retention_change,
            }
        )

    def _put(self, fields: list[Any], index: int) -> Result:
        """What nearly all puts are, without detours: this runs on every replica."""
        if len(fields) == _PLAIN_PUT_FIELDS:
            session, sequence, acked_to, key, value, content_type, if_revision = fields
            keyspace = self._keyspace
            if (
                if_revision is None
                and type(key) is bytes
                and type(value) is bytes
                and (content_type is None or type(content_type) is str)
                and is_users_key(key)
                and key not in self.intents.by_key
            ):
                cell = keyspace.extent.cell_of(key)
                if cell == OUTSIDE:
                    raise self._not_ours()
                before = keyspace.table.stamp(key)
                if before is not None and (before.expires_ms or before.lease):
                    return self._keyed(Op.PUT, fields, index)
                in_session = session not in NO_SESSION
                if in_session:
                    known = self._begun(session, sequence, acked_to, index)
                    if known is not None:
                        return answer(Op.PUT, known)
                keyspace.put(key, value, content_type, index, before, cell)
                if in_session:
                    reply: Reply = (_OK, [index, int(before is not None)])
                    self._sessions.finish(session, sequence, reply)
                return Result(_OK, [index, before is not None])
        return self._keyed(Op.PUT, fields, index)

    def _keyed(self, op: Op, fields: list[Any], index: int) -> Result:
        """A write of one key, or of several in one step: once a session and sequence, and
        once an idempotency key."""
        row = OPERATIONS[op]
        fields = _resized(fields, len(row.fields))
        session, sequence, acked_to, key = fields[:4]
        _check_key(key)
        transaction = Transaction.parse(fields[4:]) if op == Op.TXN else None
        keys = [key] if transaction is None else [key, *transaction.keys]
        for one in keys:
            _check_key(one)
            if not self.owns(one):
                raise self._not_ours()
        if self.intents.by_key and self.intents.holders([*keys, *_guards(op, fields)]):
            raise Busy("a key is held by a transaction", hint="try again in a moment")
        in_session = session not in NO_SESSION
        known = self._begun(session, sequence, acked_to, index) if in_session else None
        if known is None:
            known = self._once(op, fields, index, keys, transaction)
            if in_session:
                self._sessions.finish(session, sequence, known)
        return answer(op, known)

    def _once(
        self,
        op: Op,
        fields: list[Any],
        index: int,
        keys: list[bytes],
        transaction: Transaction | None,
    ) -> Reply:
        name = fields[OPERATIONS[op].fields.index("idempotency")]
        memo = None
        if name is not None:
            memo = Memo(self._keyspace, name, keys[0], op, asked_by(op, fields[3:]))
            known = memo.reply()
            if known is not None:
                return known
        for one in keys:  # what is over goes first, whatever becomes of the rest
            self.end_if_over(one, index)
        if transaction is not None:
            effects, reply = transaction.decide(self, index)
        else:
            effect, reply = decide(VERBS[op], self, fields[3:], index)
            effects = [] if effect is None else [effect]
        for effect in effects:
            self.do(effect, index)
        if memo is not None:
            memo.keep(reply, index)
        return reply

    def end_if_over(self, key: bytes, index: int) -> None:
        """End a key whose time is over and that has not been ended yet."""
        stamp = self._keyspace.stamp(key)
        if stamp is not None and self.is_over(stamp):
            self._end(key, index)

    def do(self, effect: Effect, index: int) -> None:
        keyspace, key = self._keyspace, effect.key
        cell = keyspace.extent.cell_of(key)
        if effect.action is Action.PUT:
            before = keyspace.stamp(key)
            keyspace.put(
                key, effect.value, effect.content_type, index, before, cell,
                effect.expires_ms, effect.lease,
            )  # fmt: skip
        elif effect.action is Action.DELETE:
            stamp = keyspace.stamp(key)
            if stamp is not None:  # a transaction may delete a key twice
                keyspace.delete(key, index, stamp, cell)
        else:
            row = keyspace.get(key)
            if row is None:
                return
            keyspace.touch(key, row, cell, effect.expires_ms, effect.lease)

    def cut(self, at: int) -> None:
        """The shard was split: what is at and behind ``at`` is not ours any more."""
        self.intents.keep_only(lambda key: stored_token(key) < at)
        self.two_phase.decisions.cut(at)

    # What is over: see bonds.py and leases.py.

    @property
    def due_ms(self) -> int:
        """Nothing ends before this time of the shard's clock."""
        return min(self._keyspace.bonds.next_ms, self.leases.next_ms)

    def is_due(self, clock_ms: int) -> bool:
        """Whether something ends by then. Raises StoreFailed, Corrupt."""
        return self.leases.next_ms <= clock_ms or self._keyspace.bonds.is_due(clock_ms)

    def is_over(self, row: Row | Stamp) -> bool:
        """Whether a key is absent by the clock, though it has this row still."""
        clock_ms = self._keyspace.clock_ms
        if 0 < row.expires_ms <= clock_ms:
            return True
        return row.lease != 0 and not self.leases.is_alive(row.lease, clock_ms)

    def over(self, limit: int) -> set[bytes] | None:
        """The keys that are over and have their rows still. None: there are ``limit`` of them or
        more, or a lease is over. Raises StoreFailed, Corrupt."""
        clock_ms = self._keyspace.clock_ms
        if self.leases.next_ms <= clock_ms:
            return None
        due = self._keyspace.bonds.due(clock_ms, limit)
        return set(due) if len(due) < limit else None

    def _end(self, key: bytes, index: int) -> int:
        """End a key that is over; returns what that costs of ``ENDED_MAX``.

        The row is read whole, to see that it is what was written: a flipped bit in its
        deadline, or in the index by which it was found, would end it here and not
        elsewhere. Raises storage's Corrupt.
        """
        keyspace = self._keyspace
        row = keyspace.get(key)
        if row is None or not self.is_over(row):
            problem = f"shard {self._shard}: what ends by the index of data.db does not by its row"
            raise Corrupt(self._shard, problem, REBUILD_HINT)
        keyspace.delete(key, index, row, keyspace.extent.cell_of(key), Change.EXPIRE)
        return 1 + len(row.value) // _ENDED_BYTES

    def end_what_is_due(self, index: int) -> None:
        """As much of it as one entry may. Call it before the entry does anything."""
        bonds, clock_ms, promised = self._keyspace.bonds, self._keyspace.clock_ms, self.intents
        left = ENDED_MAX
        for key in bonds.due(clock_ms, left):
            if key in promised.by_key:
                continue  # it is to stay for a moment, until a transaction is decided
            left -= self._end(key, index)
            if left <= 0:
                return
        while (lease := self.leases.over(clock_ms)) is not None:
            for key in bonds.leased(lease, left):
                if key in promised.by_key:
                    return  # and so does its lease
                left -= self._end(key, index)
                if left <= 0:
                    return
            self.leases.end(lease)
            left -= 1
            if left <= 0:
                return

    def _expire(self, fields: list[Any], _index: int) -> Result:
        self._of_shard(fields, 1)
        return success([self.is_due(self._keyspace.clock_ms)])

    def _lease_change(self, fields: list[Any], index: int) -> Result:
        _, lease, change, ttl_ms = self._of_shard(fields, 4)
        check_lease(lease)
        leases, clock_ms = self.leases, self._keyspace.clock_ms
        if change == LeaseChange.GRANT:
            ttl_ms = check_ttl(ttl_ms, keep=False)
            if ttl_ms is None:
                raise BadRequest("a lease has a ttl_ms")
            if leases.get(lease) is not None and not leases.is_alive(lease, clock_ms):
                raise Busy(f"lease {lease} is still ending its keys", hint="let its number be")
            leases.put(lease, ttl_ms, clock_ms + ttl_ms)
            return success([ttl_ms, self._keyspace.bonds.leased_count(lease), *self._arc])
        known = leases.get(lease)
        if known is None or not leases.is_alive(lease, clock_ms):
            if change == LeaseChange.REVOKE:  # as it should be; perhaps it was told before
                return success([None, 0, *self._arc])
            raise LeaseUnknown(f"lease {lease} has ended, or never was")
        keys = self._keyspace.bonds.leased_count(lease)
        if change == LeaseChange.KEEPALIVE:
            leases.put(lease, known.ttl_ms, clock_ms + known.ttl_ms)
        elif change == LeaseChange.REVOKE:
            leases.put(lease, known.ttl_ms, clock_ms)
            self.end_what_is_due(index)
        else:
            raise BadRequest(f"there is no change {change!r} of a lease")
        return success([known.ttl_ms, keys, *self._arc])

    def _retention_change(self, fields: list[Any], index: int) -> Result:
        _, prefix, retention_ms = self._of_shard(fields, 3)
        if type(prefix) is not bytes or len(prefix) > KEY_BYTES_MAX:
            raise BadRequest(f"a prefix is a byte string of at most {KEY_BYTES_MAX} bytes")
        if type(retention_ms) is not int or not 0 <= retention_ms <= TTL_MS_MAX:
            raise BadRequest(f"retention_ms is a number of milliseconds up to {TTL_MS_MAX}")
        self._keyspace.retention.set(prefix, retention_ms, self._keyspace.clock_ms, index)
        return success([*self._arc])

    @property
    def _arc(self) -> tuple[int, int]:
        """For which part of the ring the shard has heard what all shards are told."""
        return self._keyspace.extent.arc

    # A verb's Sight: see verbs.py.

    @property
    def clock_ms(self) -> int:
        """The shard's clock."""
        return self._keyspace.clock_ms

    def owns(self, key: bytes) -> bool:
        """Whether the key is in the shard's arc. 0.3 µs."""
        return self._keyspace.extent.contains(key)

    def stamp(self, key: bytes) -> Row | Stamp | None:
        """What a writer has to know of a key; None: it is absent, or over."""
        stamp = self._keyspace.stamp(key)
        return None if stamp is None or self.is_over(stamp) else stamp

    def get(self, key: bytes) -> Row | None:
        """A key as of ``index``, one that the shard ``owns``; None: it is absent, or over.
        Raises storage's Corrupt."""
        row = self._keyspace.get(key)
        return None if row is None or self.is_over(row) else row

    def bond(self, key: bytes) -> tuple[int, int]:
        """The key's deadline and lease; 0 for none. Raises storage's Corrupt."""
        row = self._keyspace.get(key)
        return (0, 0) if row is None else (row.expires_ms, row.lease)

    def lease_is_alive(self, lease: int) -> bool:
        """Whether keys may be tied to it."""
        return self.leases.is_alive(lease, self._keyspace.clock_ms)

    def _begun(self, session: Any, sequence: Any, acked_to: Any, index: int) -> Reply | None:
        if not (_is_count(session) and _is_count(sequence) and _is_count(acked_to)):
            raise BadRequest("session, sequence and acked_to have to be whole numbers")
        return self._sessions.begin(session, sequence, acked_to, index, self._keyspace.clock_ms)

    def _of_shard(self, fields: list[Any], count: int) -> list[Any]:
        if not fields or fields[0] != self._shard:
            raise WrongShard(f"this is shard {self._shard}, and the request names another")
        return _resized(fields, count)

    def _not_ours(self) -> WrongShard:
        # host/bootstrap.py says why there is always one when there are entries.
        assert self._keyspace.extent.width, f"{self!r} has no arc, and was given a write"
        return WrongShard(
            f"the key is not in the part of the ring that shard {self._shard} has",
            hint="fetch the shard map again: the shard was split",
        )


def _resized(fields: list[Any], count: int) -> list[Any]:
    """Missing elements at the end are null, those behind the known ones unread."""
    return [*fields[:count], *[None] * (count - len(fields))]


def _guards(op: Op, fields: list[Any]) -> list[bytes]:
    """The lock on which a write depends. One that a transaction holds may be gone already,
    and others may have seen so."""
    names = OPERATIONS[op].fields
    if_lock = fields[names.index("if_lock")] if "if_lock" in names else None
    match if_lock:
        case [bytes(lock), *_]:
            return [lock]
    return []


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_key(key: object) -> None:
    if type(key) is not bytes or not is_users_key(key):
        raise BadRequest("a key has to be a byte string, not empty and not beginning with 0xFF")
