"""Requests: what a caller wants, checked, and how its reply is read.

One function per operation, for both clients and their pipelines. A write's
session fields are not here: ``krita.dispatch`` puts them in front.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from krita import values
from krita.errors import BadRequest
from krita.operations import (
    OPERATIONS,
    OPERATIONS_BY_NAME,
    Access,
    Consistency,
    Op,
    Operation,
    Route,
)
from krita.ring import META_SHARD, ShardMap

# The log executes these once per (session, sequence).
IN_SESSION = frozenset(code for code, row in OPERATIONS.items() if row.fields[:1] == ("session",))
_SESSION_FIELDS = ("session", "sequence", "acked_to")
# Writes outside a session whose repetition does no harm: a session too many, which
# expires, or what is the same when it is said twice. (Not SHARD_SPLIT: asked for again
# when it is done, it would split the half that is left.)
_HARMLESS = frozenset(
    {
        Op.SESSION_OPEN,
        Op.SESSION_KEEPALIVE,
        Op.NODE_SET,
        Op.NODE_LABEL,
        Op.SHARD_MOVE,
        Op.SHARD_HOLD,
        Op.MOVE_CANCEL,
    }
)

assert all(OPERATIONS[code].fields[:3] == _SESSION_FIELDS for code in IN_SESSION)


@attrs.define(eq=False)
class Request:
    """One operation, ready to be routed; immutable by convention."""

    op: int
    fields: tuple[object, ...]  # without the session fields
    read: Callable[[object], object]  # a good reply's body -> what the caller gets
    key: bytes | None = None  # routes by key
    shard: int | None = None  # routes by shard
    node: int | str | None = None  # goes to this node and no other
    spread: bool = False  # any replica of the shard will do

    @property
    def in_session(self) -> bool:
        """Whether the body begins with the session fields."""
        return self.op in IN_SESSION

    @property
    def write(self) -> bool:
        """Whether an attempt without an answer leaves a doubt."""
        return OPERATIONS[self.op].write

    @property
    def harmless(self) -> bool:
        """Whether it may be sent twice even without a session."""
        return not self.write or self.op in _HARMLESS


def get(key: str | bytes, consistency: Consistency | str = Consistency.LINEARIZABLE) -> Request:
    """-> Value | None"""
    key = values.key_bytes(key)
    level = values.consistency_code(consistency)
    stale = level is Consistency.STALE
    return Request(Op.GET, (key, int(level)), values.read_value, key, spread=stale)


def put(
    key: str | bytes,
    value: str | bytes | bytearray | memoryview,
    content_type: str | None = None,
    if_revision: int | None = None,
) -> Request:
    """-> PutResult"""
    key = values.key_bytes(key)
    if content_type is not None and not isinstance(content_type, str):
        raise BadRequest(f"content_type is text, not {type(content_type).__name__}")
    revision = values.check_revision(if_revision)
    fields = (key, values.value_bytes(value), content_type, revision)
    return Request(Op.PUT, fields, values.read_put, key)


def delete(key: str | bytes, if_revision: int | None = None) -> Request:
    """-> DeleteResult"""
    key = values.key_bytes(key)
    fields = (key, values.check_revision(if_revision))
    return Request(Op.DELETE, fields, values.read_delete, key)


def ping(node: int | str | None = None) -> Request:
    """-> Pong"""
    return Request(Op.PING, (), values.read_pong, node=node)


def shard_map() -> Request:
    """-> ShardMap"""
    return Request(Op.SHARD_MAP, (), ShardMap.from_wire)


def session_open(shard: int) -> Request:
    """-> the session's id"""
    return Request(Op.SESSION_OPEN, (shard,), values.read_session, shard=shard)


def any_operation(
    operation: str | int, fields: tuple[object, ...], node: int | str | None = None
) -> Request:
    """Any operation that clients may call -> its reply's elements.

    ``fields`` are those of the row in ``krita.operations`` without the session
    fields; trailing ones may be left out. Raises BadRequest for an operation that
    does not exist, is not for clients, or has fewer fields.
    """
    row = _row(operation)
    in_session = row.code in IN_SESSION
    names = row.fields[len(_SESSION_FIELDS) :] if in_session else row.fields
    if len(fields) > len(names):
        raise BadRequest(
            f"{row.name} has the fields {', '.join(names) or 'none'}; {fields!r} given"
        )
    given = dict(zip(names, fields, strict=False))
    key: bytes | None = None
    shard: int | None = None
    if row.route is Route.KEY:
        name_key = given.get("key")
        if not isinstance(name_key, (str, bytes)):
            raise BadRequest(f"{row.name} needs a key")
        key = values.key_bytes(name_key)
        fields = tuple(key if name == "key" else field for name, field in given.items())
    elif row.route is Route.SHARD:
        number = given.get("shard")
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadRequest(f"{row.name} needs a shard's number, not {number!r}")
        shard = number
    elif row.route is Route.META:
        shard = META_SHARD
    return Request(row.code, fields, values.read_list, key, shard, node)


def _row(operation: str | int) -> Operation:
    if isinstance(operation, str):
        row = OPERATIONS_BY_NAME.get(operation)
    else:
        row = OPERATIONS.get(operation)
    if row is None:
        raise BadRequest(f"there is no operation {operation!r}")
    if row.access in (Access.PEER, Access.LOG):
        raise BadRequest(f"{row.name} is not for clients")
    return row
