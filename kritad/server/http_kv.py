"""/v1/kv/{key}: a value's bytes in and out, with revisions and conditions.

    GET, HEAD  200 the bytes, their Content-Type, ETag | 304 | 404 | 412
    PUT        201 new | 200 replaced | 412
    DELETE     204, Krita-Existed says whether there was anything

``ETag`` is the key's revision in quotes, ``Krita-Revision`` the revision of its
shard that the answer speaks of (on a 404 too: "absent, as of that revision").
"""

from __future__ import annotations

from functools import partial

from krita.errors import ProtocolError
from krita.operations import Consistency, Op
from krita.values import read_delete, read_put
from kritad.server.http_answers import absent_document, json_text_bytes
from kritad.server.http_conditions import NO_CONDITION, condition_of, failed, write_if
from kritad.server.http_exchange import Exchange, Otherwise
from kritad.server.http_names import (
    checked_value,
    consistency_of,
    form_fields,
    key_of,
    safe_content_type,
    stored_content_type,
)

PREFIX = b"/v1/kv/"
_READ_FIELDS = frozenset({"consistency"})
_NONE: frozenset[str] = frozenset()
_FORM = b"application/x-www-form-urlencoded"
# As json_bytes would make it, in a quarter of the time.
_PUT_DOCUMENT = b'{"status":"success","message":"%b","key":%b,"revision":%d}'


def get(exchange: Exchange) -> None:
    """GET and HEAD"""
    request = exchange.request
    fields = form_fields(request.query, _READ_FIELDS, "URL") if request.query else {}
    consistency = consistency_of(fields)
    key = key_of(request.path[len(PREFIX) :])
    then = partial(_got, key=key, stale=consistency is Consistency.STALE)
    exchange.submit(Op.GET, (key, int(consistency)), then)


def _got(exchange: Exchange, reply: object, key: bytes, stale: bool) -> None:
    value, revision, content_type, shard_revision, staleness_ms = read_get(reply)
    headers = b"Krita-Revision: %d\r\n" % shard_revision
    if stale:
        headers += b"Krita-Staleness-Ms: %d\r\n" % staleness_ms
    condition = condition_of(exchange.request.headers)
    if condition is not NO_CONDITION and not condition.holds(revision):
        if condition.match is not None and revision not in condition.match:
            exchange.fail(failed(condition, revision))
        else:
            exchange.reply(304, b"", b'%bETag: "%d"\r\n' % (headers, revision))
        return
    if value is None:
        exchange.reply_json(404, absent_document(key), headers)
        return
    # nosniff: a stored value must not become a page of this origin by its looks.
    headers += b'ETag: "%d"\r\nX-Content-Type-Options: nosniff\r\n' % revision
    exchange.reply(200, value, headers, safe_content_type(content_type))


def put(exchange: Exchange, value_bytes_max: int) -> None:
    """PUT"""
    request = exchange.request
    if request.query:
        form_fields(request.query, _NONE, "URL")
    key = key_of(request.path[len(PREFIX) :])
    value = checked_value(request.body, value_bytes_max)
    header = request.headers.get(b"content-type")
    if header == _FORM:
        header = None  # what curl says of all data; it is never true of bytes
    content_type = stored_content_type(header)

    def write(exchange: Exchange, if_revision: int | None, otherwise: Otherwise) -> None:
        fields = (None, None, None, key, value, content_type, if_revision)
        exchange.submit(Op.PUT, fields, partial(_put, key=key), otherwise)

    write_if(exchange, key, condition_of(request.headers), write)


def _put(exchange: Exchange, reply: object, key: bytes) -> None:
    put = read_put(reply)
    revision, existed = put.revision, put.existed
    exchange.reply(
        200 if existed else 201,
        _PUT_DOCUMENT % (b"replaced" if existed else b"created", json_text_bytes(key), revision),
        b'ETag: "%d"\r\nKrita-Revision: %d\r\n' % (revision, revision),
    )


def delete(exchange: Exchange) -> None:
    """DELETE"""
    request = exchange.request
    form_fields(request.query, _NONE, "URL")
    key = key_of(request.path[len(PREFIX) :])

    def write(exchange: Exchange, if_revision: int | None, otherwise: Otherwise) -> None:
        exchange.submit(Op.DELETE, (None, None, None, key, if_revision), _deleted, otherwise)

    write_if(exchange, key, condition_of(request.headers), write)


def _deleted(exchange: Exchange, reply: object) -> None:
    deleted = read_delete(reply)
    said = b"true" if deleted.existed else b"false"
    headers = b"Krita-Existed: %b\r\nKrita-Revision: %d\r\n" % (said, deleted.revision)
    exchange.reply(204, b"", headers)


def read_get(
    reply: object,
) -> tuple[bytes | None, int, str | None, int, int]:
    """Value, revision, content type, shard revision, staleness. ``read_value`` has
    no revision to give for a key that is absent. Raises ProtocolError."""
    match reply:
        case [
            bytes() | None as value, int(revision), str() | None as content_type,
            int(shard_revision), int() | None as staleness_ms, *_,
        ]:  # fmt: skip
            return value, revision, content_type, shard_revision, staleness_ms or 0
    raise ProtocolError("the reply to get is malformed")
