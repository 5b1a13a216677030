"""What becomes of a key: what reads and writes of it return, and how their replies are read.

The readers raise ProtocolError for anything malformed: what comes from the network is
checked before anybody relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import attrs

from krita.errors import ProtocolError


@attrs.frozen
class Value:
    """A key's value as it was read."""

    data: bytes
    revision: int  # of the write that set it; what if_revision compares with
    content_type: str | None
    shard_revision: int  # how far the shard had come when it was read
    staleness_ms: int  # 0 for a linearizable read
    expires_in_ms: int | None = None  # None: it has no deadline of its own
    lease: int | None = None  # with which it ends

    def text(self) -> str:
        """The data as UTF-8 text. Raises UnicodeDecodeError if it is none."""
        return self.data.decode()


@attrs.frozen
class PutResult:
    """What a put did."""

    revision: int  # the key's revision from now on
    existed: bool  # whether the key had a value before
    previous: Value | None = None  # that value, if it was asked for


@attrs.frozen
class DeleteResult:
    """What a delete did."""

    revision: int  # at which the key went; the shard's revision
    existed: bool  # whether there was anything to remove
    previous: Value | None = None  # what was removed, if it was asked for


@attrs.frozen
class AddResult:
    """What an add did."""

    revision: int
    existed: bool
    number: int  # the sum


@attrs.frozen
class AppendResult:
    """What an append did."""

    revision: int
    existed: bool
    value_bytes: int  # how long the value is now


@attrs.frozen
class TouchResult:
    """What a touch did."""

    revision: int  # the key's, which stays; 0: there is no such key
    existed: bool


@attrs.frozen
class LockResult:
    """What a lock did."""

    token: int  # the lock's revision: higher than any of an earlier holder
    acquired: bool  # False: it was held by the same owner, and is for longer now


@attrs.frozen
class Leader:
    """Who has been elected."""

    name: bytes
    token: int  # of its leadership: higher than that of any leader before

    def text(self) -> str:
        """The name as UTF-8 text. Raises UnicodeDecodeError if it is none."""
        return self.name.decode()


# What an operation of a transaction or a bulk has done.
StepResult: TypeAlias = Value | PutResult | DeleteResult | AddResult | AppendResult | TouchResult


@attrs.frozen
class TxnResult:
    """What a transaction did. Of one over several groups nobody knows the revisions of its
    writes when it is answered: they are 0, here and in ``results``."""

    revision: int
    succeeded: bool  # whether all comparisons held: `then` was done, else `otherwise`
    results: tuple[StepResult | None, ...]  # of each of its steps; a get's is a Value or None


@attrs.frozen
class Version:
    """What a key was for some time."""

    revision: int  # of the write that set it; of an absence: where that began
    data: bytes | None  # None: the key was absent
    content_type: str | None
    until_revision: int | None  # the revision that ended it; None: it is what the key is now
    until_ms: int | None  # when that was, milliseconds since 1970 by the shard's clock

    @property
    def until(self) -> datetime | None:
        """``until_ms`` as a moment."""
        return None if self.until_ms is None else moment(self.until_ms)

    def text(self) -> str | None:
        """The data as UTF-8 text, None for an absence. Raises UnicodeDecodeError."""
        return None if self.data is None else self.data.decode()


@attrs.frozen
class History:
    """The versions of a key that are kept, the newest first."""

    versions: tuple[Version, ...]
    complete_from_ms: int | None  # every change behind this moment is known; None: none is kept


def moment(time_ms: int) -> datetime:
    """Milliseconds since 1970 as a moment."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def iso_time(time_ms: int) -> str:
    """A moment as people write it (RFC 3339, UTC); one that no calendar has, in seconds since
    1970."""
    try:
        return moment(time_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return str(time_ms / 1000)


def read_value(body: object) -> Value | None:
    """The reply of ``get``. Raises ProtocolError for anything malformed."""
    match body:
        case [None, *_]:
            return None
        case [
            bytes(data), int(revision), str() | None as content_type,
            int(shard_revision), int() | None as staleness_ms, *more,
        ]:  # fmt: skip
            if not more:
                return Value(data, revision, content_type, shard_revision, staleness_ms or 0)
            match [*more, None][:2]:
                case [int() | None as expires_in_ms, int() | None as lease]:
                    return Value(
                        data, revision, content_type, shard_revision, staleness_ms or 0,
                        expires_in_ms, lease,
                    )  # fmt: skip
    raise ProtocolError("the reply to get is malformed")


def read_put(body: object) -> PutResult:
    """The reply of ``put``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed)]:
            return PutResult(revision, existed)
        case [int(revision), bool(existed), previous, *_]:
            return PutResult(revision, existed, _previous(previous, revision))
    raise ProtocolError("the reply to put is malformed")


def read_delete(body: object) -> DeleteResult:
    """The reply of ``delete``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed)]:
            return DeleteResult(revision, existed)
        case [int(revision), bool(existed), previous, *_]:
            return DeleteResult(revision, existed, _previous(previous, revision))
    raise ProtocolError("the reply to delete is malformed")


def _previous(item: object, shard_revision: int) -> Value | None:
    match item:
        case None:
            return None
        case [bytes(data), int(revision), str() | None as content_type, *_]:
            return Value(data, revision, content_type, shard_revision, 0)
    raise ProtocolError("the previous value is malformed")


def read_add(body: object) -> AddResult:
    """The reply of ``add``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed), int(number), *_]:
            return AddResult(revision, existed, number)
    raise ProtocolError("the reply to add is malformed")


def read_append(body: object) -> AppendResult:
    """The reply of ``append``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed), int(value_bytes), *_]:
            return AppendResult(revision, existed, value_bytes)
    raise ProtocolError("the reply to append is malformed")


def read_touch(body: object) -> TouchResult:
    """The reply of ``touch``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed), *_]:
            return TouchResult(revision, existed)
    raise ProtocolError("the reply to touch is malformed")


def read_lock(body: object) -> LockResult:
    """The reply of ``lock``. Raises ProtocolError."""
    match body:
        case [int(token), bool(acquired), *_]:
            return LockResult(token, acquired)
    raise ProtocolError("the reply to lock is malformed")


def txn_reader(
    then: Sequence[Callable[[object], StepResult | None]],
    otherwise: Sequence[Callable[[object], StepResult | None]],
) -> Callable[[object], TxnResult]:
    """The reader of a transaction's reply, given those of its steps."""

    def read_txn(body: object) -> TxnResult:
        match body:
            case [int(revision), bool(succeeded), list(results), *_]:
                readers = then if succeeded else otherwise
                if len(results) == len(readers):
                    read = tuple(
                        reader(_whole(result, revision, is_get=reader is read_value))
                        for reader, result in zip(readers, results, strict=True)
                    )
                    return TxnResult(revision, succeeded, read)
        raise ProtocolError("the reply to txn is malformed")

    return read_txn


def _whole(result: object, revision: int, *, is_get: bool) -> object:
    """A step's result as a reply of its own: a log keeps 0 and 1 for its booleans, what a
    get has of the shard is the transaction's, and a revision that nobody knows yet is 0."""
    match result:
        case [bytes() | None as value, int() | None as at, content_type] if is_get:
            return [value, at or 0, content_type, revision, None]
        case [int() | None as at, 0 | 1 as existed, *rest] if not is_get:
            return [at or 0, bool(existed), *rest]
    return result


def read_history(body: object) -> History:
    """The reply of ``key_history``. Raises ProtocolError."""
    match body:
        case [list(versions), int() | None as complete_from_ms, *_]:
            return History(tuple(map(_version, versions)), complete_from_ms)
    raise ProtocolError("the reply to key_history is malformed")


def _version(item: object) -> Version:
    match item:
        case [
            int(revision), bytes() | None as data, str() | None as content_type,
            int() | None as until_revision, int() | None as until_ms, *_,
        ]:  # fmt: skip
            return Version(revision, data, content_type, until_revision, until_ms)
    raise ProtocolError("a version of the reply to key_history is malformed")


def read_leader(body: object) -> tuple[Leader | None, int]:
    """The reply of ``get`` of an election's key, and how far its shard was. Raises
    ProtocolError."""
    match body:
        case [None, int(), _, int(shard_revision), *_]:
            return None, shard_revision
        case [bytes(name), int(token), _, int(shard_revision), *_]:
            return Leader(name, token), shard_revision
    raise ProtocolError("the reply to get is malformed")


def read_list(body: object) -> list[Any]:
    """Any reply, as its elements. Raises ProtocolError."""
    if isinstance(body, list):
        return body
    raise ProtocolError("a reply's body is not an array")
