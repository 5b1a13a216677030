"""What a client checks before anything is sent, and what it makes of what it was given.

The checks repeat the server's: a mistake of the caller's is best reported where
he made it, without a round trip and while the stack still shows the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar

from krita.address import AddressError, parse_many
from krita.errors import BadRequest, TooLarge
from krita.limits import (
    CBOR_DEPTH_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX,
    KEY_BYTES_MAX,
    LEASE_LIMIT,
    VALUE_BYTES_MAX_CEILING,
)
from krita.operations import KEEP_TTL, Consistency

Key: TypeAlias = str | bytes
Data: TypeAlias = str | bytes | bytearray | memoryview
T = TypeVar("T")
K = TypeVar("K", bound=Key)

_NUMBER_LIMIT = 1 << 63  # of revisions and moments, which a shard keeps as signed numbers


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


def utf8(text: str, name: str) -> bytes:
    """The text as bytes. Raises BadRequest for half a surrogate pair, which is no character."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} cannot be sent as UTF-8: {error.reason}") from None


def key_bytes(key: str | bytes) -> bytes:
    """The key as bytes; text is UTF-8. Raises BadRequest or TooLarge."""
    if isinstance(key, str):
        key = utf8(key, "a key")
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
        value = utf8(value, "a value")
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


def content_type(content_type: str | None) -> str | None:
    """Raises BadRequest for what is no text."""
    if content_type is not None:
        if not isinstance(content_type, str):
            raise BadRequest(f"content_type is text, not {type(content_type).__name__}")
        utf8(content_type, "content_type")
    return content_type


def check_revision(if_revision: int | None) -> int | None:
    """Raises BadRequest for what cannot be a revision."""
    if if_revision is None:
        return None
    whole = isinstance(if_revision, int) and not isinstance(if_revision, bool)
    if whole and 0 <= if_revision < _NUMBER_LIMIT:
        return if_revision
    raise BadRequest(f"if_revision is a revision or 0 for absent, not {if_revision!r}")


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
    if ttl_ms is None or (
        type(ttl_ms) is int and (0 < ttl_ms < _NUMBER_LIMIT or ttl_ms == KEEP_TTL)
    ):
        return ttl_ms
    raise BadRequest(
        f"ttl_ms is a whole number of milliseconds from 1 on, not {ttl_ms!r}",
        hint="krita.KEEP_TTL keeps the deadline, None takes it away",
    )


def lease_id(lease: int | HasId | None) -> int | None:
    """A lease by its number. Raises BadRequest."""
    if lease is None:
        return None
    number = getattr(lease, "id", lease)
    if type(number) is int and 0 < number < LEASE_LIMIT:
        return number
    raise BadRequest(f"lease is a Lease or its number, from 1 to 2**60-1, not {lease!r}")


def held_lock(if_lock: tuple[Key, int] | HasToken | None) -> list[object] | None:
    """[key, token] of the lock that a write asks for. Raises BadRequest."""
    if if_lock is None:
        return None
    match if_lock:
        case tuple((key, token)):
            pass
        case object(key=key, token=token):
            pass
        case _:
            raise BadRequest(f"if_lock is a Lock or (key, token), not {if_lock!r}")
    if type(token) is not int or not 0 < token < _NUMBER_LIMIT:
        raise BadRequest(f"if_lock: a lock's token is a number from 1 on, not {token!r}")
    return [key_bytes(key), token]


def owner_bytes(owner: str | bytes) -> bytes:
    """Who a lock's owner is. Raises BadRequest or TooLarge."""
    if not isinstance(owner, (str, bytes)):
        raise BadRequest(f"a lock's owner is str or bytes, not {type(owner).__name__}")
    name = value_bytes(owner)
    if not name:
        raise BadRequest("a lock's owner has a name")
    return name


def idempotency_bytes(idempotency: str | bytes | None) -> bytes | None:
    """The key of a request that is to happen once. Raises BadRequest."""
    if isinstance(idempotency, str):
        idempotency = utf8(idempotency, "an idempotency key")
    if idempotency is None:
        return None
    if not isinstance(idempotency, bytes) or not 0 < len(idempotency) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise BadRequest(f"an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")
    return idempotency


def count(number: int | None, name: str, least: int = 0) -> int | None:
    """A whole number, or None. Raises BadRequest."""
    if number is None or (type(number) is int and least <= number < _NUMBER_LIMIT):
        return number
    raise BadRequest(f"{name} is a whole number from {least} on, not {number!r}")


def time_ms(at: datetime | int | float) -> int:
    """A moment as milliseconds since 1970. Raises BadRequest for what is none, and for a
    datetime without a zone."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise BadRequest(
                "a moment needs a time zone to be one", hint="datetime.now(timezone.utc)"
            )
        time_ms: float = at.timestamp() * 1000
    elif isinstance(at, (int, float)) and not isinstance(at, bool):
        time_ms = at
    else:
        time_ms = -1
    if not 0 <= time_ms < _NUMBER_LIMIT:  # so neither is nan
        raise BadRequest(f"at is a datetime or milliseconds since 1970, not {at!r}")
    return round(time_ms)


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


def prefix_bytes(prefix: str | bytes) -> bytes:
    """A prefix as bytes; it may be empty. Raises BadRequest or TooLarge."""
    return _edge(prefix) or b""


def behind_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all those with the prefix; None: there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _edge(key: Key | None) -> bytes | None:
    if key is None or key in ("", b""):  # an empty prefix, or a start in front of everything
        return None
    return key_bytes(key)


# What is no field of a request


def listed(given: Iterable[T], name: str) -> list[T]:
    """What can be gone through once, as a list. Raises BadRequest for what cannot, and for
    text, which would be taken letter by letter."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise BadRequest(f"{name} is a list or another iterable, not {given!r:.80}")
    return list(given)


def keys(given: Iterable[K]) -> list[K]:
    """Several keys. Raises BadRequest or TooLarge."""
    found = listed(given, "keys")
    for key in found:
        key_bytes(key)
    return found


def made(part: T, kind: type[T], name: str) -> T:
    """What ``krita.steps`` has to have made. Raises BadRequest."""
    if isinstance(part, kind):
        return part
    raise BadRequest(
        f"{name}: {part!r:.80} is no {kind.__name__}", hint="the functions of krita.steps make them"
    )


def made_list(given: Iterable[T], kind: type[T], name: str) -> list[T]:
    """Several of them, as a list. Raises BadRequest."""
    return [made(part, kind, name) for part in listed(given, name)]


def plain(item: object, name: str, depth: int = CBOR_DEPTH_MAX - 1) -> None:
    """Raises BadRequest for what is not said in CBOR by our rules. (cbor2 says much more, in
    tags, and goes as deep as the stack and further.)"""
    match item:
        case None | bool() | float() | bytes() | bytearray():
            return
        case int() if -(1 << 64) <= item < 1 << 64:
            return
        case str():
            utf8(item, name)
            return
        case list() | tuple() if depth > 0:
            for one in item:
                plain(one, name, depth - 1)
            return
        case dict() if depth > 0 and all(isinstance(key, (str, bytes)) for key in item):
            for key, one in item.items():
                plain(key, name)
                plain(one, name, depth - 1)
            return
    raise BadRequest(f"{name} cannot be sent: {type(item).__name__}, or too large or deep")


def node(number: int | str | None) -> int | str | None:
    """A node by its number or address, or None. Raises BadRequest."""
    if number is None or isinstance(number, str) or type(number) is int:
        return number
    raise BadRequest(f"node is a node's number or address, not {number!r}")


def seeds(nodes: str | Sequence[str]) -> list[str]:
    """The addresses in their one spelling. Raises AddressError."""
    places = nodes if isinstance(nodes, Iterable) else [nodes]
    texts = [places] if isinstance(places, str) else list(places)
    if not all(isinstance(text, str) for text in texts):
        raise AddressError(f"nodes is 'host:port,host' or a list of such, not {nodes!r}")
    return [str(place) for place in parse_many(",".join(texts))]


def token_bytes(token: str | bytes | None) -> bytes | None:
    """A token as it is sent; text is UTF-8. Raises BadRequest."""
    if isinstance(token, str):
        return utf8(token, "token")
    if token is None or isinstance(token, bytes):
        return token
    raise BadRequest(f"token is str or bytes, not {type(token).__name__}")


def zone_name(zone: str) -> str:
    """Raises BadRequest for what cannot be a zone's name."""
    if not isinstance(zone, str):
        raise BadRequest(f"a zone is text, not {type(zone).__name__}")
    return zone


def timeout(timeout_ms: float) -> float:
    """Raises BadRequest for what is no time to wait."""
    if not isinstance(timeout_ms, (int, float)) or not 0 < timeout_ms < 1e9:
        raise BadRequest(f"timeout_ms is a number of milliseconds above 0, not {timeout_ms!r}")
    return timeout_ms


def wait(wait_ms: float | None) -> float | None:
    """For how long to wait, milliseconds; None: as long as it takes. Raises BadRequest."""
    if wait_ms is None or (isinstance(wait_ms, (int, float)) and wait_ms >= 0):
        return wait_ms
    raise BadRequest(f"wait_ms is a number of milliseconds from 0 on, not {wait_ms!r}")
