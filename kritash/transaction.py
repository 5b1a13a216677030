"""What a transaction is made of, as people write it. Pure.

In JSON it is what HTTP's /v1/txn takes:

    {"compare": [{"key": "k", "revision": 17}, {"key": "k", "value": "v", "is": "!="},
                 {"key": "k", "absent": true}],
     "then": [{"do": "put", "key": "k", "value": "w", "ttl": 30}],
     "else": [{"do": "get", "key": "k"}]}

In lines (``transaction_lines`` reads them) it is nearly a sentence. What is not understood is
an error that names its place: nothing is guessed, and nothing sent.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import TypeVar

import attrs

from krita import steps
from krita.operations import KEEP_TTL
from krita.steps import Comparison, Step
from kritash.words import ParseError

T = TypeVar("T")
HINT = "'help txn' shows how they are written"
RELATIONS = {"=": "==", "==": "==", "!=": "!=", "<": "<", ">": ">"}
_BYTES = 'text or {"base64": "…"}'


@attrs.frozen
class Named:
    """A step, and what it was called: ``put``, ``add``."""

    do: str
    step: Step


@attrs.frozen
class Transaction:
    """What is compared, and what is done if all of that holds, or if not."""

    compare: tuple[Comparison, ...] = ()
    then: tuple[Named, ...] = ()
    otherwise: tuple[Named, ...] = ()


def transaction_of(text: str) -> Transaction:
    """The transaction that a JSON text says. Raises ParseError, and KritaError for a key or a
    value that no cluster takes."""
    try:
        item = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"the transaction is no JSON: {error}", hint=HINT) from error
    fields = Fields(item, "the transaction")
    found = Transaction(
        fields.array("compare", _comparison),
        fields.array("then", _step),
        fields.array("else", _step),
    )
    fields.done()
    return found


class Fields:
    """One object, called ``what`` in errors. A field is taken once; ``done`` refuses the rest."""

    def __init__(self, item: object, what: str) -> None:
        if not isinstance(item, dict):
            raise ParseError(f"{what} must be an object", hint=HINT)
        self._left: dict[str, object] = dict(item)
        self.what = what

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> object:
        """The field, whatever it is. Raises ParseError, as the others do."""
        if name not in self._left:
            raise ParseError(f"{self.what} has no {name!r}", hint=HINT)
        return self._left.pop(name)

    def wrong(self, name: str, wanted: str) -> ParseError:
        """The error of a field that is not what it should be."""
        return ParseError(f"{name!r} of {self.what} must be {wanted}", hint=HINT)

    def data(self, name: str) -> bytes:
        """Bytes."""
        match self.take(name):
            case str(text):
                return text.encode("utf-8", "surrogateescape")
            case {"base64": str(text), **others} if not others:
                try:
                    return base64.b64decode(text, validate=True)
                except (binascii.Error, ValueError) as error:
                    raise self.wrong(name, f"{_BYTES}, and is no base64") from error
        raise self.wrong(name, _BYTES)

    def text(self, name: str, default: str | None = None) -> str:
        """Text."""
        found = default if default is not None and name not in self else self.take(name)
        if not isinstance(found, str):
            raise self.wrong(name, "text")
        return found

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        found = default if default is not None and name not in self else self.take(name)
        if type(found) is not int:
            raise self.wrong(name, "a whole number")
        return found

    def ttl_ms(self) -> int | None:
        """``ttl``: seconds, or "keep"."""
        if "ttl" not in self:
            return None
        match self.take("ttl"):
            case "keep":
                return KEEP_TTL
            case bool():
                pass
            case int() | float() as seconds if 0.001 <= seconds < 1e10:
                return round(seconds * 1000)
        raise self.wrong("ttl", 'a number of seconds above 0, or "keep"')

    def lease(self) -> int | None:
        """``lease``: its number, as text in HTTP."""
        if "lease" not in self:
            return None
        found = self.take("lease")
        if isinstance(found, str) and found.isascii() and found.isdigit():
            return int(found)
        if type(found) is int:
            return found
        raise self.wrong("lease", "a lease's number")

    def array(self, name: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
        """What ``read`` makes of each object in an array; none when it is not there."""
        found = self._left.pop(name, [])
        if not isinstance(found, list):
            raise self.wrong(name, "an array")
        made = []
        for place, item in enumerate(found):
            fields = Fields(item, f"{name}[{place}]")
            made.append(read(fields))
            fields.done()
        return tuple(made)

    def done(self) -> None:
        """Raises ParseError for a field that nobody has asked for."""
        if self._left:
            raise ParseError(f"{self.what} has an unknown field {min(self._left)!r}", hint=HINT)


def _comparison(fields: Fields) -> Comparison:
    key = fields.data("key")
    relation = fields.text("is", "=")
    if relation not in RELATIONS:
        raise fields.wrong("is", f"one of {' '.join(RELATIONS)}")
    said = [name for name in ("revision", "value", "absent") if name in fields]
    match said:
        case ["revision"]:
            return steps.revision(key, RELATIONS[relation], fields.number("revision"))
        case ["value"]:
            return steps.value(key, RELATIONS[relation], fields.data("value"))
        case ["absent"] if relation == "=":
            return steps.absent(key) if fields.take("absent") is True else steps.exists(key)
    raise ParseError(f"{fields.what} must have one of revision, value and absent", hint=HINT)


def _step(fields: Fields) -> Named:
    do, key = fields.text("do"), fields.data("key")
    if do not in _VERBS:
        raise fields.wrong("do", f"one of {', '.join(_VERBS)}")
    return Named(do, _VERBS[do](fields, key))


def _put(fields: Fields, key: bytes) -> Step:
    content_type = fields.text("content_type") if "content_type" in fields else None
    data, ttl_ms = fields.data("value"), fields.ttl_ms()
    return steps.put(key, data, content_type=content_type, ttl_ms=ttl_ms, lease=fields.lease())


def _kept(fields: Fields) -> tuple[int | None, int | None]:
    """A life that stays what it is when nothing is said of it."""
    ttl_ms, lease = fields.ttl_ms(), fields.lease()
    return (KEEP_TTL if ttl_ms is None and lease is None else ttl_ms), lease


def _add(fields: Fields, key: bytes) -> Step:
    ttl_ms, lease = _kept(fields)
    return steps.add(key, fields.number("by", 1), ttl_ms=ttl_ms, lease=lease)


def _append(fields: Fields, key: bytes) -> Step:
    ttl_ms, lease = _kept(fields)
    return steps.append(key, fields.data("value"), ttl_ms=ttl_ms, lease=lease)


def _touch(fields: Fields, key: bytes) -> Step:
    ttl_ms, lease = fields.ttl_ms(), fields.lease()
    if ttl_ms is None and lease is None:
        raise ParseError(f"{fields.what} needs ttl or lease", hint=HINT)
    return steps.touch(key, ttl_ms, lease=lease)


_VERBS: dict[str, Callable[[Fields, bytes], Step]] = {
    "get": lambda _, key: steps.get(key),
    "put": _put,
    "delete": lambda _, key: steps.delete(key),
    "add": _add,
    "append": _append,
    "touch": _touch,
    "persist": lambda _, key: steps.touch(key, None),
}
