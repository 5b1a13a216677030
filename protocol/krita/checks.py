"""What a client checks before anything is sent, and what it makes of what it was given.

The checks repeat the server's: a mistake of the caller's is best reported where
he made it, without a round trip and while the stack still shows the line.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, TypeAlias

from krita.errors import BadRequest, TooLarge
from krita.limits import (
    IDEMPOTENCY_KEY_BYTES_MAX,
    KEY_BYTES_MAX,
    LEASE_LIMIT,
    VALUE_BYTES_MAX_CEILING,
)
from krita.operations import KEEP_TTL, Consistency

Key: TypeAlias = "str | bytes"
Data: TypeAlias = "str | bytes | bytearray | memoryview"


class HasId(Protocol):
    """A lease, as ``lease=`` takes it besides its number."""

    @property
    def id(self) -> int: ...


class HasToken(Protocol):
    """A lock that is held, as ``if_lock=`` takes it besides (key, token)."""

    @property
    def key(self) -> bytes: ...
    @property
    def token(self) -> int: ...


def key_bytes(key: str | bytes) -> bytes:
    """The key as bytes; text is UTF-8. Raises BadRequest or TooLarge."""
    if isinstance(key, str):
        key = key.encode()
    elif not isinstance(key, bytes):
        raise BadRequest(f"a key is str or bytes, not {type(key).__name__}")
    if not key:
        raise BadRequest("the key is empty", hint=f"a key has 1 to {KEY_BYTES_MAX} bytes")
    if len(key) > KEY_BYTES_MAX:
        raise TooLarge(
            f"the key has {len(key)} bytes, the limit is {KEY_BYTES_MAX}",
            detail={"key_bytes": len(key), "key_bytes_max": KEY_BYTES_MAX},
        )
    return key


def value_bytes(value: str | bytes | bytearray | memoryview) -> bytes:
    """The value as bytes; text is UTF-8. Raises BadRequest or TooLarge.

    The cluster's own limit may be lower than the one checked here.
    """
    if isinstance(value, str):
        value = value.encode()
    elif isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    elif not isinstance(value, bytes):
        raise BadRequest(
            f"a value is str or bytes, not {type(value).__name__}",
            hint="encode it, for instance with json.dumps",
        )
    if len(value) > VALUE_BYTES_MAX_CEILING:
        raise TooLarge(
            f"the value has {len(value)} bytes, the limit is {VALUE_BYTES_MAX_CEILING}",
            detail={"value_bytes": len(value), "value_bytes_max": VALUE_BYTES_MAX_CEILING},
        )
    return value


def check_revision(if_revision: int | None) -> int | None:
    """Raises BadRequest for what cannot be a revision."""
    if if_revision is None:
        return None
    if not isinstance(if_revision, int) or isinstance(if_revision, bool) or if_revision < 0:
        raise BadRequest(
            f"if_revision is a revision or 0 for absent, not {if_revision!r}",
        )
    return if_revision


def consistency_code(consistency: Consistency | str) -> Consistency:
    """``"stale"`` and ``"linearizable"`` in the form that is sent. Raises BadRequest."""
    if isinstance(consistency, Consistency):
        return consistency
    try:
        return Consistency[consistency.upper()]
    except (KeyError, AttributeError):
        names = " or ".join(each.name.lower() for each in Consistency)
        raise BadRequest(f"consistency is {names}, not {consistency!r}") from None


def condition(if_revision: int | None, if_absent: bool) -> int | None:
    """What a write asks of its key's revision. Raises BadRequest."""
    if not if_absent:
        return check_revision(if_revision)
    if if_revision:
        raise BadRequest(f"a key cannot be absent and at revision {if_revision}")
    return 0


def ttl(ttl_ms: int | None) -> int | None:
    """How long a key lasts, milliseconds; None: for ever. Raises BadRequest."""
    if ttl_ms is None or (type(ttl_ms) is int and (ttl_ms > 0 or ttl_ms == KEEP_TTL)):
        return ttl_ms
    raise BadRequest(
        f"ttl_ms is a whole number of milliseconds from 1 on, not {ttl_ms!r}",
        hint="krita.KEEP_TTL keeps the deadline, None takes it away",
    )


def lease_id(lease: int | HasId | None) -> int | None:
    """A lease by its number. Raises BadRequest."""
    number = lease if lease is None or isinstance(lease, int) else lease.id
    if number is None or (type(number) is int and 0 < number < LEASE_LIMIT):
        return number
    raise BadRequest(f"a lease is a number from 1 to 2**60-1, not {lease!r}")


def held_lock(if_lock: tuple[Key, int] | HasToken | None) -> list[object] | None:
    """[key, token] of the lock that a write asks for. Raises BadRequest."""
    if if_lock is None:
        return None
    key, token = if_lock if isinstance(if_lock, tuple) else (if_lock.key, if_lock.token)
    if type(token) is not int or token <= 0:
        raise BadRequest(f"a lock's token is a number from 1 on, not {token!r}")
    return [key_bytes(key), token]


def idempotency_bytes(idempotency: str | bytes | None) -> bytes | None:
    """The key of a request that is to happen once. Raises BadRequest."""
    if isinstance(idempotency, str):
        idempotency = idempotency.encode()
    if idempotency is None:
        return None
    if not isinstance(idempotency, bytes) or not 0 < len(idempotency) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise BadRequest(f"an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")
    return idempotency


def count(number: int | None, name: str, least: int = 0) -> int | None:
    """A whole number, or None. Raises BadRequest."""
    if number is None or (type(number) is int and number >= least):
        return number
    raise BadRequest(f"{name} is a whole number from {least} on, not {number!r}")


def time_ms(at: datetime | int | float) -> int:
    """A moment as milliseconds since 1970. Raises BadRequest for a datetime without a zone."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise BadRequest(
                "a moment needs a time zone to be one", hint="datetime.now(timezone.utc)"
            )
        return round(at.timestamp() * 1000)
    if isinstance(at, bool) or not isinstance(at, (int, float)) or at < 0:
        raise BadRequest(f"a moment is a datetime or milliseconds since 1970, not {at!r}")
    return round(at)


def range_of(
    prefix: Key | None, start: Key | None, stop: Key | None
) -> tuple[bytes | None, bytes | None]:
    """From where on and below what; None: no end there. Raises BadRequest."""
    if prefix is None:
        return _edge(start), _edge(stop)
    if start is not None or stop is not None:
        raise BadRequest("a range is told by a prefix or by start and stop, not by both")
    begin = _edge(prefix)
    return begin, None if begin is None else behind_prefix(begin)


def behind_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all those with the prefix; None: there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _edge(key: Key | None) -> bytes | None:
    if key is None or not key:  # an empty prefix, or a start in front of everything
        return None
    return key_bytes(key)
