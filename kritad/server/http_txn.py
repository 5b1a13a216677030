"""POST /v1/txn: comparisons, and what is done if they hold or if they do not, in one step.

    {"compare": [{"key": K, "revision": 17}, {"key": K, "value": V, "is": "!="},
                 {"key": K, "absent": true}],
     "then":    [{"do": "put", "key": K, "value": V}, {"do": "get", "key": K}, …],
     "else":    [{"do": "get", "key": K}]}

Whether the comparisons held is ``succeeded``; both ways the status is 200. A write that its
key does not allow (409) undoes all of it. With keys of several groups (kritad/coordinator.py)
nobody knows the writes' revisions yet: they are null.
"""

from __future__ import annotations

from attrs import frozen

from krita.errors import BadRequest, ProtocolError
from krita.limits import TXN_OPERATIONS_MAX
from krita.operations import Compare, Op, Relation
from kritad.server.http_answers import json_text
from kritad.server.http_batch import Write, idempotency_of, result_document, write_of
from kritad.server.http_exchange import Exchange
from kritad.server.http_json import Fields, body_of
from kritad.server.http_options import query_of

_NONE: frozenset[str] = frozenset()
_RELATIONS = {
    "=": Relation.EQUAL,
    "!=": Relation.UNEQUAL,
    "<": Relation.LESS,
    ">": Relation.GREATER,
}


@frozen
class Read:
    """A ``get`` of a transaction; it has the shape of a Write."""

    key: bytes

    @property
    def row(self) -> list[object]:
        """As a transaction has it."""
        return [int(Op.GET), self.key]


def txn(exchange: Exchange) -> None:
    """POST"""
    query_of(exchange, _NONE)
    body = body_of(exchange)
    most = TXN_OPERATIONS_MAX
    setting = "txn_operations_max"
    compare = body.array("compare", _comparison, most, setting=setting, needed=False)
    then = body.array("then", _operation, most, setting=setting, needed=False)
    otherwise = body.array("else", _operation, most, setting=setting, needed=False)
    body.done()
    keys = [row[0] for row in compare] + [each.key for each in then + otherwise]
    if not keys:
        raise BadRequest("the transaction names no key", hint='{"then":[{"do":"get","key":"a"}]}')
    fields = (
        None, None, None, keys[0], compare, [each.row for each in then],
        [each.row for each in otherwise], idempotency_of(exchange),
    )  # fmt: skip

    def done(exchange: Exchange, reply: object) -> None:
        match reply:
            case [int(revision), bool(succeeded), list(results), *_]:
                pass
            case _:
                raise ProtocolError("the reply to txn is malformed")
        document: dict[str, object] = {
            "status": "success",
            "succeeded": succeeded,
            "revision": revision or None,
            "results": [
                _result(each, result)
                for each, result in zip(then if succeeded else otherwise, results, strict=True)
            ],
        }
        headers = b"Krita-Revision: %d\r\n" % revision if revision else b""
        exchange.reply_json(200, document, headers)

    exchange.submit(Op.TXN, fields, done)


def _comparison(item: object, what: str) -> list[object]:
    fields = Fields(item, what)
    key = fields.key()
    relation = fields.text("is", "=")
    if relation not in _RELATIONS:
        raise fields.bad("is", f"one of {' '.join(_RELATIONS)}")
    said = [name for name in ("revision", "value", "absent") if name in fields]
    if len(said) != 1:
        raise BadRequest(f"{what} has one of revision, value and absent")
    row: list[object]
    if said == ["revision"]:
        row = [key, int(Compare.REVISION), int(_RELATIONS[relation]), fields.number("revision")]
    elif said == ["value"]:
        row = [key, int(Compare.VALUE), int(_RELATIONS[relation]), fields.data("value")]
    else:
        wanted = Relation.EQUAL if fields.flag("absent") else Relation.UNEQUAL
        if relation != "=":
            raise fields.bad("is", "= beside absent")
        row = [key, int(Compare.REVISION), int(wanted), 0]
    fields.done()
    return row


def _operation(item: object, what: str) -> Write | Read:
    fields = Fields(item, what)
    do = fields.text("do")
    found = Read(fields.key()) if do == "get" else write_of(fields, do, "get")
    fields.done()
    return found


def _result(each: Write | Read, result: object) -> dict[str, object]:
    document: dict[str, object] = {"key": json_text(each.key)}
    if isinstance(each, Write):
        return document | result_document(each.op, result)
    match result:
        case [bytes() | None as value, int() | None as revision, content_type, *_]:
            document["value"] = None if value is None else json_text(value)
            document["revision"] = revision
            if isinstance(content_type, str):
                document["content_type"] = content_type
            return document
    raise ProtocolError("the result of a get in a txn is malformed")
