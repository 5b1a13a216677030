"""What users do with keys, as requests to the host: one key, one group, one shard.

Limits are checked here, before anything is appended: what is in a log has a result on
every replica (state/user_keys.py), whatever the limits are by then. What reaches over
several shards is in gather.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from krita.codec import decode_body, encode_body
from krita.errors import BadRequest, SeveralGroups, TooLarge, Unavailable
from krita.limits import KEY_BYTES_MAX, TXN_OPERATIONS_MAX
from krita.operations import OPERATIONS, Consistency, Op
from krita.ring import META_SHARD, tag_of
from krita.values import iso_time
from kritad.cluster.model import SHARDS_MAX
from kritad.coordinator import Coordinator, may_wait
from kritad.host.host import Host
from kritad.host.nearest import nearest_voter
from kritad.host.request import Request, Respond
from kritad.state.memos import checked_name
from kritad.state.sessions import ID_BITS
from kritad.storage.places import INNER_PREFIX

Handler = Callable[[Op, bytes, float, bool, Respond], None]

# How far behind its leader a replica may be that a watch waits at.
_WATCH_STALENESS_MS_MAX = 2_000
# Characters. It is in no count of bytes: not of a shard's, a memtable's, a feed's.
_CONTENT_TYPE_MAX = 255
# A poll's answer has to get back before its request's deadline.
_WAIT_MARGIN_MS = 500.0

_FIELD = {
    op: {name: place for place, name in enumerate(OPERATIONS[op].fields)}
    for op in (Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH, Op.LOCK, Op.TXN)
}
_CONSISTENCIES = frozenset(map(int, Consistency))
_KEY = 3  # of a write's fields, behind the session's


class DataService:
    """See the module's docstring. Its handlers raise KritaError for what is wrong."""

    def __init__(
        self, host: Host, value_bytes_max: int, txn_operations_max: int = TXN_OPERATIONS_MAX
    ) -> None:
        self._txn_operations_max = txn_operations_max
        self._host = host
        self._value_bytes_max = value_bytes_max
        self._coordinator = Coordinator(host)
        self.handlers: dict[int, Handler] = {
            Op.GET: self._get,
            Op.KEY_HISTORY: self._history,
            Op.PUT: self._put,
            Op.DELETE: self._write_key,
            Op.ADD: self._write_key,
            Op.APPEND: self._append,
            Op.TOUCH: self._write_key,
            Op.LOCK: self._write_key,
            Op.TXN: self._txn,
            Op.SESSION_OPEN: self._session_open,
            Op.SESSION_KEEPALIVE: self._to_shard,
            Op.LEASE_CHANGE: self._to_shard,
            Op.TXN_PREPARE: self._prepare,
            Op.TXN_FINISH: self._to_shard,
            Op.TXN_DECIDE: self._to_home,
            Op.TXN_FORGET: self._to_home,
            Op.RETENTION_CHANGE: self._to_shard,
            Op.SHARD_SCAN: self._to_shard,
            Op.LEASE_STATE: self._to_shard,
            Op.RETENTION_STATE: self._to_shard,
            Op.CHANGES: self._changes,
        }

    def __repr__(self) -> str:
        return f"<DataService of {self._host!r}>"

    def _shard_of(self, key: Any) -> int:
        check_key(key)
        # Not by the map alone: it may lack a split that this node has been through.
        return self._host.owner(key)

    # --- reads -------------------------------------------------------------------------

    def _get(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        key, consistency, staleness_ms_max, revision_min, *then = decode_body(op, body)
        request = Request(op, body, key, self._shard_of(key), respond, deadline_ms, forwarded)  # type: ignore[arg-type]
        # By its type, too: 0.0 and false are equal to 0.
        known = type(consistency) is int and consistency in _CONSISTENCIES
        if consistency is not None and not known:
            raise BadRequest(f"consistency {consistency!r} is not known; 0 linearizable, 1 stale")
        if then != [None, None]:
            self._check_past(then[1])
            request.fields = then
        elif consistency == Consistency.STALE:
            replica = self._host.replicas.get(request.shard)
            staleness_ms = None if replica is None else replica.staleness_ms(self._host.clock)
            # One that is not filled yet, or was split, may not have the key.
            if (
                replica is not None
                and staleness_ms is not None
                and replica.state.owns(request.key)
                and staleness_ms <= _limit(staleness_ms_max, "staleness_ms_max", staleness_ms)
                and replica.state.index >= _limit(revision_min, "revision_min", 0)
            ):
                replica.answer_read(request, staleness_ms)
                return
            if not forwarded and staleness_ms_max is None and revision_min is None:
                request.nearest = self._nearest(request.shard)
        self._host.submit(request)

    def _check_past(self, at_ms: object) -> None:
        now_ms = self._host.clock.wall_ms()
        if type(at_ms) is int and at_ms > now_ms:
            raise BadRequest(f"{iso_time(at_ms)} is still to come: it is {iso_time(now_ms)}")

    def _nearest(self, shard: int) -> int:
        host = self._host
        leader, _ = host.leaders.of(shard)
        return nearest_voter(host.view, shard, host.node, host.transport.reachable(), leader)

    def _history(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        key, *fields = decode_body(op, body)
        shard = self._shard_of(key)
        request = Request(op, body, key, shard, respond, deadline_ms, forwarded)  # type: ignore[arg-type]
        request.fields = [*fields, self._value_bytes_max]
        self._host.submit(request)

    def _changes(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        shard, *fields = decode_body(op, body)
        after, wait_ms = fields[0], _limit(fields[4], "wait_ms", 0)
        fields[5] = self._bytes_max(fields[5])
        host = self._host
        request = Request(op, body, b"", self._known(shard), respond, deadline_ms, forwarded)
        request.fields = fields
        now_ms = host.clock.monotonic_ms()
        request.wait_until_ms = min(now_ms + wait_ms, deadline_ms - _WAIT_MARGIN_MS)
        replica = host.replicas.get(request.shard)
        if type(after) is int and replica is not None and not replica.leads:
            # Any replica that hears its leader will do, and spares two others a wait.
            staleness_ms = replica.staleness_ms(host.clock)
            hears = staleness_ms is not None and staleness_ms <= _WATCH_STALENESS_MS_MAX
            # One that asks for what is ahead of the log here comes from a replica that is ahead,
            # or from before the cluster was set back: the leader can tell.
            if hears and replica.state.feed.oldest <= after <= replica.raft.last_index:
                host.deadlines.add(request)
                replica.poll(request, now_ms)
                return
        host.submit(request)

    # --- writes ------------------------------------------------------------------------

    def _put(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        fields = decode_body(op, body)
        key = fields[_KEY]
        shard = self._shard_of(key)
        self._check_value(fields[4])
        _check_content_type(fields[5])
        if fields[9] is not None or fields[10] is not None:
            _check_guard(op, fields)
        self._write(op, body, key, shard, deadline_ms, forwarded, respond)

    def _write_key(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        fields = decode_body(op, body)
        key = fields[_KEY]
        shard = self._shard_of(key)
        _check_guard(op, fields)
        if op == Op.LOCK:
            self._check_value(fields[_FIELD[op]["owner"]])
        self._write(op, body, key, shard, deadline_ms, forwarded, respond)

    def _append(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        fields = decode_body(op, body)
        key = fields[_KEY]
        shard = self._shard_of(key)
        self._check_value(fields[4])
        _check_guard(op, fields)
        body = self._with_limit(op, body, fields)
        self._write(op, body, key, shard, deadline_ms, forwarded, respond)

    def _txn(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        fields = decode_body(op, body)
        key = fields[_KEY]
        shard = self._shard_of(key)
        _check_guard(op, fields)
        rows = [row for part in fields[4:7] if isinstance(part, list) for row in part]
        if len(rows) > self._txn_operations_max:
            raise TooLarge(
                f"the transaction has {len(rows)} comparisons and operations, the limit is"
                f" {self._txn_operations_max} together (txn_operations_max)"
            )
        keys = [key, *_txn_keys(fields)]
        for one in keys:
            check_key(one)
        for row in rows:
            for item in row[1:] if isinstance(row, list) else ():
                if type(item) is bytes:
                    self._check_value(item)
                elif type(item) is str:
                    _check_content_type(item)
        if len({tag_of(one) for one in keys}) > 1:
            # Whatever a client says: what the shards tell and decide goes through our frames
            # and entries.
            fields[-1] = max(1, self._bytes_max(fields[-1]))
            self._coordinator.begin(fields, deadline_ms, respond)
            return
        body = self._with_limit(op, body, fields)
        self._write(op, body, key, shard, deadline_ms, forwarded, respond, keys)

    def _with_limit(self, op: Op, body: bytes, fields: list[Any]) -> bytes:
        """The body with this node's ``value_bytes_max``, which is the field at its end. A
        client may ask for less, and never for more."""
        limit = max(1, self._bytes_max(fields[-1]))
        return body if fields[-1] == limit else encode_body(op, *fields[:-1], limit)

    def _write(
        self,
        op: Op,
        body: bytes,
        key: Any,
        shard: int,
        deadline_ms: float,
        forwarded: bool,
        respond: Respond,
        keys: Sequence[Any] = (),
    ) -> None:
        """``keys``: all that it touches, if these are several."""
        request = Request(op, body, key, shard, respond, deadline_ms, forwarded, write=True)
        request.fields = keys
        self._host.submit(request)

    def _check_value(self, value: object) -> None:
        if type(value) is not bytes:
            raise BadRequest("a value is a byte string")
        if len(value) > self._value_bytes_max:
            raise TooLarge(
                f"the value has {len(value)} bytes, this cluster takes {self._value_bytes_max}",
                hint="raise value_bytes_max on every node",
            )

    def _to_home(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        key = decode_body(op, body)[0]
        self._write(op, body, key, self._shard_of(key), deadline_ms, forwarded, respond)

    def _prepare(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        shard, _, _, keys, *_, wait_ms = decode_body(op, body)
        number = self._known(shard)
        request = Request(op, body, b"", number, respond, deadline_ms, forwarded, write=True)
        request.fields = keys if isinstance(keys, list) else ()
        may_wait(request, _limit(wait_ms, "wait_ms", 0), self._host.clock)
        self._host.submit(request)

    # --- by shard ----------------------------------------------------------------------

    def _session_open(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        """With an id that nobody had before, also where a backup has set the log back."""
        if not forwarded:
            shard = decode_body(op, body)[0]
            body = encode_body(op, shard, 1 + self._host.chance.getrandbits(ID_BITS))
        self._to_shard(op, body, deadline_ms, forwarded, respond)

    def _to_shard(
        self, op: Op, body: bytes, deadline_ms: float, forwarded: bool, respond: Respond
    ) -> None:
        shard, *fields = decode_body(op, body)
        write = OPERATIONS[op].write
        number = self._known(shard)
        request = Request(op, body, b"", number, respond, deadline_ms, forwarded, write)
        if not write:
            request.fields = fields
            if op == Op.SHARD_SCAN:
                fields[5] = self._bytes_max(fields[5])
            elif op == Op.LEASE_STATE:
                fields.append(self._value_bytes_max)
        self._host.submit(request)

    def _bytes_max(self, asked: object) -> int:
        """An answer has to fit into a client's frame, which is as long as a value may be."""
        return min(_limit(asked, "bytes_max", self._value_bytes_max), self._value_bytes_max)

    def _known(self, shard: object) -> int:
        if type(shard) is not int or not META_SHARD < shard <= SHARDS_MAX:
            raise BadRequest(f"there is no data shard {shard!r}")
        if shard not in self._host.view.shards and shard not in self._host.replicas:
            # Shards get their numbers in order and for ever, so this one may be new.
            raise Unavailable(f"this node knows no shard {shard} yet", hint="ask another node")
        return shard


def check_key(key: object) -> None:
    """Raises BadRequest or TooLarge for what cannot be a user's key."""
    if type(key) is not bytes or not key:
        raise BadRequest("a key is a byte string of at least one byte")
    if len(key) > KEY_BYTES_MAX:
        raise TooLarge(f"the key has {len(key)} bytes, a key has at most {KEY_BYTES_MAX}")
    if key.startswith(INNER_PREFIX):
        raise BadRequest("keys that begin with the byte 0xFF are the store's own")


def _check_content_type(content_type: object) -> None:
    # Of another kind it is refused when it is applied.
    if type(content_type) is str and len(content_type) > _CONTENT_TYPE_MAX:
        raise TooLarge(
            f"the content type has {len(content_type)} characters, the limit is {_CONTENT_TYPE_MAX}"
        )


def check_one_group(keys: Sequence[bytes]) -> None:
    """Raises SeveralGroups unless the keys are of one group."""
    groups = list(dict.fromkeys(tag_of(key) for key in keys))
    if len(groups) > 1:
        raise SeveralGroups(
            f"the keys are of {len(groups)} groups, and this is done within one",
            hint="give the keys the same text in braces: {shop}stock and {shop}orders are of one",
            detail={"groups": groups[:100]},
        )


def _check_guard(op: Op, fields: list[Any]) -> None:
    """What a write's conditions and its idempotency key may be."""
    places = _FIELD[op]
    name = fields[places["idempotency"]]
    if name is not None:
        checked_name(name)
    if_lock = fields[places["if_lock"]] if "if_lock" in places else None
    if if_lock is None:
        return
    match if_lock:
        case [bytes(lock), int(token)] if token > 0:
            check_key(lock)
            check_one_group([fields[_KEY], lock])
        case _:
            raise BadRequest("if_lock is [key of the lock, token]")


def _txn_keys(fields: list[Any]) -> list[Any]:
    """Every key that a transaction names. What is malformed is refused when it is applied,
    on every replica alike."""
    compare, then, otherwise = (part if isinstance(part, list) else [] for part in fields[4:7])
    found = [row[0] for row in compare if isinstance(row, list) and row]
    found += [row[1] for row in (*then, *otherwise) if isinstance(row, list) and len(row) > 1]
    return found


def _limit(number: object, name: str, default: int) -> int:
    if number is None:
        return default
    if type(number) is not int or number < 0:
        raise BadRequest(f"{name} is a whole number from 0 on, not {number!r}")
    return number
