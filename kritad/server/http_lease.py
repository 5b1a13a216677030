"""/v1/lease: what many keys share, and end with.

    POST   /v1/lease       {"ttl": 30}      201 {"lease": ID, "ttl": 30}
    GET    /v1/lease/ID    200 {"lease", "ttl", "left", "keys"} | 410
    PUT    /v1/lease/ID    keep it alive: from now on it lasts for its whole ttl again
    DELETE /v1/lease/ID    end it, and all its keys, now

A key is tied to a lease by ``?lease=ID`` of its PUT. A lease that has ended, or never was, is
410: which of the two is not known.
"""

from __future__ import annotations

from functools import partial

from krita.errors import ProtocolError
from krita.operations import Op
from kritad.server.http_answers import json_text
from kritad.server.http_exchange import Exchange
from kritad.server.http_json import body_of
from kritad.server.http_options import checked_ttl, lease_id, query_of

PREFIX = b"/v1/lease/"
_NONE: frozenset[str] = frozenset()


def grant(exchange: Exchange) -> None:
    """POST /v1/lease"""
    query_of(exchange, _NONE)
    body = body_of(exchange)
    ttl_ms = checked_ttl(body.seconds("ttl"))
    # A client that chooses the id itself may repeat the request.
    lease = lease_id(body.text("lease").encode()) if "lease" in body else None
    body.done()
    exchange.submit(Op.LEASE_GRANT, (ttl_ms, lease), _granted)


def _granted(exchange: Exchange, reply: object) -> None:
    match reply:
        case [int(lease), int(ttl_ms), *_]:
            location = b"Location: %b%d\r\n" % (PREFIX, lease)
            exchange.reply_json(201, {"lease": str(lease), "ttl": ttl_ms / 1000}, location)
        case _:
            raise ProtocolError("the reply to lease_grant is malformed")


def show(exchange: Exchange) -> None:
    """GET and HEAD /v1/lease/ID"""
    lease = _named(exchange)

    def shown(exchange: Exchange, reply: object) -> None:
        match reply:
            case [int(ttl_ms), int(left_ms), list(keys), *_]:
                exchange.reply_json(
                    200,
                    {
                        "lease": str(lease),
                        "ttl": ttl_ms / 1000,
                        "left": left_ms / 1000,
                        "keys": [json_text(key) for key in keys],
                    },
                )
            case _:
                raise ProtocolError("the reply to lease_show is malformed")

    exchange.submit(Op.LEASE_SHOW, (lease,), shown)


def keep_alive(exchange: Exchange) -> None:
    """PUT /v1/lease/ID"""
    lease = _named(exchange)

    def kept(exchange: Exchange, reply: object) -> None:
        match reply:
            case [int(ttl_ms), *_]:
                exchange.reply_json(200, {"lease": str(lease), "ttl": ttl_ms / 1000})
            case _:
                raise ProtocolError("the reply to lease_keepalive is malformed")

    exchange.submit(Op.LEASE_KEEPALIVE, (lease,), kept)


def revoke(exchange: Exchange) -> None:
    """DELETE /v1/lease/ID"""
    lease = _named(exchange)
    exchange.submit(Op.LEASE_REVOKE, (lease,), partial(_revoked, lease=lease))


def _revoked(exchange: Exchange, reply: object, lease: int) -> None:
    match reply:
        case [int(keys), *_]:
            exchange.reply_json(200, {"lease": str(lease), "keys": keys})
        case _:
            raise ProtocolError("the reply to lease_revoke is malformed")


def _named(exchange: Exchange) -> int:
    query_of(exchange, _NONE)
    return lease_id(exchange.request.path[len(PREFIX) :])
