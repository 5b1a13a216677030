"""What is not of one key: pages of a scan, leases, retentions, nodes; and their replies.

The readers raise ProtocolError for anything malformed.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from krita.errors import BadRequest, ProtocolError
from krita.values import Value, moment


@attrs.frozen
class Item:
    """A key as a scan has found it."""

    key: bytes
    data: bytes | None  # None: only keys were asked for
    revision: int
    content_type: str | None
    expires_in_ms: int | None = None  # None: it has no deadline of its own
    lease: int | None = None  # with which it ends

    def text(self) -> str:
        """The data as UTF-8 text. Raises UnicodeDecodeError if it is none, and BadRequest when
        only keys were asked for."""
        if self.data is None:
            raise BadRequest("the scan asked for keys only", hint="leave keys_only out")
        return self.data.decode()


@attrs.frozen
class Page:
    """One answer of a scan."""

    items: tuple[Item, ...]
    next: bytes | None  # where to go on: the start of the next page, in reverse its stop


@attrs.frozen
class LeaseInfo:
    """What the cluster knows of a lease."""

    ttl_ms: int  # how long it lasts when it is kept alive
    left_ms: int  # how long it lasts if it is not
    keys: tuple[bytes, ...]  # that end with it; at most a thousand of each shard


@attrs.frozen
class RetentionRule:
    """For how long the old versions of a prefix's keys are kept."""

    prefix: bytes
    retention_ms: int
    since_ms: int  # every change behind this moment is known

    def __str__(self) -> str:
        since = moment(self.since_ms).isoformat(timespec="seconds")
        return f"{self.prefix!r}: {self.retention_ms} ms, since {since}"


@attrs.frozen
class Pong:
    """What a node says of itself."""

    node: int
    cluster_id: str  # hexadecimal
    version: str
    clock_ms: int  # its wall clock, milliseconds since 1970


@attrs.frozen
class Explanation:
    """Where a key is, and who answers for it."""

    key: bytes
    tag: bytes  # the part of the key that places it
    place: int  # on the ring, 0 to 2**32 - 1
    shard: int
    leader: int  # the node that answers; 0: none is known
    address: str | None  # where that is
    term: int  # of its leadership
    nodes: Mapping[int, str]  # that have the key: id -> "host:port"


@attrs.frozen
class Difference:
    """A key at two moments."""

    key: bytes
    before: Value | None
    after: Value | None

    @property
    def changed(self) -> bool:
        """Whether the two differ in data or content type."""
        return self._told(self.before) != self._told(self.after)

    @staticmethod
    def _told(value: Value | None) -> tuple[bytes, str | None] | None:
        return None if value is None else (value.data, value.content_type)


def read_page(body: object) -> Page:
    """The reply of ``scan``. Raises ProtocolError."""
    match body:
        case [list(rows), bytes() | None as edge, *_]:
            return Page(tuple(map(_item, rows)), edge)
    raise ProtocolError("the reply to scan is malformed")


def _item(row: object) -> Item:
    match row:
        case [
            bytes(key), bytes() | None as data, int(revision), str() | None as content_type, *bond,
        ]:  # fmt: skip
            match [*bond, None, None][:2]:
                case [int() | None as expires_in_ms, int() | None as lease]:
                    return Item(key, data, revision, content_type, expires_in_ms, lease)
    raise ProtocolError("a row of the reply to scan is malformed")


def read_count(body: object) -> int:
    """The reply of a ``scan`` that counts. Raises ProtocolError."""
    match body:
        case [int(count), *_]:
            return count
    raise ProtocolError("the reply to scan is malformed")


def read_grant(body: object) -> int:
    """The reply of ``lease_grant``: the lease's id. Raises ProtocolError."""
    match body:
        case [int(lease), int(), *_]:
            return lease
    raise ProtocolError("the reply to lease_grant is malformed")


def read_number(body: object) -> int:
    """A reply that is one number. Raises ProtocolError."""
    match body:
        case [int(number), *_]:
            return number
    raise ProtocolError("the reply is not a number")


def read_lease(body: object) -> LeaseInfo:
    """The reply of ``lease_show``. Raises ProtocolError."""
    match body:
        case [int(ttl_ms), int(left_ms), list(keys), *_] if all(type(k) is bytes for k in keys):
            return LeaseInfo(ttl_ms, left_ms, tuple(keys))
    raise ProtocolError("the reply to lease_show is malformed")


def read_retentions(body: object) -> list[RetentionRule]:
    """The reply of ``retention_list``. Raises ProtocolError."""
    match body:
        case [list(rules), *_]:
            return [_rule(rule) for rule in rules]
    raise ProtocolError("the reply to retention_list is malformed")


def _rule(item: object) -> RetentionRule:
    match item:
        case [bytes(prefix), int(retention_ms), int(since_ms), *_]:
            return RetentionRule(prefix, retention_ms, since_ms)
    raise ProtocolError("a rule of the reply to retention_list is malformed")


def read_nothing(_body: object) -> None:
    """A reply that says no more than that it is done."""


def read_pong(body: object) -> Pong:
    """The reply of ``ping``. Raises ProtocolError."""
    match body:
        case [int(node), bytes(cluster_id), str(version), int(clock_ms), *_]:
            return Pong(node, cluster_id.hex(), version, clock_ms)
    raise ProtocolError("the reply to ping is malformed")


def read_session(body: object) -> int:
    """The reply of ``session_open``. Raises ProtocolError."""
    match body:
        case [int(session), *_] if session > 0:
            return session
    raise ProtocolError("the reply to session_open is malformed")
