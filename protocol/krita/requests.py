"""Requests that concern one key: one function each, for both clients and their pipelines.

What ranges, shards and the whole cluster are asked for is in ``krita.wide_requests``.
A field that is not used is left out at the end of a body, so that what is sent for a plain
put is what it has always been, and the node's shortest way through.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from krita import checks, values
from krita.errors import BadRequest
from krita.operations import KEEP_TTL, Consistency, Op
from krita.parts import Comparison, Step
from krita.request import IN_SESSION, Request, any_operation
from krita.wide_requests import ping, session_open, shard_map

if TYPE_CHECKING:
    from krita.checks import Data, HasId, HasToken, Key

__all__ = [
    "IN_SESSION", "Request", "add", "any_operation", "append", "delete", "get", "history",
    "lock", "ping", "put", "session_open", "shard_map", "touch", "txn",
]  # fmt: skip

_LINEARIZABLE = Consistency.LINEARIZABLE  # spares what looking up a member costs


def get(
    key: Key,
    consistency: Consistency | str | None = None,
    *,
    staleness_ms_max: int | None = None,
    revision_min: int | None = None,
    at_revision: int | None = None,
    at: datetime | int | None = None,
) -> Request[values.Value | None]:
    """-> Value | None. 1.5 µs without bounds and times, and 3 with them."""
    key = checks.key_bytes(key)
    if staleness_ms_max is None and revision_min is None and at_revision is None and at is None:
        level = _LINEARIZABLE if consistency is None else checks.consistency_code(consistency)
        stale = level is Consistency.STALE
        return Request(Op.GET, (key, int(level)), values.read_value, key, spread=stale)
    bounds = (
        checks.count(staleness_ms_max, "staleness_ms_max"),
        checks.count(revision_min, "revision_min"),
    )
    bounded = bounds != (None, None)
    then = (
        checks.count(at_revision, "at_revision", 1),
        None if at is None else checks.time_ms(at),
    )
    past = then != (None, None)
    if (bounded and past) or None not in then:
        raise BadRequest("a read is of one moment: bounded, at_revision or at")
    if consistency is None:
        level = Consistency.STALE if bounded else Consistency.LINEARIZABLE
    else:
        level = checks.consistency_code(consistency)
    stale = level is Consistency.STALE
    if bounded and not stale:
        raise BadRequest("a linearizable read misses nothing, and needs no bounds")
    fields = _trimmed((key, int(level), *bounds, *then), 2)
    return Request(Op.GET, fields, values.read_value, key, spread=stale and not past)


def put(
    key: Key,
    value: Data,
    content_type: str | None = None,
    if_revision: int | None = None,
    *,
    if_absent: bool = False,
    ttl_ms: int | None = None,
    lease: int | HasId | None = None,
    if_lock: tuple[Key, int] | HasToken | None = None,
    idempotency: str | bytes | None = None,
    previous: bool = False,
) -> Request[values.PutResult]:
    """-> PutResult. 1.5 µs for a plain one, and 4 with all that it may have."""
    key = checks.key_bytes(key)
    revision = checks.condition(if_revision, if_absent)
    fields = (key, checks.value_bytes(value), checks.content_type(content_type), revision)
    guarded = if_lock is not None or idempotency is not None
    if ttl_ms is None and lease is None and not guarded and not previous:
        return Request(Op.PUT, fields, values.read_put, key)
    more = (*_life(ttl_ms, lease), *_guard(if_lock, idempotency), previous or None)
    return Request(Op.PUT, _trimmed((*fields, *more), 4), values.read_put, key)


def delete(
    key: Key,
    if_revision: int | None = None,
    *,
    if_lock: tuple[Key, int] | HasToken | None = None,
    idempotency: str | bytes | None = None,
    previous: bool = False,
) -> Request[values.DeleteResult]:
    """-> DeleteResult"""
    key = checks.key_bytes(key)
    revision = checks.check_revision(if_revision)
    if if_lock is None and idempotency is None and not previous:
        return Request(Op.DELETE, (key, revision), values.read_delete, key)
    fields = (key, revision, *_guard(if_lock, idempotency), previous or None)
    return Request(Op.DELETE, _trimmed(fields, 2), values.read_delete, key)


def add(
    key: Key,
    delta: int,
    *,
    if_revision: int | None = None,
    ttl_ms: int | None = KEEP_TTL,
    lease: int | HasId | None = None,
    if_lock: tuple[Key, int] | HasToken | None = None,
    idempotency: str | bytes | None = None,
) -> Request[values.AddResult]:
    """-> AddResult"""
    key = checks.key_bytes(key)
    revision = checks.check_revision(if_revision)
    more = (*_life(ttl_ms, lease), *_guard(if_lock, idempotency))
    fields = (key, whole(delta), revision, *more)
    return Request(Op.ADD, _trimmed(fields, 2), values.read_add, key)


def append(
    key: Key,
    data: Data,
    *,
    if_revision: int | None = None,
    ttl_ms: int | None = KEEP_TTL,
    lease: int | HasId | None = None,
    if_lock: tuple[Key, int] | HasToken | None = None,
    idempotency: str | bytes | None = None,
) -> Request[values.AppendResult]:
    """-> AppendResult"""
    key = checks.key_bytes(key)
    revision = checks.check_revision(if_revision)
    more = (*_life(ttl_ms, lease), *_guard(if_lock, idempotency))
    fields = (key, checks.value_bytes(data), revision, *more)
    return Request(Op.APPEND, _trimmed(fields, 2), values.read_append, key)


def touch(
    key: Key,
    ttl_ms: int | None,
    *,
    if_revision: int | None = None,
    lease: int | HasId | None = None,
    if_lock: tuple[Key, int] | HasToken | None = None,
    idempotency: str | bytes | None = None,
) -> Request[values.TouchResult]:
    """-> TouchResult"""
    key = checks.key_bytes(key)
    revision = checks.check_revision(if_revision)
    fields = (key, revision, *_life(ttl_ms, lease), *_guard(if_lock, idempotency))
    return Request(Op.TOUCH, _trimmed(fields, 2), values.read_touch, key)


def lock(
    key: Key,
    owner: str | bytes,
    ttl_ms: int | None,
    *,
    lease: int | HasId | None = None,
    idempotency: str | bytes | None = None,
) -> Request[values.LockResult]:
    """-> LockResult"""
    key, name = checks.key_bytes(key), checks.owner_bytes(owner)
    if ttl_ms is None and lease is None:
        raise BadRequest(
            "a lock without a ttl_ms or a lease would outlive its owner",
            hint="give it a ttl_ms, and renew it",
        )
    fields = (key, name, *_life(ttl_ms, lease), checks.idempotency_bytes(idempotency))
    return Request(Op.LOCK, _trimmed(fields, 4), values.read_lock, key)


def txn(
    compare: Iterable[Comparison],
    then: Iterable[Step],
    otherwise: Iterable[Step],
    *,
    idempotency: str | bytes | None = None,
) -> Request[values.TxnResult]:
    """-> TxnResult"""
    # Gone through several times here, which a generator cannot be: its comparisons, say, would
    # be left out, and the writes would happen.
    compare = checks.made_list(compare, Comparison, "compare")
    then = checks.made_list(then, Step, "then")
    otherwise = checks.made_list(otherwise, Step, "otherwise")
    keys = [one.key for one in compare] + [one.key for one in (*then, *otherwise)]
    if not keys:
        raise BadRequest("the transaction names no key")
    compared = [one.to_wire() for one in compare]
    steps = [[one.to_wire() for one in part] for part in (then, otherwise)]
    fields = (keys[0], compared, *steps, checks.idempotency_bytes(idempotency))
    read = values.txn_reader([one.read for one in then], [one.read for one in otherwise])
    return Request(Op.TXN, _trimmed(fields, 4), read, keys[0])


def history(
    key: Key, limit: int | None = None, before: int | None = None
) -> Request[values.History]:
    """-> History: at most ``limit`` versions, those that ended at or before ``before``."""
    key = checks.key_bytes(key)
    fields = (key, checks.count(limit, "limit", 1), checks.count(before, "before"))
    return Request(Op.KEY_HISTORY, _trimmed(fields, 1), values.read_history, key)


def whole(delta: int) -> int:
    """What is added. Raises BadRequest for what is no whole number of 63 bits."""
    if type(delta) is not int or not -(1 << 63) < delta < 1 << 63:
        raise BadRequest(f"what is added is a whole number of 63 bits, not {delta!r}")
    return delta


def _life(ttl_ms: int | None, lease: int | HasId | None) -> tuple[int | None, int | None]:
    return checks.ttl(ttl_ms), checks.lease_id(lease)


def _guard(
    if_lock: tuple[Key, int] | HasToken | None, idempotency: str | bytes | None
) -> tuple[object, object]:
    return checks.held_lock(if_lock), checks.idempotency_bytes(idempotency)


def _trimmed(fields: tuple[object, ...], least: int) -> tuple[object, ...]:
    """Without the nulls at the end, which mean the same; but that many fields."""
    last = len(fields)
    while last > least and fields[last - 1] is None:
        last -= 1
    return fields[:last]
