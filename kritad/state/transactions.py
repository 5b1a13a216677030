"""A transaction: comparisons, and what is done if they hold or if they do not, in one step.

All verbs are decided one after the other on a ``Draft`` of the keys they touch, each seeing
what those before it would do. Only when the last of them has been decided is anything
done. So a transaction happens as a whole or, when one of its verbs is refused, not at
all, and then its reply is the refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from krita.errors import BadRequest, Status
from krita.limits import TXN_OPERATIONS_MAX
from krita.operations import Compare, Op, Relation
from kritad.state.verbs import (
    VERBS,
    Action,
    Effect,
    Refusal,
    Reply,
    Sight,
    bytes_max_of,
    decide,
)
from kritad.storage.rows import Row, Stamp

_OK = int(Status.OK)
_RELATION_MAX = max(Relation)
_UNKNOWN_DIGEST = 0  # a draft's rows are never stored as they are

# Where each verb's fields stand among those that a transaction writes:
# [op, key, ...] to the fields from the key on as the verb wants them.
_SHAPES: dict[int, tuple[str, ...]] = {
    Op.PUT: ("value", "content_type", "ttl_ms", "lease"),
    Op.DELETE: (),
    Op.ADD: ("delta", "ttl_ms", "lease"),
    Op.APPEND: ("data", "ttl_ms", "lease"),
    Op.TOUCH: ("ttl_ms", "lease"),
    Op.GET: (),
}
_READING = (Op.GET, Op.ADD, Op.APPEND)  # what looks at the value


@attrs.frozen
class Transaction:
    """What a TXN entry says."""

    compare: list[list[object]]
    then: list[list[object]]
    otherwise: list[list[object]]
    value_bytes_max: object

    @classmethod
    def parse(cls, fields: Sequence[object]) -> Transaction:
        """Of the fields behind ``key``. Raises BadRequest."""
        compare, then, otherwise, _, bytes_max, *_ = fields
        ifs, thens, elses = _rows(compare), _rows(then), _rows(otherwise)
        if len(ifs) + len(thens) + len(elses) > TXN_OPERATIONS_MAX:
            raise BadRequest(
                f"txn: at most {TXN_OPERATIONS_MAX} comparisons and operations together"
            )
        for row in ifs:
            _check_comparison(row)
        for row in thens + elses:
            _check_operation(row)
        return cls(ifs, thens, elses, bytes_max)

    @property
    def keys(self) -> list[bytes]:
        """Every key that it names, also on the side that is not taken."""
        named = [row[0] for row in self.compare]
        named += [row[1] for row in self.then + self.otherwise]
        return named  # type: ignore[return-value]

    @property
    def keys_to_read(self) -> set[bytes]:
        """Those whose values count, and not just whether and since when they are there."""
        named = [row[0] for row in self.compare if row[1] == Compare.VALUE]
        named += [row[1] for row in self.then + self.otherwise if row[0] in _READING]
        return set(named)  # type: ignore[arg-type]

    @property
    def writes(self) -> bool:
        """Whether either side would change anything."""
        return any(row[0] != Op.GET for row in self.then + self.otherwise)

    def decide(self, sight: Sight, index: int) -> tuple[list[Effect], Reply]:
        """What is to be done, in order, and the answer. Raises BadRequest."""
        draft = Draft(sight, index)
        succeeded = all(_holds(row, sight) for row in self.compare)
        results: list[object] = []
        for row in self.then if succeeded else self.otherwise:
            status, values = self._one(row, draft, index)
            if status != _OK:
                return [], (status, [*values])
            results.append(values)
        return draft.effects, (_OK, [index, int(succeeded), results])

    def _one(self, row: list[object], draft: Draft, index: int) -> Reply:
        op, key, *rest = row
        if op == Op.GET:
            assert type(key) is bytes
            found = draft.get(key)
            if found is None:
                return _OK, [None, 0, None]
            draft.read_bytes += len(found.value)
            if draft.read_bytes > bytes_max_of(self.value_bytes_max):
                return int(Status.CONFLICT), [int(Refusal.VALUE_TOO_LARGE)]
            return _OK, [found.value, found.revision, found.content_type]
        assert type(op) is int
        given = dict(zip(_SHAPES[op], rest, strict=False))
        effect, reply = decide(VERBS[op], draft, self._fields(op, key, given), index)
        if effect is not None:
            draft.do(effect)
        return reply

    def _fields(self, op: int, key: object, given: dict[str, object]) -> list[object]:
        """As the verb's docstring names them: no conditions of their own."""
        life = [given.get("ttl_ms"), given.get("lease")]
        if op == Op.PUT:
            return [
                key, given.get("value"), given.get("content_type"), None, *life, None, None, None,
            ]  # fmt: skip
        if op == Op.DELETE:
            return [key, None, None, None, None]
        if op == Op.ADD:
            return [key, given.get("delta"), None, *life, None, None]
        if op == Op.APPEND:
            return [key, given.get("data"), None, *life, None, None, self.value_bytes_max]
        return [key, None, *life, None, None]


class Draft:
    """The keys as they would be after the verbs decided so far: a Sight."""

    def __init__(self, sight: Sight, index: int) -> None:
        self._sight = sight
        self._index = index
        self._rows: dict[bytes, Row | None] = {}
        self.clock_ms = sight.clock_ms
        self.effects: list[Effect] = []
        self.read_bytes = 0  # of the values that are to be answered: together no more than one

    def get(self, key: bytes) -> Row | None:
        """See Sight."""
        return self._rows[key] if key in self._rows else self._sight.get(key)

    def stamp(self, key: bytes) -> Row | Stamp | None:
        """See Sight."""
        return self._rows[key] if key in self._rows else self._sight.stamp(key)

    def bond(self, key: bytes) -> tuple[int, int]:
        """See Sight."""
        if key not in self._rows:
            return self._sight.bond(key)
        row = self._rows[key]
        return (0, 0) if row is None else (row.expires_ms, row.lease)

    def lease_is_alive(self, lease: int) -> bool:
        """See Sight."""
        return self._sight.lease_is_alive(lease)

    def owns(self, key: bytes) -> bool:
        """See Sight."""
        return self._sight.owns(key)

    def do(self, effect: Effect) -> None:
        """Decided: what follows sees it."""
        self.effects.append(effect)
        key, expires_ms, lease = effect.key, effect.expires_ms, effect.lease
        if effect.action is Action.DELETE:
            self._rows[key] = None
        elif effect.action is Action.PUT:
            self._rows[key] = Row(
                self._index, effect.value, effect.content_type, _UNKNOWN_DIGEST, expires_ms, lease
            )
        else:
            row = self.get(key)
            assert row is not None, effect
            self._rows[key] = attrs.evolve(row, expires_ms=expires_ms, lease=lease)


def _rows(part: object) -> list[list[object]]:
    if part is None:
        return []
    if not isinstance(part, list) or not all(isinstance(row, list) for row in part):
        raise BadRequest("txn: compare, then and otherwise are arrays of arrays, or null")
    return part


def _check_comparison(row: list[object]) -> None:
    match row:
        case [bytes(key), Compare.REVISION, int(relation), int(revision), *_] if (
            key and 0 <= relation <= _RELATION_MAX and type(revision) is int and revision >= 0
        ):
            return
        case [bytes(key), Compare.VALUE, int(relation), bytes() | None, *_] if (
            key and 0 <= relation <= _RELATION_MAX
        ):
            return
    raise BadRequest("txn: a comparison is [key, what, relation, operand]")


def _check_operation(row: list[object]) -> None:
    match row:
        case [int(op), bytes(key), *rest] if key and op in _SHAPES and type(op) is int:
            if len(rest) <= len(_SHAPES[op]):
                return
    raise BadRequest("txn: an operation is [op, key, ...]: get, put, delete, add, append, touch")


def _holds(row: list[object], sight: Sight) -> bool:
    key, what, relation, operand = row[:4]
    assert type(key) is bytes
    held: object
    if what == Compare.REVISION:
        stamp = sight.stamp(key)
        held = 0 if stamp is None else stamp.revision
    else:
        found = sight.get(key)
        held = None if found is None else found.value
    if relation == Relation.EQUAL:
        return held == operand
    if relation == Relation.UNEQUAL:
        return held != operand
    first, second = (held, operand) if relation == Relation.LESS else (operand, held)
    if first is None or second is None:
        return first is None and second is not None
    return first < second  # type: ignore[no-any-return, operator]
