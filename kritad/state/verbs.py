"""What each write does to its key, as a decision: nothing is changed here.

A verb looks at the key as it is (``Sight``) and says what is to be done (``Effect``) and
what to answer (``Reply``). So the same verbs serve a write of its own and a
transaction, which must know of all its verbs that they can be done before it does the first.

Rules:
* A reply is a status and plain values, from which ``results.py`` makes the whole: sessions
  keep it, and a state must not depend on the wording of a message.
* A verb's refusal that depends on the state is a Reply, so that a repetition gets the
  same; BadRequest, which depends on the request alone, is raised.
* Deadlines are counted from the shard's clock at the entry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from krita.errors import BadRequest, Status
from krita.limits import LEASE_LIMIT, TTL_MS_MAX, VALUE_BYTES_MAX_CEILING
from krita.operations import KEEP_TTL, Op
from kritad.storage.rows import Row, Stamp

# A status and the values that its reply is made of again.
Reply = tuple[int, list[object]]

_OK = int(Status.OK)
_NUMBER_MAX = (1 << 63) - 1
_NUMBER_DIGITS_MAX = 20


class Refusal(enum.IntEnum):
    """Why a key does not allow it: the first value of a CONFLICT."""

    NO_NUMBER = 0
    NUMBER_TOO_LARGE = 1
    VALUE_TOO_LARGE = 2
    IDEMPOTENCY_KEY_USED = 3


class Sight(Protocol):
    """What a verb sees of the shard. What is over by the clock is not there any more."""

    @property
    def clock_ms(self) -> int: ...
    def stamp(self, key: bytes) -> Row | Stamp | None: ...
    def get(self, key: bytes) -> Row | None: ...
    def bond(self, key: bytes) -> tuple[int, int]: ...
    def lease_is_alive(self, lease: int) -> bool: ...
    def owns(self, key: bytes) -> bool: ...


class Action(enum.Enum):
    PUT = "put"
    DELETE = "delete"
    TOUCH = "touch"


@attrs.frozen
class Effect:
    """One change of one key."""

    action: Action
    key: bytes
    value: bytes = b""
    content_type: str | None = None
    expires_ms: int = 0
    lease: int = 0


Decision = tuple[Effect | None, Reply]
# The sight, the fields from the key on as the operation names them, the entry's index.
Verb = Callable[[Sight, Sequence[object], int], Decision]


class _Refused(Exception):
    """Ends a verb with a reply that refuses."""

    def __init__(self, status: Status, *values: object) -> None:
        self.reply: Reply = (int(status), list(values))


def decide(verb: Verb, sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """The verb's decision. Raises BadRequest."""
    try:
        return verb(sight, fields, index)
    except _Refused as refused:
        return None, refused.reply


def put(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """key, value, content_type, if_revision, ttl_ms, lease, if_lock, idempotency, previous"""
    key, value, content_type, if_revision, ttl_ms, lease, if_lock, _, previous, *_ = fields
    assert type(key) is bytes
    if type(value) is not bytes:
        raise BadRequest("put: the value has to be a byte string")
    if not (content_type is None or type(content_type) is str):
        raise BadRequest("put: content_type has to be text or null")
    before = _guarded(sight, key, if_revision, if_lock)
    expires_ms, lease = _life(sight, key, ttl_ms, lease)
    effect = Effect(Action.PUT, key, value, content_type, expires_ms, lease)
    return effect, (_OK, [index, int(before is not None), *_previous(sight, key, previous)])


def delete(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """key, if_revision, if_lock, idempotency, previous"""
    key, if_revision, if_lock, _, previous, *_ = fields
    assert type(key) is bytes
    before = _guarded(sight, key, if_revision, if_lock)
    # Also when there was nothing to remove, the revision is what a reader
    # has to wait for in order to see the key gone.
    effect = None if before is None else Effect(Action.DELETE, key)
    return effect, (_OK, [index, int(before is not None), *_previous(sight, key, previous)])


def add(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """key, delta, if_revision, ttl_ms, lease, if_lock, idempotency"""
    key, delta, if_revision, ttl_ms, lease, if_lock, *_ = fields
    assert type(key) is bytes
    if type(delta) is not int or not -_NUMBER_MAX <= delta <= _NUMBER_MAX:
        raise BadRequest("add: delta has to be a whole number of at most 63 bits")
    _guarded(sight, key, if_revision, if_lock)
    row = sight.get(key)
    number = delta + (0 if row is None else _number(row.value))
    if not -_NUMBER_MAX <= number <= _NUMBER_MAX:
        raise _Refused(Status.CONFLICT, int(Refusal.NUMBER_TOO_LARGE))
    expires_ms, lease = _life(sight, key, ttl_ms, lease)
    content_type = "text/plain" if row is None else row.content_type
    effect = Effect(Action.PUT, key, b"%d" % number, content_type, expires_ms, lease)
    return effect, (_OK, [index, int(row is not None), number])


def append(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """key, data, if_revision, ttl_ms, lease, if_lock, idempotency, value_bytes_max"""
    key, data, if_revision, ttl_ms, lease, if_lock, _, bytes_max, *_ = fields
    assert type(key) is bytes
    if type(data) is not bytes:
        raise BadRequest("append: data has to be a byte string")
    _guarded(sight, key, if_revision, if_lock)
    row = sight.get(key)
    value = data if row is None else row.value + data
    if len(value) > bytes_max_of(bytes_max):
        raise _Refused(Status.CONFLICT, int(Refusal.VALUE_TOO_LARGE))
    expires_ms, lease = _life(sight, key, ttl_ms, lease)
    content_type = None if row is None else row.content_type
    effect = Effect(Action.PUT, key, value, content_type, expires_ms, lease)
    return effect, (_OK, [index, int(row is not None), len(value)])


def touch(sight: Sight, fields: Sequence[object], _index: int) -> Decision:
    """key, if_revision, ttl_ms, lease, if_lock, idempotency"""
    key, if_revision, ttl_ms, lease, if_lock, *_ = fields
    assert type(key) is bytes
    before = _guarded(sight, key, if_revision, if_lock)
    expires_ms, lease = _life(sight, key, ttl_ms, lease)
    if before is None:
        return None, (_OK, [0, 0])
    effect = Effect(Action.TOUCH, key, expires_ms=expires_ms, lease=lease)
    return effect, (_OK, [before.revision, 1])


def lock(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """key, owner, ttl_ms, lease, idempotency"""
    key, owner, ttl_ms, lease, *_ = fields
    assert type(key) is bytes
    if type(owner) is not bytes or not owner:
        raise BadRequest("lock: the owner has to be a byte string, and not empty")
    row = sight.get(key)
    expires_ms, lease = _life(sight, key, ttl_ms, lease)
    if row is None:
        effect = Effect(Action.PUT, key, owner, None, expires_ms, lease)
        return effect, (_OK, [index, 1])
    if row.value == owner:
        effect = Effect(Action.TOUCH, key, expires_ms=expires_ms, lease=lease)
        return effect, (_OK, [row.revision, 0])
    deadline_ms, _ = sight.bond(key)
    left_ms = deadline_ms - sight.clock_ms if deadline_ms else None
    raise _Refused(Status.LOCKED, row.revision, row.value, left_ms)


VERBS: dict[int, Verb] = {
    Op.PUT: put,
    Op.DELETE: delete,
    Op.ADD: add,
    Op.APPEND: append,
    Op.TOUCH: touch,
    Op.LOCK: lock,
}


def check_ttl(ttl_ms: object, *, keep: bool = True) -> int | None:
    """Raises BadRequest for what is no time to live."""
    if ttl_ms is None or (keep and ttl_ms == KEEP_TTL):
        return ttl_ms
    if type(ttl_ms) is not int or not 0 < ttl_ms <= TTL_MS_MAX:
        raise BadRequest(
            f"ttl_ms is a number of milliseconds from 1 to {TTL_MS_MAX}, not {ttl_ms!r}",
            hint="-1 keeps the deadline, null takes it away",
        )
    return ttl_ms


def check_lease(lease: object) -> int:
    """Raises BadRequest for what is no lease's id."""
    if type(lease) is not int or not 0 < lease < LEASE_LIMIT:
        raise BadRequest(f"a lease is a number from 1 to 2**60-1, not {lease!r}")
    return lease


def _guarded(sight: Sight, key: bytes, if_revision: object, if_lock: object) -> Row | Stamp | None:
    """The key's stamp, once the conditions hold."""
    before = sight.stamp(key)
    revision = 0 if before is None else before.revision
    if if_revision is not None:
        if type(if_revision) is not int or if_revision < 0:
            raise BadRequest("if_revision has to be a whole number or null")
        if if_revision != revision:
            raise _Refused(Status.CONDITION_FAILED, revision)
    if if_lock is not None:
        match if_lock:
            case [bytes(name), int(held)] if name and held > 0:
                pass
            case _:
                raise BadRequest("if_lock is [key, token] or null")
        if not sight.owns(name):
            raise BadRequest("if_lock: the lock is in another shard than the key")
        stamp = sight.stamp(name)
        if stamp is None or stamp.revision != held:
            raise _Refused(Status.CONDITION_FAILED, 0 if stamp is None else stamp.revision, 1)
    return before


def _life(sight: Sight, key: bytes, ttl_ms: object, lease: object) -> tuple[int, int]:
    """The deadline and the lease that the key has from now on."""
    ttl_ms = check_ttl(ttl_ms)
    if ttl_ms == KEEP_TTL:
        kept_ms, kept_lease = sight.bond(key)
        if lease is None:
            return kept_ms, kept_lease
        expires_ms = kept_ms
    else:
        expires_ms = 0 if ttl_ms is None else sight.clock_ms + ttl_ms
    if lease is None:
        return expires_ms, 0
    lease = check_lease(lease)
    if not sight.lease_is_alive(lease):
        raise _Refused(Status.LEASE_UNKNOWN, lease)
    return expires_ms, lease


def _previous(sight: Sight, key: bytes, wanted: object) -> list[object]:
    row = sight.get(key) if wanted else None
    return [] if row is None else [row.value, row.revision, row.content_type]


def _number(value: bytes) -> int:
    digits = value[1:] if value[:1] == b"-" else value
    # isdigit() of bytes is true of ASCII digits alone, unlike what int() takes.
    if len(value) > _NUMBER_DIGITS_MAX or not digits.isdigit():
        raise _Refused(Status.CONFLICT, int(Refusal.NO_NUMBER))
    return int(value)


def bytes_max_of(asked: object) -> int:
    """The limit travels in the command: a setting that nodes disagree about must not make
    their states differ."""
    if type(asked) is int and 0 < asked < VALUE_BYTES_MAX_CEILING:
        return asked
    return VALUE_BYTES_MAX_CEILING
