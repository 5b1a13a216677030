"""The addresses that the first users know, byte for byte.

    GET    /key?value=NAME     200 {"status":"success","message":…,"key":NAME,"value":…} | 404
    GET    /NAME               the same
    PUT    /NAME  value=V      200 {"status":"success","message":"200 ok","key":NAME}
    PUT    /key   key=NAME&value=V     the same; without a key field, sets the key "key"
    DELETE /NAME               200 {"status":"success",…} | 404

A PUT's body is a form (``curl -d "value=V"``), whatever its Content-Type says:
people who type HTTP by hand send none. Everything behind the first slash is the
name, further slashes included. Conditions and idempotency keys are refused (http_routes.py).
"""

from __future__ import annotations

from functools import partial

from krita.errors import BadRequest
from krita.operations import Op
from krita.values import read_delete
from kritad.server.http_answers import json_text
from kritad.server.http_exchange import Exchange
from kritad.server.http_kv import read_get
from kritad.server.http_names import (
    checked_key,
    checked_value,
    form_fields,
    key_of,
)
from kritad.server.http_options import query_of, reading_of

_READ_FIELDS = frozenset({"consistency", "max_staleness"})
_KEY_QUERY_FIELDS = _READ_FIELDS | {"value"}
_FORM_FIELDS = frozenset({"value"})
_KEY_FORM_FIELDS = frozenset({"key", "value"})
_NONE: frozenset[str] = frozenset()


def get_by_query(exchange: Exchange) -> None:
    """GET /key?value=NAME"""
    fields = query_of(exchange, _KEY_QUERY_FIELDS)
    name = fields.pop("value", b"")
    if not name:
        raise BadRequest("the URL names no key: ?value= is missing", hint="GET /key?value=NAME")
    _get(exchange, checked_key(name), fields)


def get_by_name(exchange: Exchange) -> None:
    """GET /NAME"""
    fields = query_of(exchange, _READ_FIELDS)
    _get(exchange, key_of(exchange.request.path[1:]), fields)


def put_by_form(exchange: Exchange, value_bytes_max: int) -> None:
    """PUT /key with key=NAME&value=V"""
    fields = _form(exchange, _KEY_FORM_FIELDS)
    _put(exchange, checked_key(fields.get("key", b"key")), fields, value_bytes_max)


def put_by_name(exchange: Exchange, value_bytes_max: int) -> None:
    """PUT /NAME with value=V"""
    key = key_of(exchange.request.path[1:])
    _put(exchange, key, _form(exchange, _FORM_FIELDS), value_bytes_max)


def delete_by_name(exchange: Exchange) -> None:
    """DELETE /NAME"""
    query_of(exchange, _NONE)
    key = key_of(exchange.request.path[1:])
    exchange.submit(Op.DELETE, (None, None, None, key, None), partial(_deleted, key=key))


def _form(exchange: Exchange, allowed: frozenset[str]) -> dict[str, bytes]:
    request = exchange.request
    query_of(exchange, _NONE)
    form = request.body.removesuffix(b"\r\n")  # typed by hand, or from a file
    instead = ""
    try:
        fields = form_fields(form, allowed, "form")
    except BadRequest as error:
        if b"value=" in form:
            raise
        # What is missing is said first; something else may stand in its place.
        fields, instead = {}, f"; {error.message}"
    if "value" not in fields:
        raise BadRequest(
            f"the body has no value field{instead}",
            hint='send the form value=V, as curl -d "value=V" does, or bytes to /v1/kv/NAME',
        )
    return fields


def _get(exchange: Exchange, key: bytes, fields: dict[str, bytes]) -> None:
    reading = reading_of(fields, exchange.request.headers)
    then = partial(_got, key=key, stale=reading.stale)
    exchange.submit(Op.GET, (key, *reading.fields), then)


def _got(exchange: Exchange, reply: object, key: bytes, stale: bool) -> None:
    found = read_get(reply)
    headers = b"Krita-Staleness-Ms: %d\r\n" % found.staleness_ms if stale else b""
    if found.value is None:
        exchange.reply_absent(key, headers)
        return
    exchange.reply_json(
        200,
        {
            "status": "success",
            "message": "200 ok",
            "key": json_text(key),
            "value": json_text(found.value),
        },
        headers,
    )


def _put(exchange: Exchange, key: bytes, fields: dict[str, bytes], value_bytes_max: int) -> None:
    value = checked_value(fields["value"], value_bytes_max)
    exchange.submit(
        Op.PUT, (None, None, None, key, value, None, None), partial(_done, key=key)
    )  # fmt: skip


def _done(exchange: Exchange, _reply: object, key: bytes) -> None:
    exchange.reply_json(
        200, {"status": "success", "message": "200 ok", "key": json_text(key)}
    )  # fmt: skip


def _deleted(exchange: Exchange, reply: object, key: bytes) -> None:
    if read_delete(reply).existed:
        _done(exchange, reply, key)
    else:
        exchange.reply_absent(key)
