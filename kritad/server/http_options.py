"""What a request asks for beside its key: in its query, and in headers of our own.

Rules:
* Times are seconds, in decimal, with a fraction if one likes; they become whole
  milliseconds here and nowhere else.
* What is not understood is refused: an option that is ignored is a promise not kept.
* Nothing here costs a request anything that has no query and no such header.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache

from attrs import frozen

from krita.errors import BadRequest
from krita.limits import IDEMPOTENCY_KEY_BYTES_MAX, LEASE_LIMIT, TTL_MS_MAX
from krita.operations import KEEP_TTL, Consistency
from kritad.server.http_exchange import Exchange
from kritad.server.http_names import checked_key, form_fields, unquoted

_SECONDS = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,9})?")
_DECIMAL = re.compile(rb"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+ -]?[0-9]{1,3})?")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_NUMBER_MAX = (1 << 63) - 1
_FLAGS = {b"": True, b"1": True, b"true": True, b"0": False, b"false": False}
TTL_S_MAX = TTL_MS_MAX // 1000

IDEMPOTENCY_KEY = b"idempotency-key"
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,%d}" % IDEMPOTENCY_KEY_BYTES_MAX)

LIFE = frozenset({"ttl", "lease"})


def query_of(exchange: Exchange, allowed: frozenset[str]) -> dict[str, bytes]:
    """The fields of the query; ``timeout`` may always be among them, and is obeyed here.
    One without a value is b"". Raises BadRequest."""
    query = exchange.request.query
    if not query:
        return {}
    fields = form_fields(query, _with_timeout(allowed), "URL", bare=True)
    if "timeout" in fields:
        exchange.limit_time(milliseconds(fields.pop("timeout"), "timeout", most_s=60) / 1000)
    return fields


@cache
def _with_timeout(allowed: frozenset[str]) -> frozenset[str]:
    return allowed | {"timeout"}


def milliseconds(text: bytes, name: str, *, most_s: float = TTL_S_MAX) -> int:
    """Seconds as people write them. Raises BadRequest."""
    if _DECIMAL.fullmatch(text):
        seconds = float(text.replace(b" ", b"+"))  # a + in a query is a blank
        if seconds <= most_s:
            return round(seconds * 1000)
    raise BadRequest(f"{name} must be {seconds_up_to(most_s)}, such as 30 or 0.5")


def seconds_up_to(most_s: float) -> str:
    """What a time must be, for errors."""
    return f"a number of seconds up to {most_s:,.0f}"


def number(text: bytes, name: str) -> int:
    """A whole number from 0 on. Raises BadRequest."""
    if _NUMBER.fullmatch(text) and int(text) <= _NUMBER_MAX:
        return int(text)
    raise BadRequest(f"{name} must be a whole number from 0 to 2**63-1")


def flag(fields: dict[str, bytes], name: str) -> bool:
    """``?name``, ``?name=1`` and ``?name=true`` say yes. Raises BadRequest."""
    text = fields.get(name)
    if text is None:
        return False
    if text.lower() not in _FLAGS:
        raise BadRequest(f"{name} must be 1 or 0, true or false")
    return _FLAGS[text.lower()]


def life_of(fields: dict[str, bytes]) -> tuple[int | None, int | None]:
    """``ttl`` in milliseconds and ``lease``, as a write has them. Raises BadRequest."""
    text, lease = fields.get("ttl"), fields.get("lease")
    ttl_ms: int | None = None
    if text == b"keep":
        ttl_ms = KEEP_TTL
    elif text is not None:
        ttl_ms = checked_ttl(milliseconds(text, "ttl"))
    return ttl_ms, None if lease is None else lease_id(lease)


def checked_ttl(ttl_ms: int) -> int:
    """Raises BadRequest for a time to live of nothing."""
    if ttl_ms < 1:
        raise BadRequest("ttl must be at least 0.001 seconds", hint="DELETE removes a key at once")
    return ttl_ms


def lease_id(text: bytes) -> int:
    """A lease as answers name it. Raises BadRequest."""
    lease = int(text) if _NUMBER.fullmatch(text) else 0
    if not 0 < lease < LEASE_LIMIT:
        raise BadRequest("lease must be a number from 1 to 2**60-1, as POST /v1/lease gives it")
    return lease


@frozen
class Guard:
    """A write's further conditions, as its operation takes them."""

    if_lock: list[object] | None
    idempotency: bytes | None

    def __bool__(self) -> bool:
        return self.if_lock is not None or self.idempotency is not None


NO_GUARD = Guard(None, None)


def guard_of(headers: dict[bytes, bytes]) -> Guard:
    """``If-Lock`` and ``Idempotency-Key``. Raises BadRequest. 0.1 µs without them."""
    lock, idempotency = headers.get(b"if-lock"), headers.get(IDEMPOTENCY_KEY)
    if lock is None and idempotency is None:
        return NO_GUARD
    if idempotency is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency):
        raise BadRequest("Idempotency-Key has 1 to 255 visible characters of ASCII")
    return Guard(None if lock is None else _held_lock(lock), idempotency)


_GUARDS = (b"if-match", b"if-none-match", b"if-lock", IDEMPOTENCY_KEY)


def refuse_guards(headers: dict[bytes, bytes]) -> None:
    """Raises BadRequest for the headers of a guarded write, where there are none such."""
    for name in _GUARDS:
        if name in headers:
            raise BadRequest(
                f"{name.decode().title()} is not understood at this URL",
                hint="writes at /v1/kv/NAME take it",
            )


def _held_lock(header: bytes) -> list[object]:
    name, at, token = header.strip().rpartition(b"@")
    if not at or not _NUMBER.fullmatch(token) or not 0 < int(token) <= _NUMBER_MAX:
        raise BadRequest(
            "If-Lock is not NAME@TOKEN",
            hint="TOKEN is what POST /v1/lock/NAME has answered; the name is percent-encoded",
        )
    return [checked_key(unquoted(name, "If-Lock header")), int(token)]


# --- reads -----------------------------------------------------------------------------

READ_FIELDS = frozenset({"consistency", "max_staleness", "at", "at_revision", "wait", "after"})
MIN_REVISION = b"krita-min-revision"


@frozen
class Reading:
    """How fresh a read has to be, or of which moment it is: the fields of ``get`` behind
    its key."""

    consistency: Consistency = Consistency.LINEARIZABLE
    staleness_ms_max: int | None = None
    revision_min: int | None = None
    at_revision: int | None = None
    at_ms: int | None = None

    @property
    def fields(self) -> tuple[object, ...]:
        """As the operation has them; as few as will do."""
        if self.at_revision is not None or self.at_ms is not None:
            return 0, None, None, self.at_revision, self.at_ms
        if self.staleness_ms_max is None and self.revision_min is None:
            return (int(self.consistency),)
        return int(self.consistency), self.staleness_ms_max, self.revision_min

    @property
    def stale(self) -> bool:
        """Whether the answer has to say how stale it may be."""
        return self.consistency is Consistency.STALE


PRESENT = Reading()


def reading_of(fields: dict[str, bytes], headers: dict[bytes, bytes]) -> Reading:
    """What the query and ``Krita-Min-Revision`` ask for. Raises BadRequest."""
    least = headers.get(MIN_REVISION)
    if not fields and least is None:
        return PRESENT
    if "after" in fields:
        raise BadRequest("after goes with wait", hint="for instance wait=30")
    revision_min = None if least is None else number(least, "Krita-Min-Revision")
    consistency, staleness_ms_max = _freshness(fields)
    if consistency is Consistency.LINEARIZABLE:
        revision_min = None  # it sees everything that has a revision already
    at, at_revision = fields.get("at"), fields.get("at_revision")
    if at is None and at_revision is None:
        return Reading(consistency, staleness_ms_max, revision_min)
    if at is not None and at_revision is not None:
        raise BadRequest("at and at_revision name two moments", hint="send one of them")
    if "consistency" in fields:
        raise BadRequest("consistency is about the present, and at about the past")
    if at is not None:
        return Reading(at_ms=moment_ms(at))
    assert at_revision is not None
    return Reading(at_revision=number(at_revision, "at_revision"))


def _freshness(fields: dict[str, bytes]) -> tuple[Consistency, int | None]:
    name = fields.get("consistency", b"linearizable")
    bound = fields.get("max_staleness")
    if name == b"bounded":
        if bound is None:
            raise BadRequest(
                "consistency=bounded needs max_staleness", hint="for instance max_staleness=5"
            )
        return Consistency.STALE, milliseconds(bound, "max_staleness")
    if bound is not None:
        raise BadRequest("max_staleness goes with consistency=bounded")
    if name == b"linearizable":
        return Consistency.LINEARIZABLE, None
    if name == b"stale":
        return Consistency.STALE, None
    raise BadRequest(
        "consistency must be linearizable, stale or bounded", hint="leave it out for linearizable"
    )


def moment_ms(text: bytes) -> int:
    """A moment as people write one: seconds since 1970, or ISO 8601, with UTC where it
    names no zone. Raises BadRequest."""
    if _SECONDS.fullmatch(text):
        return round(float(text) * 1000)
    try:
        written = text.decode("ascii")
        if "T" in written:
            written = written.replace(" ", "+")  # the zone's sign, which a query makes a blank
        found = datetime.fromisoformat(written)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        at_ms = round(found.timestamp() * 1000)
    except (ValueError, OverflowError):
        at_ms = -1
    if at_ms < 0:
        raise BadRequest(
            "at is no moment", hint="2026-11-22T10:30:00Z, or seconds since 1970: 1795343400"
        )
    return at_ms


# --- ranges ----------------------------------------------------------------------------

RANGE_FIELDS = frozenset({"prefix", "start", "stop"})


def range_of(fields: dict[str, bytes]) -> tuple[bytes, bytes | None]:
    """``prefix``, or ``start`` and ``stop``: from where on, and below which key. Raises
    BadRequest."""
    prefix = fields.get("prefix")
    start, stop = fields.get("start"), fields.get("stop")
    if prefix is None:
        return start or b"", stop
    if start is not None or stop is not None:
        raise BadRequest("prefix, and start and stop, are two ways to name a range")
    return prefix, behind_prefix(prefix)


def behind_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with it; None: there is none."""
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + bytes([shortened[-1] + 1]) if shortened else None
