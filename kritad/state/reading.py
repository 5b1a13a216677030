"""What reads answer, from the state as it is at this moment: functions of both.

When a state may be read is not decided here (host/replica.py: after a round of the
leader's, or as stale as the reader allows).

Rules:
* What is over by the shard's clock is not there, whether or not its row still is.
* An answer is bounded in rows and bytes; where more is left it says where to go on.
  The rows that one answer may look at are few enough not to be felt by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, takewhile

from krita.errors import BadRequest, Compacted
from krita.operations import Change, Op, What
from kritad.state.feed import NEWEST, Event, event_bytes
from kritad.state.machine import ShardState
from kritad.state.versions import Version
from kritad.storage.places import INNER_PREFIX
from kritad.storage.rows import Row

SCAN_ROWS_MAX = 1_000
SCAN_BYTES_MAX = 1 << 20
# What one answer looks at; some 20 ms. Fewer than it may tell where many keys are over.
_LOOK_ROWS_MAX = 4_000
_LOOK_BYTES_MAX = 8 << 20
_FETCHED = 64  # rows, at first
_OVER_MAX = 1_000  # keys that wait for their end; where it is more a count reads all rows
HISTORY_MAX = 1_000
EVENTS_MAX = 1_000
_LEASE_KEYS_MAX = 1_000
_LAST = (1 << 64) - 1

Answer = list[object]


def read_key(state: ShardState, key: bytes, staleness_ms: int | None) -> Answer:
    """``get``. Raises storage's errors."""
    row = state.read(key)
    index = state.index
    if row is None:
        return [None, 0, None, index, staleness_ms]
    answer: Answer = [row.value, row.revision, row.content_type, index, staleness_ms]
    if row.expires_ms or row.lease:
        answer += _bond(state, row)
    return answer


def read_then(state: ShardState, key: bytes, fields: Sequence[object]) -> Answer:
    """``get`` of another time: ``fields`` from at_revision on. Raises Compacted, BadRequest,
    and storage's errors."""
    at_revision, at_ms = fields[:2]
    found: Version | Row | None
    if at_revision is not None:
        if type(at_revision) is not int or not 0 < at_revision <= state.index:
            raise BadRequest(
                f"at_revision is a revision from 1 to the shard's {state.index}, not"
                f" {at_revision!r}"
            )
        found = state.versions.as_of(key, at_revision)
    elif type(at_ms) is int:
        found = state.versions.at(key, at_ms, state.clock_ms)
    else:
        raise BadRequest("at_ms is a time in milliseconds")
    if found is None or found.value is None:
        return [None, 0, None, state.index, None]
    return [found.value, found.revision, found.content_type, state.index, None]


def scan(state: ShardState, fields: Sequence[object]) -> Answer:
    """``shard_scan``: the fields behind the shard. Raises BadRequest, storage's errors."""
    start, stop, limit, reverse, what, bytes_max = fields[:6]
    what = what_of(what)
    if not isinstance(start, bytes | None) or not isinstance(stop, bytes | None):
        raise BadRequest("a scan's start and stop are byte strings or null")
    start, stop = start or b"", INNER_PREFIX if stop is None else min(stop, INNER_PREFIX)
    limit = _bounded(limit, SCAN_ROWS_MAX, "limit")
    bytes_left = _bounded(bytes_max, SCAN_BYTES_MAX, "bytes_max")
    bounds: Answer = [state.index, *state.extent.arc]
    if what == What.COUNT:
        return [*_count(state, start, stop, bool(reverse)), *bounds]
    found: Answer = []
    for key, row in _alive(state, start, stop, bool(reverse), limit):
        if row is None:  # enough was looked at
            return [found, key, *bounds]
        size = len(key) + len(row.content_type or "")
        size += len(row.value) if what != What.KEYS else 0
        if len(found) == limit or (found and size > bytes_left):
            return [found, key, *bounds]
        bytes_left -= size
        found.append(_row(state, key, row, what == What.KEYS))
    return [found, None, *bounds]


def _count(state: ShardState, start: bytes, stop: bytes, reverse: bool) -> Answer:
    """How many keys of a range are there, and the first that was not looked at."""
    count = 0
    over = state.keys.over(_OVER_MAX)
    if over is None:
        for key, row in _alive(state, start, stop, reverse, _FETCHED):
            if row is None:
                return [count, key]
            count += 1
        return [count, None]
    for looked_at, (key, there) in enumerate(state.table.keys(start, stop, reverse=reverse)):
        if looked_at == _LOOK_ROWS_MAX:
            return [count, key]
        count += there and key not in over
    return [count, None]


def what_of(what: object) -> int:
    """What a scan is to tell, as one of ``What``. Raises BadRequest for anything else."""
    if what is None:
        return What.ROWS
    if type(what) is not int or what not in What._value2member_map_:
        raise BadRequest(f"what is 0 for rows, 1 for keys or 2 for their number, not {what!r}")
    return what


def _alive(
    state: ShardState, start: bytes, stop: bytes, reverse: bool, wanted: int
) -> Iterator[tuple[bytes, Row | None]]:
    """The rows of a range that are not over; None for the first that is not looked at. What was
    deleted and is not flushed yet is looked at as well."""
    bytes_left = _LOOK_BYTES_MAX
    rows = state.table.walk(start, stop, reverse=reverse, wanted=min(wanted, _FETCHED))
    for looked_at, (key, row) in enumerate(rows):
        if looked_at == _LOOK_ROWS_MAX or bytes_left <= 0:
            yield key, None
            return
        if row is None:
            continue
        bytes_left -= len(row.value)
        if not state.keys.is_over(row):
            yield key, row


def changes(state: ShardState, fields: Sequence[object]) -> Answer | None:
    """``changes``: the fields behind the shard. None: there are none yet, wait for some.
    Raises Compacted, BadRequest."""
    after, start, stop, limit, _, bytes_max, *_ = fields
    feed = state.feed
    if after is None:
        return [[], state.index, feed.oldest]
    if type(after) is not int or after < 0:
        raise BadRequest("a revision to go on from is a whole number or null")
    if not isinstance(start, bytes | None) or not isinstance(stop, bytes | None):
        raise BadRequest("a range's start and stop are byte strings or null")
    limit = _bounded(limit, EVENTS_MAX, "limit")
    bytes_max = _bounded(bytes_max, SCAN_BYTES_MAX, "bytes_max")
    found = feed.behind(after, start or b"", stop, limit, bytes_max)
    if found is None:
        raise Compacted(
            f"the changes behind revision {after} of shard {state.shard} are not kept any more",
            hint="read what you watch anew, and go on from there",
            detail={"oldest": feed.oldest},
        )
    events, upto = found
    if not events and upto == NEWEST:
        return None
    told: list[object] = []
    for event in events:
        # One entry's events stay together; of a few that are too large for any answer, the
        # later ones come without their values.
        bytes_max -= event_bytes(event)
        told.append(_event_to_wire(event, bare=bytes_max < 0 and len(told) > 0))
    return [told, upto_of(state, after, upto), feed.oldest]


def upto_of(state: ShardState, after: int, upto: int = NEWEST) -> int:
    """From which revision on to ask next."""
    return max(after, state.index) if upto == NEWEST else upto


def _event_to_wire(event: Event, bare: bool) -> list[object]:
    at, kind, key, what = event
    if kind is Change.PUT:
        assert isinstance(what, Row), event
        value = None if bare else what.value
        return [int(kind), key, value, what.revision, what.content_type, at]
    if kind is Change.SPLIT:
        assert isinstance(what, tuple), event
        return [int(kind), None, what[0], at, what[1], at]
    return [int(kind), key, None, at, None, at]


def holders(state: ShardState, op: int, key: bytes, fields: Sequence[object]) -> set[int]:
    """The attempts of transactions over several shards that hold what the read would see: it
    has to wait for their outcome, or it might see one half of it."""
    intents = state.keys.intents
    if op in (Op.GET, Op.KEY_HISTORY):
        return intents.holders([key])
    if op != Op.SHARD_SCAN:
        return set()
    start, stop = fields[:2]
    return intents.holders(
        one
        for one in intents.by_key
        if (not isinstance(start, bytes) or one >= start)
        and (not isinstance(stop, bytes) or one < stop)
    )


def history(state: ShardState, key: bytes, fields: Sequence[object]) -> Answer:
    """``key_history``: the fields behind the key, and what the node has added: how many bytes
    an answer may have. Raises BadRequest, storage's errors."""
    limit, before, bytes_max = [*fields, None][:3]
    limit = _bounded(limit, HISTORY_MAX, "limit")
    bytes_left = _bounded(bytes_max, SCAN_BYTES_MAX, "bytes_max")
    if before is not None and (type(before) is not int or before < 0):
        raise BadRequest("before is a revision or null")
    found: Answer = []
    row = state.read(key) if before is None else None
    if row is not None:
        found.append([row.revision, row.value, row.content_type, None, None])
        bytes_left -= len(row.value)
    versions = state.versions.newest(key, _LAST if before is None else before, min(limit, _FETCHED))
    for version in versions:
        bytes_left -= len(version.value or b"")
        if len(found) >= limit or (found and bytes_left < 0):
            break
        found.append(version.to_wire())
    rule = state.retention.of(key)
    return [found, None if rule is None else rule.whole_from_ms(state.clock_ms)]


def lease_state(state: ShardState, fields: Sequence[object]) -> Answer:
    """``lease_state``: the fields behind the shard, and what the node has added: how many
    bytes an answer may have. Raises BadRequest."""
    lease, limit, bytes_max = [*fields, None][:3]
    if type(lease) is not int:
        raise BadRequest("a lease is a whole number")
    leases = state.keys.leases
    known = leases.get(lease)
    if known is None or not leases.is_alive(lease, state.clock_ms):
        return [None, None, [], *state.extent.arc]
    keys = state.leased(lease, _bounded(limit, _LEASE_KEYS_MAX, "limit"))
    keys = first_of(keys, _bounded(bytes_max, SCAN_BYTES_MAX, "bytes_max"))
    return [known.ttl_ms, _left_ms(state, known.deadline_ms), keys, *state.extent.arc]


def retention_state(state: ShardState, _fields: Sequence[object]) -> Answer:
    """``retention_state``."""
    clock_ms = state.clock_ms
    return [
        [
            [rule.prefix, rule.retention_ms, rule.whole_from_ms(clock_ms)]
            for rule in state.retention.rules
        ],
        *state.extent.arc,
    ]


# By operation: of the state and the fields behind the shard's number.
OF_SHARD: dict[int, Callable[[ShardState, Sequence[object]], Answer]] = {
    Op.SHARD_SCAN: scan,
    Op.LEASE_STATE: lease_state,
    Op.RETENTION_STATE: retention_state,
}


def _row(state: ShardState, key: bytes, row: Row, key_only: bool) -> Answer:
    answer: Answer = [key, None if key_only else row.value, row.revision, row.content_type]
    return answer + _bond(state, row) if row.expires_ms or row.lease else answer


def _bond(state: ShardState, row: Row) -> Answer:
    return [_left_ms(state, row.expires_ms) if row.expires_ms else None, row.lease or None]


def _left_ms(state: ShardState, deadline_ms: int) -> int:
    """How long something lasts yet. The shard's clock stands still while nobody writes, and
    whoever looks again and again wants to see the time pass. What is over by the node's time
    alone is not over until an entry says so: it has 0 left."""
    return max(0, deadline_ms - max(state.clock_ms, state.wall_ms))


def first_of(keys: list[bytes], bytes_max: int) -> list[bytes]:
    """As many of the keys as have so many bytes together, from the first on."""
    sizes = accumulate(map(len, keys))
    return keys[: sum(1 for _ in takewhile(lambda size: size <= bytes_max, sizes))]


def _bounded(number: object, most: int, name: str) -> int:
    """A limit that was asked for, at most ``most``; that for null. Raises BadRequest."""
    if number is None:
        return most
    if type(number) is not int or number < 1:
        raise BadRequest(f"{name} is a number from 1 on, not {number!r}")
    return min(number, most)
