"""A shard as plain Python: a dict, a clock, and what each operation should answer."""

from __future__ import annotations

from typing import Any

import attrs

from krita.errors import Status
from krita.operations import LeaseChange, Op
from krita.ring import token

OK = int(Status.OK)
KEEP = -1


@attrs.frozen
class Held:
    """What a key holds."""

    value: bytes
    revision: int
    content_type: str | None = None
    expires_ms: int = 0
    lease: int = 0


class Refused(Exception):
    """The operation is answered with a status and does nothing."""

    def __init__(self, status: Status) -> None:
        self.status = int(status)


@attrs.define
class Model:
    """``apply`` answers (status, body); the body only of what was done."""

    index: int = 0
    clock_ms: int = 0
    held: dict[bytes, Held] = attrs.field(factory=dict)
    leases: dict[int, tuple[int, int]] = attrs.field(factory=dict)  # ttl, deadline
    memos: dict[tuple[int, bytes], tuple[int, Any, tuple[int, Any]]] = attrs.field(factory=dict)

    def apply(self, clock_ms: int, op: Op, fields: dict[str, Any]) -> tuple[int, Any]:
        self.index += 1
        self.clock_ms = max(self.clock_ms, clock_ms)
        self._end()
        try:
            if op == Op.LEASE_CHANGE:
                return OK, self._lease(**fields)
            if op == Op.EXPIRE:
                return OK, [False]
            return self._once(op, fields)
        except Refused as refused:
            return refused.status, None

    def _once(self, op: Op, fields: dict[str, Any]) -> tuple[int, Any]:
        name = fields.pop("idempotency", None)
        if name is None:
            return OK, self._write(op, **fields)
        place = token(fields["key"]), name  # keys of one group share theirs
        asked = op, repr(sorted(fields.items()))
        known = self.memos.get(place)
        if known is not None and known[0] > self.clock_ms:
            return known[2] if known[1] == asked else (int(Status.CONFLICT), None)
        answer: tuple[int, Any]
        try:
            answer = OK, self._write(op, **fields)
        except Refused as refused:
            answer = refused.status, None
        self.memos[place] = self.clock_ms + 3_600_000, asked, answer
        return answer

    def _end(self) -> None:
        over = {lease for lease, (_, at) in self.leases.items() if at <= self.clock_ms}
        self.leases = {k: v for k, v in self.leases.items() if k not in over}
        self.held = {
            key: held
            for key, held in self.held.items()
            if held.lease not in over and not 0 < held.expires_ms <= self.clock_ms
        }

    def _lease(self, lease: int, change: int, ttl_ms: int | None = None) -> list[Any]:
        keys = sum(held.lease == lease for held in self.held.values())
        arc = [0, 1 << 32]
        if change == LeaseChange.GRANT:
            assert ttl_ms is not None
            self.leases[lease] = ttl_ms, self.clock_ms + ttl_ms
            return [ttl_ms, keys, *arc]
        known = self.leases.get(lease)
        if known is None:
            if change == LeaseChange.REVOKE:
                return [None, 0, *arc]
            raise Refused(Status.LEASE_UNKNOWN)
        lasts_ms = known[0] if change == LeaseChange.KEEPALIVE else 0
        self.leases[lease] = known[0], self.clock_ms + lasts_ms
        self._end()
        return [known[0], keys, *arc]

    def _write(
        self, op: Op, key: bytes, if_revision: int | None = None, if_lock: Any = None, **rest: Any
    ) -> list[Any]:
        before = self.held.get(key)
        if if_revision is not None and if_revision != (before.revision if before else 0):
            raise Refused(Status.CONDITION_FAILED)
        if if_lock is not None:
            lock = self.held.get(if_lock[0])
            if lock is None or lock.revision != if_lock[1]:
                raise Refused(Status.CONDITION_FAILED)
        previous = []
        if rest.pop("previous", None) and before is not None:
            previous = [[before.value, before.revision, before.content_type]]
        existed = before is not None
        match op:
            case Op.DELETE:
                self.held.pop(key, None)
                return [self.index, existed, *previous]
            case Op.TOUCH:
                life = self._life(before, **rest)
                if before is None:
                    return [0, False]
                self.held[key] = attrs.evolve(before, expires_ms=life[0], lease=life[1])
                return [before.revision, True]
            case Op.PUT:
                value, kind = rest.pop("value"), rest.pop("content_type", None)
                self._set(key, value, kind, before, rest)
                return [self.index, existed, *previous]
            case Op.ADD:
                number = rest.pop("delta") + self._number(before)
                self._set(key, b"%d" % number, _kind(before, "text/plain"), before, rest)
                return [self.index, existed, number]
            case Op.APPEND:
                value = (before.value if before else b"") + rest.pop("data")
                self._set(key, value, _kind(before, None), before, rest)
                return [self.index, existed, len(value)]
            case Op.LOCK:
                return self._lock(key, rest.pop("owner"), before, rest)
        raise AssertionError(op)

    def _lock(
        self, key: bytes, owner: bytes, before: Held | None, rest: dict[str, Any]
    ) -> list[Any]:
        if before is None:
            self._set(key, owner, None, None, rest)
            return [self.index, True]
        expires_ms, lease = self._life(before, **rest)
        if before.value != owner:
            raise Refused(Status.LOCKED)
        self.held[key] = attrs.evolve(before, expires_ms=expires_ms, lease=lease)
        return [before.revision, False]

    def _set(
        self,
        key: bytes,
        value: bytes,
        kind: str | None,
        before: Held | None,
        rest: dict[str, Any],
    ) -> None:
        self.held[key] = Held(value, self.index, kind, *self._life(before, **rest))

    def _life(
        self, before: Held | None, ttl_ms: int | None = None, lease: int | None = None
    ) -> tuple[int, int]:
        if ttl_ms == KEEP:
            expires_ms = before.expires_ms if before else 0
            if lease is None:
                return expires_ms, before.lease if before else 0
        else:
            expires_ms = self.clock_ms + ttl_ms if ttl_ms else 0
        if lease is not None and lease not in self.leases:
            raise Refused(Status.LEASE_UNKNOWN)
        return expires_ms, lease or 0

    def _number(self, before: Held | None) -> int:
        if before is None:
            return 0
        try:
            return int(before.value.decode())
        except ValueError:
            raise Refused(Status.CONFLICT) from None


def _kind(before: Held | None, otherwise: str | None) -> str | None:
    return before.content_type if before else otherwise
