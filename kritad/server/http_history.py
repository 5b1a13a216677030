"""What keys were: /v1/history, /v1/undo, and for how long that is kept: /v1/retention.

    GET    /v1/history/{key}?limit=&before=   the newest versions, the newest first
    POST   /v1/undo/{key}                     make it what it was before its last change
    GET    /v1/retention                      of which prefixes versions are kept
    PUT    /v1/retention?prefix=P&keep=S      keep them for so long, from now on
    DELETE /v1/retention?prefix=P             not any more

Without a retention for a key nothing is known but what it is. What a key was at a moment is
GET /v1/kv/{key}?at=.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen

from krita.errors import BadRequest, Compacted, ProtocolError
from krita.operations import Op
from krita.values import iso_time, read_put
from kritad.server.http_answers import json_text
from kritad.server.http_exchange import Exchange
from kritad.server.http_names import key_of
from kritad.server.http_options import milliseconds, number, query_of

HISTORY = b"/v1/history/"
UNDO = b"/v1/undo/"
_HISTORY_FIELDS = frozenset({"limit", "before"})
_NONE: frozenset[str] = frozenset()
_LIMIT = 100


@frozen
class Version:
    """What a key was from ``revision`` on; ``value`` None: it was absent."""

    revision: int
    value: bytes | None
    content_type: str | None
    until_revision: int | None  # None: it still is
    until_ms: int | None

    @property
    def document(self) -> dict[str, object]:
        """As the history has it."""
        document: dict[str, object] = {
            "revision": self.revision,
            "value": None if self.value is None else json_text(self.value),
        }
        if self.content_type is not None:
            document["content_type"] = self.content_type
        if self.until_revision is not None and self.until_ms is not None:
            document["until_revision"] = self.until_revision
            document["until"] = iso_time(self.until_ms)
        return document


def _versions(reply: object) -> tuple[list[Version], int | None]:
    match reply:
        case [list(rows), int() | None as complete_from_ms, *_]:
            return [_version(row) for row in rows], complete_from_ms
    raise ProtocolError("the reply to key_history is malformed")


def _version(row: Any) -> Version:
    match row:
        case [
            int(revision), bytes() | None as value, str() | None as content_type,
            int() | None as until_revision, int() | None as until_ms, *_,
        ]:  # fmt: skip
            return Version(revision, value, content_type, until_revision, until_ms)
    raise ProtocolError("a version of key_history is malformed")


def history(exchange: Exchange) -> None:
    """GET and HEAD /v1/history/{key}"""
    fields = query_of(exchange, _HISTORY_FIELDS)
    key = key_of(exchange.request.path[len(HISTORY) :])
    limit = number(fields["limit"], "limit") if "limit" in fields else _LIMIT
    if not limit:
        raise BadRequest("limit must be at least 1")
    before = number(fields["before"], "before") if "before" in fields else None

    def told(exchange: Exchange, reply: object) -> None:
        versions, complete_from_ms = _versions(reply)
        document: dict[str, object] = {
            "key": json_text(key),
            "versions": [version.document for version in versions],
            "next_before": None,
            "complete_from": None if complete_from_ms is None else iso_time(complete_from_ms),
        }
        if not versions:
            exchange.reply_json(200, document)
        elif len(versions) >= limit:
            # Each version ended where the one behind it began.
            exchange.reply_json(200, document | {"next_before": versions[-1].revision})
        else:
            _look_behind(exchange, key, versions[-1].revision, document)

    exchange.submit(Op.KEY_HISTORY, (key, limit, before), told)


def _look_behind(exchange: Exchange, key: bytes, before: int, document: dict[str, object]) -> None:
    """Answer, with whether there is another page. One that is shorter than its limit may be
    the last, or as long as the database lets it be: only an empty one is surely the end."""

    def looked(exchange: Exchange, reply: object) -> None:
        older, _ = _versions(reply)
        exchange.reply_json(200, document | {"next_before": before if older else None})

    exchange.submit(Op.KEY_HISTORY, (key, 1, before), looked)


def undo(exchange: Exchange) -> None:
    """POST /v1/undo/{key}"""
    query_of(exchange, _NONE)
    key = key_of(exchange.request.path[len(UNDO) :])

    def looked(exchange: Exchange, reply: object) -> None:
        versions, _ = _versions(reply)
        if len(versions) == 1 and versions[0].until_revision is None:
            # The one before may be too large to be answered beside it.
            now = versions[0].revision
            then = partial(_undo_to, key=key, now=now)
            exchange.submit(Op.KEY_HISTORY, (key, 1, now), then)
        elif versions and versions[0].until_revision is None:
            _restore(exchange, key, versions[1], versions[0].revision)
        else:
            _undo_to(exchange, reply, key, 0)

    exchange.submit(Op.KEY_HISTORY, (key, 2, None), looked)


def _undo_to(exchange: Exchange, reply: object, key: bytes, now: int) -> None:
    """To the newest of these versions, from revision ``now``, or from absence. Raises
    Compacted when there is none."""
    versions, _ = _versions(reply)
    if not versions:
        raise Compacted(
            "what the key was before is not kept",
            hint="PUT /v1/retention?prefix=…&keep=…; from then on it is",
        )
    _restore(exchange, key, versions[0], now)


def _restore(exchange: Exchange, key: bytes, version: Version, if_revision: int) -> None:
    """Only if nobody has changed it since it was looked at."""
    plain = (None, None, None, key)
    then = partial(_restored, key=key, version=version)
    if version.value is None:
        exchange.submit(Op.DELETE, (*plain, if_revision), then)
    else:
        what = (version.value, version.content_type, if_revision)
        exchange.submit(Op.PUT, (*plain, *what), then)


def _restored(exchange: Exchange, reply: object, key: bytes, version: Version) -> None:
    revision = read_put(reply).revision  # a delete's reply has the same shape
    document: dict[str, object] = {
        "status": "success",
        "message": "deleted again" if version.value is None else "restored",
        "key": json_text(key),
        "revision": revision,
        "restored_revision": version.revision,
    }
    exchange.reply_json(200, document, b"Krita-Revision: %d\r\n" % revision)


# --- retentions ------------------------------------------------------------------------


def retentions(exchange: Exchange) -> None:
    """GET and HEAD /v1/retention"""
    query_of(exchange, _NONE)

    def then(exchange: Exchange, reply: object) -> None:
        match reply:
            case [list(rules), *_]:
                exchange.reply_json(200, {"rules": [_rule(rule) for rule in rules]})
            case _:
                raise ProtocolError("the reply to retention_list is malformed")

    exchange.submit(Op.RETENTION_LIST, (), then)


def _rule(rule: Any) -> dict[str, object]:
    match rule:
        case [bytes(prefix), int(retention_ms), int(since_ms), *_]:
            return {
                "prefix": json_text(prefix),
                "keep": retention_ms / 1000,
                "complete_from": iso_time(since_ms),
            }
    raise ProtocolError("a rule of retention_list is malformed")


def retain(exchange: Exchange) -> None:
    """PUT /v1/retention"""
    fields = query_of(exchange, frozenset({"prefix", "keep"}))
    if "prefix" not in fields or "keep" not in fields:
        raise BadRequest("prefix and keep are needed", hint="?prefix=config/&keep=86400")
    keep_ms = milliseconds(fields["keep"], "keep")
    if not keep_ms:
        raise BadRequest("keep must be more than no time", hint="DELETE ends a retention")
    _set(exchange, fields["prefix"], keep_ms)


def forget(exchange: Exchange) -> None:
    """DELETE /v1/retention"""
    fields = query_of(exchange, frozenset({"prefix"}))
    if "prefix" not in fields:
        raise BadRequest("prefix is needed", hint="?prefix=config/, or ?prefix= for the one of all")
    _set(exchange, fields["prefix"], 0)


def _set(exchange: Exchange, prefix: bytes, keep_ms: int) -> None:
    def then(exchange: Exchange, _reply: object) -> None:
        if not keep_ms:
            exchange.reply(204, b"")
            return
        document: dict[str, object] = {
            "status": "success",
            "message": "from now on",
            "prefix": json_text(prefix),
            "keep": keep_ms / 1000,
        }
        exchange.reply_json(200, document)

    exchange.submit(Op.RETENTION_SET, (prefix, keep_ms), then)
