"""POST /v1/kv/{key}?do=…: what would be a race if it were a GET and a PUT.

    do=add&by=N        add to a whole number; an absent one is 0
    do=append          put the body behind the value; an absent one is empty
    do=touch&ttl=S     let it last for so long from now, and change nothing else
    do=persist         let it last for ever

All take the conditions that a PUT takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from krita.errors import BadRequest, ProtocolError
from krita.operations import KEEP_TTL, Op
from kritad.server.http_answers import json_text
from kritad.server.http_exchange import Exchange, Otherwise
from kritad.server.http_kv import PREFIX, guarded_write
from kritad.server.http_names import checked_value, key_of
from kritad.server.http_options import LIFE, guard_of, life_of, query_of

_FIELDS = LIFE | {"do", "by"}
_DELTA = re.compile(rb"[+ -]?[0-9]{1,19}")  # a + in a query is a blank
_DELTA_MAX = (1 << 63) - 1

# What the operation has between its key and if_revision, and the ttl_ms and lease.
_Parts = tuple[Op, tuple[object, ...], tuple[int | None, int | None]]


def post(exchange: Exchange, value_bytes_max: int) -> None:
    """POST"""
    request = exchange.request
    fields = query_of(exchange, _FIELDS)
    key = key_of(request.path[len(PREFIX) :])
    do = fields.get("do", b"").decode("latin-1")
    if do not in _VERBS:
        raise BadRequest(
            "do must be add, append, touch or persist", hint="PUT sets a value as a whole"
        )
    if "by" in fields and do != "add":
        raise BadRequest("by goes with do=add")
    if request.body and do != "append":
        raise BadRequest(f"do={do} takes no body", hint="what it needs stands in the query")
    op, what, life = _VERBS[do](exchange, fields, value_bytes_max)
    guard = guard_of(request.headers)

    def write(exchange: Exchange, if_revision: int | None, otherwise: Otherwise) -> None:
        sent = (None, None, None, key, *what, if_revision, *life, guard.if_lock, guard.idempotency)
        exchange.submit(op, sent, partial(_done, key=key, op=op), otherwise)

    guarded_write(exchange, key, guard, write)


def _add(_exchange: Exchange, fields: dict[str, bytes], _value_bytes_max: int) -> _Parts:
    by = fields.get("by", b"1")
    if not _DELTA.fullmatch(by) or abs(int(by)) > _DELTA_MAX:
        raise BadRequest("by must be a whole number of at most 63 bits, such as 1 or -7")
    return Op.ADD, (int(by),), _kept(fields)


def _append(exchange: Exchange, fields: dict[str, bytes], value_bytes_max: int) -> _Parts:
    data = checked_value(exchange.request.body, value_bytes_max)
    return Op.APPEND, (data,), _kept(fields)


def _touch(_exchange: Exchange, fields: dict[str, bytes], _value_bytes_max: int) -> _Parts:
    ttl_ms, lease = life_of(fields)
    if lease is None and ttl_ms in (None, KEEP_TTL):
        raise BadRequest("do=touch needs ttl= or lease=", hint="do=persist takes both away")
    return Op.TOUCH, (), (ttl_ms, lease)


def _persist(_exchange: Exchange, fields: dict[str, bytes], _value_bytes_max: int) -> _Parts:
    if fields.keys() & LIFE:
        raise BadRequest("do=persist takes neither ttl nor lease")
    return Op.TOUCH, (), (None, None)


_VERBS: dict[str, Callable[[Exchange, dict[str, bytes], int], _Parts]] = {
    "add": _add,
    "append": _append,
    "touch": _touch,
    "persist": _persist,
}


def _kept(fields: dict[str, bytes]) -> tuple[int | None, int | None]:
    """What changes a value leaves alone how long it lasts, unless it says otherwise."""
    ttl_ms, lease = life_of(fields)
    return (KEEP_TTL, None) if ttl_ms is None and lease is None else (ttl_ms, lease)


def _done(exchange: Exchange, reply: object, key: bytes, op: Op) -> None:
    match reply:
        case [int(revision), bool(existed), *rest]:
            pass
        case _:
            raise ProtocolError("the reply to a write is malformed")
    if op == Op.TOUCH and not existed:
        exchange.reply_absent(key)
        return
    document: dict[str, object] = {
        "status": "success",
        "message": _MESSAGES[op],
        "key": json_text(key),
        "revision": revision,
    }
    if op in _RESULTS:
        document[_RESULTS[op]] = rest[0]
    headers = b'ETag: "%d"\r\nKrita-Revision: %d\r\n' % (revision, revision)
    exchange.reply_json(200 if existed else 201, document, headers)


_MESSAGES = {Op.ADD: "added", Op.APPEND: "appended", Op.TOUCH: "touched"}
_RESULTS = {Op.ADD: "number", Op.APPEND: "length"}
