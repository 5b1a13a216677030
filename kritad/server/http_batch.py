"""POST /v1/get and /v1/bulk: many keys in one request, each for itself.

Nothing here happens in one step: every key is read, and every write happens or fails, as if
it had come alone (http_txn.py has what belongs together). What it saves is round trips.

A write is an object: ``{"do":"put","key":…,"value":…}``, as in a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256

from attrs import define, field, frozen

from krita.errors import BadRequest, KritaError, ProtocolError, TooLarge
from krita.limits import IDEMPOTENCY_KEY_BYTES_MAX
from krita.operations import Op
from kritad.server.http_answers import (
    absent_document,
    error_code,
    error_document,
    json_bytes,
    json_text,
)
from kritad.server.http_exchange import Exchange
from kritad.server.http_json import Fields, body_of, key_item
from kritad.server.http_kv import Found, previous_of, read_get
from kritad.server.http_names import stored_content_type
from kritad.server.http_options import guard_of, query_of
from kritad.server.http_scan import item_document

# So many keys are read at a time: each may be a whole value.
_READS_MAX = 32
# Of the answer as it is sent: in JSON a byte takes up to six, and making them takes the loop's
# time, so each value is written out when it comes, and none behind the limit.
GET_BYTES_MAX = 16 << 20
_NONE: frozenset[str] = frozenset()
_OF_ONE_KEY = (b"if-match", b"if-none-match", b"if-lock")


def get_many(exchange: Exchange, keys_max: int) -> None:
    """POST /v1/get"""
    query_of(exchange, _NONE)
    body = body_of(exchange)
    keys = body.array("keys", key_item, keys_max, setting="bulk_max")
    body.done()
    exchange.check(Op.GET)  # who may not read at all hears it once
    exchange.limit_whole()  # without a quorum each lot would have to wait in vain anew
    _Reads(keys).go_on(exchange)


@define(eq=False)
class _Reads:
    """The keys of one request, a few at a time."""

    keys: list[bytes]
    found: dict[int, bytes] = field(factory=dict, init=False)  # items, as they are sent
    asked: int = field(default=0, init=False)
    size: int = field(default=0, init=False)

    def go_on(self, exchange: Exchange) -> None:
        """Ask for the next ones, or answer."""
        if self.asked == len(self.keys):
            items = b",".join([self.found[i] for i in range(len(self.keys))])
            exchange.reply(200, b'{"items":[%b]}' % items)
            return
        first, self.asked = self.asked, min(self.asked + _READS_MAX, len(self.keys))
        for place in range(first, self.asked):
            exchange.submit(
                Op.GET,
                (self.keys[place],),
                partial(self._take, place=place),
                partial(self._failed, place=place),
            )

    def _take(self, exchange: Exchange, reply: object, place: int) -> None:
        if exchange.answer is not None:
            return
        found = read_get(reply)
        self._check(self.size + len(found.value or b""))
        self._note(exchange, place, _document(self.keys[place], found))

    def _check(self, size: int) -> None:
        if size > GET_BYTES_MAX:
            raise TooLarge(
                f"the answer would be over {GET_BYTES_MAX} bytes", hint="ask for fewer keys"
            )

    def _failed(self, exchange: Exchange, error: KritaError, place: int) -> None:
        self._note(exchange, place, {"key": json_text(self.keys[place])} | _failure(error))

    def _note(self, exchange: Exchange, place: int, document: dict[str, object]) -> None:
        self.found[place] = item = json_bytes(document)
        self.size += len(item)
        self._check(self.size)
        if len(self.found) == self.asked and exchange.answer is None:
            self.go_on(exchange)


def _document(key: bytes, found: Found) -> dict[str, object]:
    bond = [found.expires_in_ms, found.lease]
    document = item_document(key, found.value, found.revision, found.content_type, bond)
    return document | {"value": None} if found.value is None else document


def _failure(error: KritaError) -> dict[str, object]:
    """What an error is among other results."""
    return {"http": error_code(error)} | error_document(error)


# --- writes ----------------------------------------------------------------------------


@frozen
class Write:
    """One write of a request: the operation, its key, and what it has between that and
    ``if_revision``; how long the value lasts (None: it takes no life)."""

    op: Op
    key: bytes
    what: tuple[object, ...]
    life: tuple[int | None, int | None] | None

    def fields(self, if_revision: int | None, idempotency: bytes | None) -> tuple[object, ...]:
        """As the operation has them when it stands for itself."""
        life = () if self.life is None else self.life
        plain = (None, None, None, self.key, *self.what, if_revision)
        if idempotency is None and not any(part is not None for part in life):
            return plain
        return (*plain, *life, None, idempotency)

    @property
    def row(self) -> list[object]:
        """As a transaction has it."""
        return [int(self.op), self.key, *self.what, *(self.life or ())]


def _put(item: Fields) -> tuple[Op, tuple[object, ...]]:
    value, said = item.data("value"), item.optional_text("content_type")
    return Op.PUT, (value, stored_content_type(None if said is None else said.encode()))


def _add(item: Fields) -> tuple[Op, tuple[object, ...]]:
    return Op.ADD, (item.number("by", 1, least=1 - (1 << 63)),)


def _append(item: Fields) -> tuple[Op, tuple[object, ...]]:
    return Op.APPEND, (item.data("value"),)


_VERBS: dict[str, Callable[[Fields], tuple[Op, tuple[object, ...]]]] = {
    "put": _put,
    "delete": lambda _item: (Op.DELETE, ()),
    "add": _add,
    "append": _append,
    "touch": lambda _item: (Op.TOUCH, ()),
    "persist": lambda _item: (Op.TOUCH, ()),
}
_KEEPS = frozenset({"add", "append"})  # the life that the key has, unless they say otherwise


def write_of(item: Fields, do: str, *others: str) -> Write:
    """What an object says that is to be done; ``others`` it might have said besides. Raises
    BadRequest."""
    if do not in _VERBS:
        raise item.bad("do", f"one of {', '.join(sorted([*_VERBS, *others]))}")
    key = item.key()
    op, what = _VERBS[do](item)
    life: tuple[int | None, int | None] | None = None
    if do == "persist":
        life = None, None
    elif do != "delete":
        life = item.life()
        if life == (None, None) and do in _KEEPS:
            life = -1, None
        if life[0] in (None, -1) and life[1] is None and do == "touch":
            raise BadRequest(f"{item.what} has neither ttl nor lease, and touch needs one")
    return Write(op, key, what, life)


@frozen
class _Item:
    write: Write
    if_revision: int | None


def _item(item: object, what: str) -> _Item:
    fields = Fields(item, what)
    if "if_revision" in fields and "if_absent" in fields:
        raise BadRequest(f"{what} has both if_revision and if_absent", hint="send one of them")
    if_revision = fields.number("if_revision") if "if_revision" in fields else None
    if fields.flag("if_absent"):
        if_revision = 0
    write = write_of(fields, fields.text("do"))
    fields.done()
    return _Item(write, if_revision)


def bulk(exchange: Exchange, items_max: int) -> None:
    """POST /v1/bulk"""
    query_of(exchange, _NONE)
    body = body_of(exchange)
    items = body.array("operations", _item, items_max, setting="bulk_max")
    body.done()
    exchange.check(Op.PUT)
    exchange.limit_whole()
    _Writes(items, idempotency_of(exchange)).submit(exchange)


def idempotency_of(exchange: Exchange) -> bytes | None:
    """The Idempotency-Key of a request that has its conditions in its body. Raises
    BadRequest for the headers that would say them of one key."""
    headers = exchange.request.headers
    for name in _OF_ONE_KEY:
        if name in headers:
            raise BadRequest(
                f"{name.decode().title()} is about one key, and this request about several",
                hint="say it in the body, for each",
            )
    return guard_of(headers).idempotency


def _name_of_write(idempotency: bytes, place: int) -> bytes:
    """What a write of a bulk is remembered by. The same at every node of every version, for
    a bulk may be sent again to another one."""
    name = idempotency + b"#%d" % place
    if len(name) > IDEMPOTENCY_KEY_BYTES_MAX:
        return sha256(name).hexdigest().encode()
    return name


@define(eq=False)
class _Writes:
    """The writes of one request, all under way at once."""

    items: list[_Item]
    idempotency: bytes | None
    results: dict[int, dict[str, object]] = field(factory=dict, init=False)

    def submit(self, exchange: Exchange) -> None:
        """Submit all, in order: those of one key happen in it."""
        if not self.items:
            exchange.reply_json(200, {"results": []})
        for place, item in enumerate(self.items):
            name = None
            if self.idempotency is not None:  # each write is remembered for itself
                name = _name_of_write(self.idempotency, place)
            exchange.submit(
                item.write.op,
                item.write.fields(item.if_revision, name),
                partial(self._done, place=place),
                partial(self._failed, place=place),
            )

    def _done(self, exchange: Exchange, reply: object, place: int) -> None:
        item = self.items[place]
        document = result_document(item.write.op, reply)
        if document["existed"] or item.write.op == Op.DELETE:
            code = 200
        elif item.write.op == Op.TOUCH:
            self._note(exchange, place, {"http": 404} | absent_document(item.write.key))
            return
        else:
            code = 201
        self._note(exchange, place, {"http": code, "status": "success"} | document)

    def _failed(self, exchange: Exchange, error: KritaError, place: int) -> None:
        self._note(exchange, place, _failure(error))

    def _note(self, exchange: Exchange, place: int, document: dict[str, object]) -> None:
        self.results[place] = document
        if len(self.results) == len(self.items):
            results = [self.results[i] for i in range(len(self.items))]
            exchange.reply_json(200, {"results": results})


def result_document(op: Op, reply: object) -> dict[str, object]:
    """What a write that has happened answers, in a list. Raises ProtocolError."""
    match reply:
        case [int() | None as revision, existed, *rest]:
            pass  # None: of a transaction over several groups, where nobody knows it yet
        case _:
            raise ProtocolError("the reply to a write is malformed")
    document: dict[str, object] = {"revision": revision, "existed": bool(existed)}
    if op == Op.ADD:
        document["number"] = rest[0]
    elif op == Op.APPEND:
        document["length"] = rest[0]
    elif rest and rest[0]:
        document["previous"] = previous_of(reply)
    return document
