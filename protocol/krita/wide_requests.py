"""Requests that concern ranges of keys, shards, leases or the cluster: one function each."""

from __future__ import annotations

from typing import Any

from krita import checks, items
from krita.errors import BadRequest
from krita.limits import TTL_MS_MAX
from krita.operations import Op, What
from krita.request import Request, patience
from krita.ring import ShardMap
from krita.values import read_list

_NOTHING = b"\0"  # a range from here to here has no keys


def ping(node: int | str | None = None) -> Request[items.Pong]:
    """-> Pong"""
    return Request(Op.PING, (), items.read_pong, node=checks.node(node))


def shard_map() -> Request[ShardMap]:
    """-> ShardMap"""
    return Request(Op.SHARD_MAP, (), ShardMap.from_wire)


def session_open(shard: int) -> Request[int]:
    """-> the session's id"""
    return Request(Op.SESSION_OPEN, (shard,), items.read_session, shard=shard)


def scan(
    start: bytes | None, stop: bytes | None, limit: int, reverse: bool, keys_only: bool
) -> Request[items.Page]:
    """-> Page: at most ``limit`` keys from ``start`` on and below ``stop``"""
    what = What.KEYS if keys_only else What.ROWS
    return Request(Op.SCAN, (start, stop, limit, reverse, int(what)), items.read_page)


def count(start: bytes | None, stop: bytes | None) -> Request[int]:
    """-> the number of keys from ``start`` on and below ``stop``"""
    return Request(Op.SCAN, (start, stop, None, False, int(What.COUNT)), items.read_count)


def place(shard: int) -> Request[list[Any]]:
    """-> [[], null, shard_revision, hash_lo, hash_hi]: how far a shard is, and which arc
    it has. A scan of no keys, of which both come from one moment."""
    fields = (shard, _NOTHING, _NOTHING, 1, False, int(What.KEYS))
    return Request(Op.SHARD_SCAN, fields, read_list, shard=shard)


def changes(
    shard: int,
    after: int,
    start: bytes | None,
    stop: bytes | None,
    wait_ms: int,
    node: int | None = None,
) -> Request[list[Any]]:
    """-> [events, revision, oldest], as soon as there are events or ``wait_ms`` are over"""
    fields = (shard, after, start, stop, None, wait_ms)
    wait_s = patience(wait_ms)
    return Request(Op.CHANGES, fields, read_list, shard=shard, node=node, patience_s=wait_s)


def lease_grant(ttl_ms: int, lease: int) -> Request[int]:
    """-> the lease's id. The caller has drawn it, so that a repetition is the same lease."""
    if checks.ttl(ttl_ms) is None or ttl_ms < 0:
        raise BadRequest("a lease has a ttl_ms: when it ends unless it is kept alive")
    return Request(Op.LEASE_GRANT, (ttl_ms, checks.lease_id(lease)), items.read_grant)


def lease_keepalive(lease: int) -> Request[int]:
    """-> its ttl_ms"""
    return Request(Op.LEASE_KEEPALIVE, (checks.lease_id(lease),), items.read_number)


def lease_revoke(lease: int) -> Request[int]:
    """-> how many keys have ended with it"""
    return Request(Op.LEASE_REVOKE, (checks.lease_id(lease),), items.read_number)


def lease_show(lease: int) -> Request[items.LeaseInfo]:
    """-> LeaseInfo"""
    return Request(Op.LEASE_SHOW, (checks.lease_id(lease),), items.read_lease)


def retention_set(prefix: str | bytes, retention_ms: int) -> Request[None]:
    """-> None"""
    name = checks.prefix_bytes(prefix)
    if type(retention_ms) is not int or not 0 <= retention_ms <= TTL_MS_MAX:
        raise BadRequest(f"retention_ms is a number of milliseconds, not {retention_ms!r}")
    return Request(Op.RETENTION_SET, (name, retention_ms), items.read_nothing)


def retention_list() -> Request[list[items.RetentionRule]]:
    """-> list of RetentionRule"""
    return Request(Op.RETENTION_LIST, (), items.read_retentions)
