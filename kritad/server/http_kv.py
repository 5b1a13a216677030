"""/v1/kv/{key}: a value's bytes in and out, with revisions and conditions.

    GET, HEAD  200 the bytes, their Content-Type, ETag | 304 | 404 | 412
    PUT        201 new | 200 replaced | 412
    DELETE     204, Krita-Existed says whether there was anything | 412

What may be asked besides is in http_options.py; a GET that waits for a change is in
http_wait.py, POST in http_verbs.py.

``ETag`` is the key's revision in quotes, ``Krita-Revision`` the revision of its
shard that the answer speaks of (on a 404 too: "absent, as of that revision").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define

from krita.errors import BadRequest, Compacted, KritaError, ProtocolError
from krita.operations import Consistency, Op
from krita.values import iso_time, read_delete, read_put
from kritad.server.http_answers import json_bytes, json_text, json_text_bytes
from kritad.server.http_conditions import NO_CONDITION, condition_of, failed, write_if
from kritad.server.http_exchange import Exchange, Otherwise
from kritad.server.http_names import (
    checked_value,
    key_of,
    safe_content_type,
    stored_content_type,
)
from kritad.server.http_options import (
    LIFE,
    MIN_REVISION,
    NO_GUARD,
    READ_FIELDS,
    Guard,
    flag,
    guard_of,
    life_of,
    query_of,
    reading_of,
)

PREFIX = b"/v1/kv/"
_WRITE_FIELDS = LIFE | {"previous"}
_DELETE_FIELDS = frozenset({"previous"})
_LINEARIZABLE = int(Consistency.LINEARIZABLE)
_FORM = b"application/x-www-form-urlencoded"
# As json_bytes would make it, in a quarter of the time.
_PUT_DOCUMENT = b'{"status":"success","message":"%b","key":%b,"revision":%d}'


@define(eq=False)  # frozen, it would cost three times as much to make
class Found:
    """The reply to ``get``."""

    value: bytes | None
    revision: int
    content_type: str | None
    shard_revision: int
    staleness_ms: int
    expires_in_ms: int | None = None
    lease: int | None = None

    @property
    def headers(self) -> bytes:
        """What an answer says of how long the value lasts."""
        lines = b""
        if self.expires_in_ms is not None:
            lines += b"Krita-Expires-In: %.3f\r\n" % (max(0, self.expires_in_ms) / 1000)
        if self.lease is not None:
            lines += b"Krita-Lease: %d\r\n" % self.lease
        return lines


def read_get(reply: object) -> Found:
    """``read_value`` has no revision to give for a key that is absent. Raises
    ProtocolError."""
    match reply:
        case [
            bytes() | None as value, int(revision), str() | None as content_type,
            int(shard_revision), int() | None as staleness_ms, *bond,
        ]:  # fmt: skip
            found = Found(value, revision, content_type, shard_revision, staleness_ms or 0)
            match bond:
                case [int() | None as expires_in_ms, int() | None as lease, *_]:
                    found.expires_in_ms, found.lease = expires_in_ms, lease
            return found
    raise ProtocolError("the reply to get is malformed")


def get(exchange: Exchange) -> None:
    """GET and HEAD"""
    request = exchange.request
    key = key_of(request.path[len(PREFIX) :])
    if not request.query and MIN_REVISION not in request.headers:
        exchange.submit(Op.GET, (key, _LINEARIZABLE), partial(_got, key=key))
        return
    reading = reading_of(query_of(exchange, READ_FIELDS), request.headers)
    otherwise = None if reading.at_ms is None else _failed_then
    then = partial(_got, key=key, stale=reading.stale)
    exchange.submit(Op.GET, (key, *reading.fields), then, otherwise)


def _got(exchange: Exchange, reply: object, key: bytes, stale: bool = False) -> None:
    answer_found(exchange, key, read_get(reply), stale=stale)


def _failed_then(exchange: Exchange, error: KritaError) -> None:
    """The database says in milliseconds from when on it knows what was: as ``at`` takes it."""
    oldest = error.detail.get("oldest")
    if isinstance(error, Compacted) and isinstance(oldest, int):
        error = Compacted(error.message, hint=error.hint, detail={"oldest": iso_time(oldest)})
    exchange.fail(error)


def answer_found(exchange: Exchange, key: bytes, found: Found, *, stale: bool = False) -> None:
    """Answer a GET with what was found."""
    revision = found.revision
    headers = b"Krita-Revision: %d\r\n" % found.shard_revision
    if stale:
        headers += b"Krita-Staleness-Ms: %d\r\n" % found.staleness_ms
    condition = condition_of(exchange.request.headers)
    if condition is not NO_CONDITION and not condition.holds(revision):
        if condition.match is not None and revision not in condition.match:
            exchange.fail(failed(condition, revision))
        else:
            exchange.reply(304, b"", b'%bETag: "%d"\r\n' % (headers, revision))
        return
    if found.value is None:
        exchange.reply_absent(key, headers)
        return
    if found.expires_in_ms is not None or found.lease is not None:
        headers += found.headers
    # nosniff: a stored value must not become a page of this origin by its looks.
    headers += b'ETag: "%d"\r\nX-Content-Type-Options: nosniff\r\n' % revision
    exchange.reply(200, found.value, headers, safe_content_type(found.content_type))


def put(exchange: Exchange, value_bytes_max: int) -> None:
    """PUT"""
    request = exchange.request
    ttl_ms = lease = None
    previous = False
    if request.query:
        fields = query_of(exchange, _WRITE_FIELDS)
        ttl_ms, lease = life_of(fields)
        previous = flag(fields, "previous")
    key = key_of(request.path[len(PREFIX) :])
    value = checked_value(request.body, value_bytes_max)
    content_type = body_type(exchange)
    guard = guard_of(request.headers)
    plain = guard is NO_GUARD and not request.query

    def write(exchange: Exchange, if_revision: int | None, otherwise: Otherwise) -> None:
        what: tuple[object, ...] = (None, None, None, key, value, content_type, if_revision)
        if not plain:  # as few fields as will do: the log keeps them
            what += (ttl_ms, lease, guard.if_lock, guard.idempotency, previous or None)
        then = partial(_put, key=key, previous=previous)
        exchange.submit(Op.PUT, what, then, otherwise)

    guarded_write(exchange, key, guard, write)


def body_type(exchange: Exchange) -> str | None:
    """The Content-Type to be stored with the request's body. Raises BadRequest."""
    header = exchange.request.headers.get(b"content-type")
    if header == _FORM:
        header = None  # what curl says of all data; it is never true of bytes
    return stored_content_type(header)


def guarded_write(
    exchange: Exchange,
    key: bytes,
    guard: Guard,
    write: Callable[[Exchange, int | None, Otherwise], None],
) -> None:
    """``write`` if the request's conditions hold. Raises BadRequest."""
    condition = condition_of(exchange.request.headers)
    if guard.idempotency is not None and condition is not NO_CONDITION and condition.only is None:
        # It is looked up first, and a repetition would find its own write.
        raise BadRequest(
            "Idempotency-Key goes with If-None-Match: * or with one revision in If-Match"
        )
    write_if(exchange, key, condition, write)


def _put(exchange: Exchange, reply: object, key: bytes, previous: bool) -> None:
    put = read_put(reply)
    revision, existed = put.revision, put.existed
    code, word = (200, b"replaced") if existed else (201, b"created")
    document = _PUT_DOCUMENT % (word, json_text_bytes(key), revision)
    if previous:
        document = document[:-1] + b',"previous":%b}' % json_bytes(previous_of(reply))
    headers = b'ETag: "%d"\r\nKrita-Revision: %d\r\n' % (revision, revision)
    exchange.reply(code, document, headers)


def previous_of(reply: object) -> dict[str, object] | None:
    """What the key was before a write that asked for it; None: it was absent."""
    match reply:
        case [_, _, [bytes(value), int(revision), content_type], *_]:
            document: dict[str, object] = {"value": json_text(value), "revision": revision}
            if isinstance(content_type, str):
                document["content_type"] = content_type
            return document
    return None


def delete(exchange: Exchange) -> None:
    """DELETE"""
    request = exchange.request
    previous = flag(query_of(exchange, _DELETE_FIELDS), "previous")
    key = key_of(request.path[len(PREFIX) :])
    guard = guard_of(request.headers)

    def write(exchange: Exchange, if_revision: int | None, otherwise: Otherwise) -> None:
        what: tuple[object, ...] = (None, None, None, key, if_revision)
        if guard or previous:
            what += (guard.if_lock, guard.idempotency, previous or None)
        then = partial(_deleted, key=key, previous=previous)
        exchange.submit(Op.DELETE, what, then, otherwise)

    guarded_write(exchange, key, guard, write)


def _deleted(exchange: Exchange, reply: object, key: bytes, previous: bool) -> None:
    deleted = read_delete(reply)
    said = b"true" if deleted.existed else b"false"
    headers = b"Krita-Existed: %b\r\nKrita-Revision: %d\r\n" % (said, deleted.revision)
    if not previous:
        exchange.reply(204, b"", headers)
        return
    document: dict[str, object] = {
        "status": "success",
        "message": "deleted" if deleted.existed else "there was no such key",
        "key": json_text(key),
        "revision": deleted.revision,
        "previous": previous_of(reply),
    }
    exchange.reply_json(200, document, headers)
