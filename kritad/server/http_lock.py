"""/v1/lock/{name}: locks whose holders can be told apart from those who only think they hold.

    POST   {"owner": O, "ttl": 10, "wait": 5}   200 {"token": T, …} | 423 owner, left
    PUT    {"token": T, "ttl": 10}              200, for longer | 412 it is lost
    DELETE ?token=T                             204 | 412 it is lost
    GET    200 {"owner", "token", "left"} | 404 it is free

A lock is a key: its value is the owner, its revision the token. A write with ``If-Lock:
NAME@TOKEN`` happens only while the lock is held by that very token, and that is decided
where the write is: a holder that was asleep for too long does no harm. For that the key and
the lock have to be of one group: {shop}lock and {shop}stock.

Taking it may be repeated: an owner that has it gets the same token again.

Waiting: first come, first served is not promised; whoever asks first when it is free has it.
"""

from __future__ import annotations

from functools import partial

from krita.errors import BadRequest, ConditionFailed, KritaError, Locked, ProtocolError
from krita.operations import Op
from krita.values import read_delete
from kritad.server.http_answers import NOT_APPLIED, json_text, refusal_document
from kritad.server.http_conditions import lock_lost
from kritad.server.http_exchange import Exchange
from kritad.server.http_json import body_of
from kritad.server.http_kv import Found, read_get
from kritad.server.http_names import key_of
from kritad.server.http_options import checked_ttl, lease_id, number, query_of
from kritad.server.http_stream import Sink
from kritad.server.http_wait import WAIT_S_MAX, KeyWait
from kritad.server.watches import Watches

PREFIX = b"/v1/lock/"
_NONE: frozenset[str] = frozenset()


def acquire(exchange: Exchange, watches: Watches) -> None:
    """POST"""
    name = _named(exchange)
    body = body_of(exchange)
    owner = body.data("owner")
    if not owner:
        raise body.bad("owner", "of at least one byte")
    ttl_ms = checked_ttl(body.seconds("ttl")) if "ttl" in body else None
    lease = lease_id(body.text("lease").encode()) if "lease" in body else None
    if ttl_ms is None and lease is None:
        raise BadRequest(
            "a lock has a ttl or a lease", hint="without either it outlives a holder that dies"
        )
    wait_s = body.seconds("wait", 0, most_s=WAIT_S_MAX) / 1000
    body.done()
    fields = (None, None, None, name, owner, ttl_ms, lease)
    if not wait_s:
        exchange.submit(Op.LOCK, fields, partial(_acquired, name=name))
        return

    async def work(exchange: Exchange, sink: Sink) -> None:
        with watches.place() as place:
            wait = KeyWait(exchange, sink, place, name, wait_s)
            _acquired(exchange, await _take(exchange, wait, fields), name)

    exchange.work = work


async def _take(exchange: Exchange, wait: KeyWait, fields: tuple[object, ...]) -> object:
    """The reply to ``lock``, once it is free. Raises Locked, when it is not in time."""
    while True:
        try:
            return await exchange.ask(Op.LOCK, fields)
        except Locked:
            if wait.is_over:
                raise
        found = await wait.look()
        if found.value is not None:
            await wait.poll(found.shard_revision)


def _acquired(exchange: Exchange, reply: object, name: bytes) -> None:
    match reply:
        case [int(token), bool(acquired), *_]:
            document: dict[str, object] = {
                "status": "success",
                "message": "acquired" if acquired else "held already, and for longer now",
                "lock": json_text(name),
                "token": token,
            }
            exchange.reply_json(200, document)
        case _:
            raise ProtocolError("the reply to lock is malformed")


def show(exchange: Exchange) -> None:
    """GET and HEAD"""
    name = _named(exchange)

    def shown(exchange: Exchange, reply: object) -> None:
        found = read_get(reply)
        headers = b"Krita-Revision: %d\r\n" % found.shard_revision
        if found.value is None:
            exchange.reply_json(404, _free(name), headers + NOT_APPLIED)
        else:
            exchange.reply_json(200, _holder(name, found), headers)

    exchange.submit(Op.GET, (name,), shown)


def _free(name: bytes) -> dict[str, object]:
    document = refusal_document("nobody holds the lock", "POST takes it", "not_found")
    return document | {"lock": json_text(name)}


def _holder(name: bytes, found: Found) -> dict[str, object]:
    assert found.value is not None
    document: dict[str, object] = {
        "lock": json_text(name),
        "owner": json_text(found.value),
        "token": found.revision,
    }
    if found.expires_in_ms is not None:
        document["left"] = max(0, found.expires_in_ms) / 1000
    if found.lease is not None:
        document["lease"] = str(found.lease)
    return document


def renew(exchange: Exchange) -> None:
    """PUT"""
    name = _named(exchange)
    body = body_of(exchange)
    token = body.number("token", least=1)
    ttl_ms = checked_ttl(body.seconds("ttl"))
    body.done()

    def renewed(exchange: Exchange, _reply: object) -> None:
        document: dict[str, object] = {
            "status": "success",
            "message": "renewed",
            "lock": json_text(name),
            "token": token,
        }
        exchange.reply_json(200, document)

    fields = (None, None, None, name, token, ttl_ms)
    exchange.submit(Op.TOUCH, fields, renewed, _lost)


def release(exchange: Exchange) -> None:
    """DELETE"""
    name = key_of(exchange.request.path[len(PREFIX) :])
    fields = query_of(exchange, frozenset({"token"}))
    if "token" not in fields:
        raise BadRequest("token is missing", hint="?token= what taking the lock has answered")
    token = number(fields["token"], "token")
    if not token:
        raise BadRequest("token must be what taking the lock has answered")

    def released(exchange: Exchange, reply: object) -> None:
        exchange.reply(204, b"", b"Krita-Revision: %d\r\n" % read_delete(reply).revision)

    exchange.submit(Op.DELETE, (None, None, None, name, token), released, _lost)


def _lost(exchange: Exchange, error: KritaError) -> None:
    exchange.fail(lock_lost(error) if isinstance(error, ConditionFailed) else error)


def _named(exchange: Exchange) -> bytes:
    query_of(exchange, _NONE)
    return key_of(exchange.request.path[len(PREFIX) :])
