"""A request: what a caller wants, and how its reply is read. And any operation as one.

A write's session fields are not in a request: ``krita.dispatch`` puts them in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
from cbor2 import CBOREncodeError

from krita.checks import key_bytes, plain
from krita.checks import node as node_of
from krita.codec import encode
from krita.errors import BadRequest
from krita.operations import (
    OPERATIONS,
    OPERATIONS_BY_NAME,
    Access,
    Op,
    Operation,
    Route,
)
from krita.ring import META_SHARD
from krita.values import read_list

T = TypeVar("T")

# The log executes these once per (session, sequence).
IN_SESSION = frozenset(code for code, row in OPERATIONS.items() if row.fields[:1] == ("session",))
_SESSION_FIELDS = ("session", "sequence", "acked_to")
_NO_CBOR = (CBOREncodeError, ValueError, TypeError, RuntimeError)  # recursion among them
# What the asked node makes of them are writes to all shards.
_OF_ALL_SHARDS = frozenset({Op.LEASE_GRANT, Op.LEASE_KEEPALIVE, Op.LEASE_REVOKE, Op.RETENTION_SET})
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
        *_OF_ALL_SHARDS,
    }
)
_PATIENCE_MS_MAX = 60_000  # no node lets a request wait for longer

assert all(OPERATIONS[code].fields[:3] == _SESSION_FIELDS for code in IN_SESSION)


@attrs.define(eq=False)
class Request(Generic[T]):
    """One operation, ready to be routed; immutable by convention."""

    op: int
    fields: tuple[object, ...]  # without the session fields
    read: Callable[[object], T]  # a good reply's body -> what the caller gets
    key: bytes | None = None  # routes by key
    shard: int | None = None  # routes by shard
    node: int | str | None = None  # goes to this node and no other
    spread: bool = False  # any replica of the shard will do
    # How long the node may let it wait on purpose. Neither the time of an attempt nor the
    # caller's timeout count it.
    patience_s: float = 0.0

    def encode(self, *session: int) -> bytes:
        """Its body, behind the session fields if it has some. Raises BadRequest for what
        cannot be said in CBOR."""
        try:
            return encode((*session, *self.fields))
        except _NO_CBOR as error:
            name = OPERATIONS[self.op].name
            raise BadRequest(f"{name} cannot be sent: {error}") from error

    @property
    def value_bytes(self) -> int:
        """The bytes among its fields: what makes it large, if it is."""
        return sum(len(field) for field in self.fields if type(field) is bytes)

    @property
    def in_session(self) -> bool:
        """Whether the body begins with the session fields."""
        return self.op in IN_SESSION

    @property
    def write(self) -> bool:
        """Whether an attempt without an answer leaves a doubt."""
        return OPERATIONS[self.op].write or self.op in _OF_ALL_SHARDS

    @property
    def harmless(self) -> bool:
        """Whether it may be sent twice even without a session."""
        return not self.write or self.op in _HARMLESS


def any_operation(
    operation: str | int, fields: tuple[object, ...], node: int | str | None = None
) -> Request[list[Any]]:
    """Any operation that clients may call -> its reply's elements.

    ``fields`` are those of the row in ``krita.operations`` without the session
    fields; trailing ones may be left out. Raises BadRequest for an operation that
    does not exist, is not for clients, or has fewer fields, and for a field that
    cannot be said in CBOR.
    """
    row = _row(operation)
    in_session = row.code in IN_SESSION
    names = row.fields[len(_SESSION_FIELDS) :] if in_session else row.fields
    if len(fields) > len(names):
        raise BadRequest(
            f"{row.name} has the fields {', '.join(names) or 'none'}; {fields!r} given"
        )
    given = dict(zip(names, fields, strict=False))
    for name, field in given.items():
        plain(field, name)
    key: bytes | None = None
    shard: int | None = None
    if row.route is Route.KEY:
        name_key = given.get("key")
        if not isinstance(name_key, (str, bytes)):
            raise BadRequest(f"{row.name} needs a key")
        key = key_bytes(name_key)
        fields = tuple(key if name == "key" else field for name, field in given.items())
    elif row.route is Route.SHARD:
        number = given.get("shard")
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadRequest(f"{row.name} needs a shard's number, not {number!r}")
        shard = number
    elif row.route is Route.META:
        shard = META_SHARD
    patience_s = patience(given.get("wait_ms"))
    return Request(row.code, fields, read_list, key, shard, node_of(node), patience_s=patience_s)


def patience(wait_ms: object) -> float:
    """The seconds for which a node is asked to wait; what is no number is for it to refuse."""
    if not isinstance(wait_ms, int) or wait_ms < 0:
        return 0.0
    return min(wait_ms, _PATIENCE_MS_MAX) / 1000


def _row(operation: str | int) -> Operation:
    if isinstance(operation, str):
        row = OPERATIONS_BY_NAME.get(operation)
    else:
        row = OPERATIONS.get(operation) if isinstance(operation, int) else None
    if row is None:
        raise BadRequest(f"there is no operation {operation!r}")
    if row.access in (Access.PEER, Access.LOG):
        raise BadRequest(f"{row.name} is not for clients")
    return row
