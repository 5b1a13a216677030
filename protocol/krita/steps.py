"""What transactions and bulks are made of: comparisons and steps, as values.

    from krita import steps

    db.txn(
        compare=[steps.revision("{shop}stock", "==", 7)],
        then=[steps.add("{shop}stock", -1), steps.put("{shop}order:1", "a hat")],
        otherwise=[steps.get("{shop}stock")],
    )
    db.bulk(steps.put(name, data) for name, data in rows)

Making one checks it, and raises BadRequest or TooLarge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita import checks, requests, values
from krita.errors import BadRequest
from krita.operations import KEEP_TTL, Compare, Op, Relation
from krita.parts import Comparison, Step

if TYPE_CHECKING:
    from krita.checks import Data, HasId, Key

__all__ = [
    "Comparison", "Step", "absent", "add", "append", "delete", "exists", "get", "put",
    "revision", "touch", "value",
]  # fmt: skip

_RELATIONS = {
    "==": Relation.EQUAL,
    "!=": Relation.UNEQUAL,
    "<": Relation.LESS,
    ">": Relation.GREATER,
}


def revision(key: Key, relation: str, operand: int) -> Comparison:
    """The key's revision is ``==``, ``!=``, ``<`` or ``>`` this; an absent key has 0."""
    number = checks.count(operand, "a revision")
    return Comparison(checks.key_bytes(key), Compare.REVISION, _relation(relation), number or 0)


def value(key: Key, relation: str, operand: Data | None) -> Comparison:
    """The key's value, byte by byte, is ``==``, ``!=``, ``<`` or ``>`` this; an absent key
    has None, which is less than any value."""
    data = None if operand is None else checks.value_bytes(operand)
    return Comparison(checks.key_bytes(key), Compare.VALUE, _relation(relation), data)


def exists(key: Key) -> Comparison:
    """The key has a value."""
    return revision(key, "!=", 0)


def absent(key: Key) -> Comparison:
    """The key has none."""
    return revision(key, "==", 0)


def get(key: Key) -> Step:
    """Its result is a Value, or None."""
    name = checks.key_bytes(key)
    return Step(Op.GET, name, (), values.read_value, lambda: requests.get(name))


def put(
    key: Key,
    data: Data,
    *,
    content_type: str | None = None,
    ttl_ms: int | None = None,
    lease: int | HasId | None = None,
) -> Step:
    """Its result is a PutResult."""
    whole = requests.put(key, data, content_type, ttl_ms=ttl_ms, lease=lease)
    assert whole.key is not None
    fields = (*whole.fields[1:3], ttl_ms, checks.lease_id(lease))
    return Step(Op.PUT, whole.key, fields, values.read_put, lambda: whole)


def delete(key: Key) -> Step:
    """Its result is a DeleteResult."""
    name = checks.key_bytes(key)
    return Step(Op.DELETE, name, (), values.read_delete, lambda: requests.delete(name))


def add(
    key: Key, delta: int, *, ttl_ms: int | None = KEEP_TTL, lease: int | HasId | None = None
) -> Step:
    """Its result is an AddResult."""
    whole = requests.add(key, delta, ttl_ms=ttl_ms, lease=lease)
    assert whole.key is not None
    fields = (delta, ttl_ms, checks.lease_id(lease))
    return Step(Op.ADD, whole.key, fields, values.read_add, lambda: whole)


def append(
    key: Key, data: Data, *, ttl_ms: int | None = KEEP_TTL, lease: int | HasId | None = None
) -> Step:
    """Its result is an AppendResult."""
    whole = requests.append(key, data, ttl_ms=ttl_ms, lease=lease)
    assert whole.key is not None
    fields = (whole.fields[1], ttl_ms, checks.lease_id(lease))
    return Step(Op.APPEND, whole.key, fields, values.read_append, lambda: whole)


def touch(key: Key, ttl_ms: int | None, *, lease: int | HasId | None = None) -> Step:
    """Its result is a TouchResult."""
    whole = requests.touch(key, ttl_ms, lease=lease)
    assert whole.key is not None
    return Step(
        Op.TOUCH,
        whole.key,
        (ttl_ms, checks.lease_id(lease)),
        values.read_touch,
        lambda: whole,
    )


def _relation(relation: str) -> Relation:
    known = _RELATIONS.get(relation) if isinstance(relation, str) else None
    if known is None:
        raise BadRequest(f"things compare by {', '.join(_RELATIONS)}, not by {relation!r}")
    return known
