"""GET /v1/kv: keys in order, by pages, or all of them as a stream.

    ?prefix=P | ?start=A&stop=B    which; all without them. stop is the first one left out
    &limit=N                       a page has no more than that, and may have less
    &reverse&keys_only&count
    &cursor=C                      the ``next_cursor`` of the page before

With ``Accept: application/x-ndjson`` all pages follow each other, one key a line. One page
at a time is in memory, and the next is asked for when the client has taken it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from attrs import evolve, frozen

from krita.codec import CodecError, decode, encode
from krita.errors import BadRequest, KritaError, ProtocolError
from krita.operations import Op, What
from kritad.server.http_answers import NDJSON, error_document, json_bytes, json_text
from kritad.server.http_exchange import Exchange
from kritad.server.http_names import accepts
from kritad.server.http_options import RANGE_FIELDS, flag, number, query_of, range_of
from kritad.server.http_stream import Sink

_FIELDS = RANGE_FIELDS | {"limit", "reverse", "keys_only", "count", "cursor"}
_CURSOR_VERSION = 1


@frozen
class Scan:
    """What is still to be told: a range of keys, and how."""

    start: bytes
    stop: bytes | None
    limit: int | None
    reverse: bool
    keys_only: bool

    @property
    def fields(self) -> tuple[object, ...]:
        """As the operation has them."""
        what = What.KEYS if self.keys_only else What.ROWS
        return self.start, self.stop, self.limit, self.reverse, int(what)

    def behind(self, edge: bytes) -> Scan:
        """The rest, from where a page has ended."""
        return evolve(self, stop=edge) if self.reverse else evolve(self, start=edge)

    def cursor(self, edge: bytes) -> str:
        """Where a page has ended, as text for the next request."""
        item = [_CURSOR_VERSION, self.reverse, edge]
        return base64.urlsafe_b64encode(encode(item)).rstrip(b"=").decode()

    def resumed(self, cursor: bytes) -> Scan:
        """The rest, from a cursor on. Raises BadRequest."""
        try:
            item = decode(base64.urlsafe_b64decode(cursor + b"=="))
        except (binascii.Error, CodecError):
            item = None
        match item:
            case [int(version), bool(reverse), bytes(edge)] if (
                version == _CURSOR_VERSION
                and reverse == self.reverse
                and self.start <= edge
                and (self.stop is None or edge <= self.stop)
            ):
                return self.behind(edge)
        raise BadRequest(
            "the cursor is not of this scan", hint="send the same URL again, and the cursor"
        )


def scan(exchange: Exchange) -> None:
    """GET and HEAD"""
    fields = query_of(exchange, _FIELDS)
    start, stop = range_of(fields)
    reverse, keys_only = flag(fields, "reverse"), flag(fields, "keys_only")
    limit = number(fields["limit"], "limit") if "limit" in fields else None
    if limit == 0:
        raise BadRequest("limit must be at least 1")
    if flag(fields, "count"):
        if fields.keys() - RANGE_FIELDS - {"count"}:
            raise BadRequest("count goes with a range, and with nothing else")
        exchange.submit(Op.SCAN, (start, stop, None, False, int(What.COUNT)), _counted)
        return
    wanted = Scan(start, stop, limit, reverse, keys_only)
    if "cursor" in fields:
        wanted = wanted.resumed(fields["cursor"])
    request = exchange.request
    if accepts(request.headers.get(b"accept"), NDJSON) and request.method != b"HEAD":
        exchange.work = _Lines(wanted).work
        return

    def then(exchange: Exchange, reply: object) -> None:
        rows, edge = _page(reply)
        items = [_item(row) for row in rows]
        cursor = None if edge is None else wanted.cursor(edge)
        exchange.reply_json(200, {"items": items, "next_cursor": cursor})

    exchange.submit(Op.SCAN, wanted.fields, then)


def _counted(exchange: Exchange, reply: object) -> None:
    match reply:
        case [int(count), *_]:
            exchange.reply_json(200, {"count": count})
        case _:
            raise ProtocolError("the reply to scan is malformed")


@frozen
class _Lines:
    """A scan as a stream of lines."""

    scan: Scan

    async def work(self, exchange: Exchange, sink: Sink) -> None:
        """What is asked for before the first line may still be refused with a status; what
        fails later is the last line, and the answer then ends without its end."""
        wanted = self.scan
        left = wanted.limit
        rows, edge = _page(await exchange.ask(Op.SCAN, wanted.fields))
        await sink.begin(NDJSON)
        while True:
            if rows:
                await sink.write(b"".join(json_bytes(_item(row)) + b"\n" for row in rows))
            if left is not None:
                left -= len(rows)
            if edge is None or left == 0:
                break
            wanted = evolve(wanted.behind(edge), limit=left)
            try:
                rows, edge = _page(await exchange.ask(Op.SCAN, wanted.fields))
            except KritaError as error:
                await sink.write(json_bytes(error_document(error)) + b"\n")
                return
        await sink.finish()


def _page(reply: object) -> tuple[list[Any], bytes | None]:
    match reply:
        case [list(rows), bytes() | None as edge, *_]:
            return rows, edge
    raise ProtocolError("the reply to scan is malformed")


def _item(row: object) -> dict[str, object]:
    match row:
        case [
            bytes(key), bytes() | None as value, int(revision), str() | None as content_type, *bond,
        ]:  # fmt: skip
            return item_document(key, value, revision, content_type, bond)
    raise ProtocolError("a row of a scan is malformed")


def item_document(
    key: bytes, value: bytes | None, revision: int, content_type: str | None, bond: list[Any]
) -> dict[str, object]:
    """A key as lists have it; ``bond`` is [expires_in_ms, lease], or empty. Without a value
    if that is None."""
    document: dict[str, object] = {"key": json_text(key)}
    if value is not None:
        document["value"] = json_text(value)
    document["revision"] = revision
    if content_type is not None:
        document["content_type"] = content_type
    expires_in_ms, lease, *_ = [*bond, None, None]
    if expires_in_ms is not None:
        document["expires_in"] = max(0, expires_in_ms) / 1000
    if lease is not None:
        document["lease"] = str(lease)
    return document
