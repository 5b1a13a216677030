"""What each write does to keys, and what it answers, said plainly: see ideal.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from krita.errors import Status
from krita.operations import KEEP_TTL, Change, Compare, Op, Relation

_NUMBER_LIMIT = 1 << 63


@attrs.frozen
class Held:
    """What a key holds, since which entry, and until when if not for ever."""

    value: bytes
    revision: int
    content_type: str | None
    deadline_ms: int = 0
    lease: int = 0


@attrs.frozen
class Answer:
    """Of a refusal only what programs look at."""

    status: Status
    body: list[Any] = attrs.field(factory=list)
    detail: dict[str, Any] = attrs.field(factory=dict)


class _RefusedError(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def refuse(status: Status, **detail: Any) -> Answer:
    """An answer that nothing has happened."""
    return Answer(status, [], detail)


class Draft:
    """Keys as they would be if all that was decided so far were done."""

    def __init__(
        self,
        keys: Mapping[bytes, Held],
        leases: Mapping[int, tuple[int, int]],
        clock_ms: int,
        index: int,
    ) -> None:
        self._keys = keys
        self._leases = leases
        self._clock_ms = clock_ms
        self._index = index
        self._changed: dict[bytes, Held | None] = {}
        self.effects: list[tuple[Change | None, bytes, Held | None]] = []

    def decide(self, op: int, fields: Sequence[Any]) -> Answer:
        """``fields`` from the key on, with as many nulls behind them as anybody wants.
        A refusal leaves no effects."""
        verbs: dict[int, Callable[[Sequence[Any]], list[Any]]] = {
            Op.PUT: self._put, Op.DELETE: self._delete, Op.ADD: self._add,
            Op.APPEND: self._append, Op.TOUCH: self._touch, Op.LOCK: self._lock,
            Op.TXN: self._txn,
        }  # fmt: skip
        try:
            return Answer(Status.OK, verbs[op](fields))
        except _RefusedError as refused:
            self.effects = []
            return refused.answer

    def _look(self, key: bytes) -> Held | None:
        return self._changed[key] if key in self._changed else self._keys.get(key)

    def _set(self, kind: Change | None, key: bytes, held: Held | None) -> None:
        self._changed[key] = held
        self.effects.append((kind, key, held))

    def _guarded(self, key: bytes, if_revision: int | None, if_lock: Any) -> Held | None:
        before = self._look(key)
        revision = before.revision if before else 0
        if if_revision not in (None, revision):
            raise _RefusedError(refuse(Status.CONDITION_FAILED, revision=revision))
        if if_lock is not None:
            lock = self._look(if_lock[0])
            held = lock.revision if lock else 0
            if held != if_lock[1]:
                raise _RefusedError(refuse(Status.CONDITION_FAILED, revision=held))
        return before

    def _life(self, key: bytes, ttl_ms: int | None, lease: int | None) -> tuple[int, int]:
        before = self._look(key)
        if ttl_ms == KEEP_TTL:
            deadline_ms = before.deadline_ms if before else 0
            if lease is None:
                return deadline_ms, before.lease if before else 0
        else:
            deadline_ms = 0 if ttl_ms is None else self._clock_ms + ttl_ms
        if lease is not None and lease not in self._leases:
            raise _RefusedError(refuse(Status.LEASE_UNKNOWN))
        return deadline_ms, lease or 0

    def _put(self, fields: Sequence[Any]) -> list[Any]:
        key, value, content_type, if_revision, ttl_ms, lease, if_lock, _, previous = fields[:9]
        before = self._guarded(key, if_revision, if_lock)
        life = self._life(key, ttl_ms, lease)
        self._set(Change.PUT, key, Held(value, self._index, content_type, *life))
        return [self._index, before is not None, *_previous(before, previous)]

    def _delete(self, fields: Sequence[Any]) -> list[Any]:
        key, if_revision, if_lock, _, previous = fields[:5]
        before = self._guarded(key, if_revision, if_lock)
        if before is not None:
            self._set(Change.DELETE, key, None)
        return [self._index, before is not None, *_previous(before, previous)]

    def _add(self, fields: Sequence[Any]) -> list[Any]:
        key, delta, if_revision, ttl_ms, lease, if_lock = fields[:6]
        before = self._guarded(key, if_revision, if_lock)
        try:
            number = delta + int(before.value if before else b"0")
        except ValueError:
            raise _RefusedError(refuse(Status.CONFLICT)) from None
        if abs(number) >= _NUMBER_LIMIT:
            raise _RefusedError(refuse(Status.CONFLICT))
        life = self._life(key, ttl_ms, lease)
        content_type = before.content_type if before else "text/plain"
        held = Held(str(number).encode(), self._index, content_type, *life)
        self._set(Change.PUT, key, held)
        return [self._index, before is not None, number]

    def _append(self, fields: Sequence[Any]) -> list[Any]:
        key, data, if_revision, ttl_ms, lease, if_lock, _, bytes_max = fields[:8]
        before = self._guarded(key, if_revision, if_lock)
        value = (before.value if before else b"") + data
        if bytes_max is not None and len(value) > bytes_max:
            raise _RefusedError(refuse(Status.CONFLICT))
        life = self._life(key, ttl_ms, lease)
        held = Held(value, self._index, before.content_type if before else None, *life)
        self._set(Change.PUT, key, held)
        return [self._index, before is not None, len(value)]

    def _touch(self, fields: Sequence[Any]) -> list[Any]:
        key, if_revision, ttl_ms, lease, if_lock = fields[:5]
        before = self._guarded(key, if_revision, if_lock)
        life = self._life(key, ttl_ms, lease)
        if before is None:
            return [0, False]
        self._set(None, key, attrs.evolve(before, deadline_ms=life[0], lease=life[1]))
        return [before.revision, True]

    def _lock(self, fields: Sequence[Any]) -> list[Any]:
        key, owner, ttl_ms, lease = fields[:4]
        before = self._look(key)
        life = self._life(key, ttl_ms, lease)
        if before is None:
            self._set(Change.PUT, key, Held(owner, self._index, None, *life))
            return [self._index, True]
        if before.value != owner:
            left_ms = before.deadline_ms - self._clock_ms
            left = {"left_ms": left_ms} if before.deadline_ms else {}
            raise _RefusedError(
                refuse(Status.LOCKED, token=before.revision, owner=before.value, **left)
            )
        self._set(None, key, attrs.evolve(before, deadline_ms=life[0], lease=life[1]))
        return [before.revision, False]

    def _txn(self, fields: Sequence[Any]) -> list[Any]:
        _, compare, then, otherwise, _, bytes_max = fields[:6]
        holds = all(self._holds(*row[:4]) for row in compare or ())
        results = [self._one(row, bytes_max) for row in (then if holds else otherwise) or ()]
        return [self._index, holds, results]

    def _holds(self, key: bytes, what: int, relation: int, operand: Any) -> bool:
        held = self._look(key)
        if what == Compare.REVISION:
            found: Any = held.revision if held else 0
        else:
            found = held.value if held else None
        if relation in (Relation.EQUAL, Relation.UNEQUAL):
            return bool(found == operand) == (relation == Relation.EQUAL)
        less, more = (found, operand) if relation == Relation.LESS else (operand, found)
        return bool(more is not None and (less is None or less < more))

    def _one(self, row: Sequence[Any], bytes_max: int | None) -> list[Any]:
        op, key, *rest = row
        a, b, c, d, *_ = [*rest, None, None, None, None]
        nulls = [None] * 4
        if op == Op.PUT:
            return self._put([key, a, b, None, c, d, *nulls])
        if op == Op.DELETE:
            return self._delete([key, *nulls])
        if op == Op.ADD:
            return self._add([key, a, None, b, c, *nulls])
        if op == Op.APPEND:
            return self._append([key, a, None, b, c, None, None, bytes_max])
        if op == Op.TOUCH:
            return self._touch([key, None, a, b, *nulls])
        held = self._look(key)
        return [held.value, held.revision, held.content_type] if held else [None, 0, None]


def _previous(before: Held | None, wanted: object) -> list[Any]:
    if before is None or not wanted:
        return []
    return [[before.value, before.revision, before.content_type]]
