"""Bodies in JSON, read strictly: what is not understood is refused, by its name and place.

Bytes are text, or ``{"base64": "..."}`` for what is not UTF-8, as in answers. A time to live
is in seconds. ``Fields`` is one object; each field is asked for once, and ``done`` refuses
what nobody has asked for.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import TypeVar

from krita.errors import BadRequest, TooLarge
from krita.operations import KEEP_TTL
from kritad.server.http_exchange import Exchange
from kritad.server.http_names import checked_key
from kritad.server.http_options import TTL_S_MAX, checked_ttl, lease_id, seconds_up_to

_T = TypeVar("_T")
_NUMBER_MAX = (1 << 63) - 1
_ABSENT = object()


class Fields:
    """One object of a body, called ``what`` in errors."""

    def __init__(self, item: object, what: str) -> None:
        if not isinstance(item, dict):
            raise BadRequest(f"{what} must be an object", hint="see /openapi.json")
        self._left: dict[str, object] = dict(item)
        self.what = what

    def __repr__(self) -> str:
        return f"<Fields of {self.what}: {sorted(self._left)} unread>"

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def done(self) -> None:
        """Raises BadRequest for a field that nobody has asked for."""
        if self._left:
            name = next(iter(self._left))
            raise BadRequest(
                f'{self.what} has a field that is not understood: "{name[:40]}"',
                hint="see /openapi.json",
            )

    def bad(self, name: str, wanted: str) -> BadRequest:
        """The error of a field that is not what it must be."""
        return BadRequest(f"{name} of {self.what} must be {wanted}", hint="see /openapi.json")

    def _take(self, name: str, wanted: str, default: object) -> object:
        found = self._left.pop(name, default)
        if found is _ABSENT:
            raise BadRequest(f"{self.what} has no {name}", hint=f"{name} must be {wanted}")
        return found

    def text(self, name: str, default: object = _ABSENT) -> str:
        """Text. Raises BadRequest, as the others do."""
        found = self._take(name, "text", default)
        if not isinstance(found, str):
            raise self.bad(name, "text")
        return found

    def optional_text(self, name: str) -> str | None:
        """Text, or None when it is not there."""
        return self.text(name) if name in self else None

    def data(self, name: str) -> bytes:
        """Bytes."""
        return self._bytes(name, self._take(name, _BYTES, _ABSENT))

    def _bytes(self, name: str, found: object) -> bytes:
        data = bytes_of(found)
        if data is None:
            raise self.bad(name, _BYTES)
        return data

    def key(self, name: str = "key") -> bytes:
        """A key."""
        return checked_key(self.data(name))

    def number(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number."""
        absent = _ABSENT if default is None else default
        found = self._take(name, "a whole number", absent)
        if type(found) is not int or not least <= found <= _NUMBER_MAX:
            raise self.bad(name, f"a whole number from {least} to 2**63-1")
        return found

    def flag(self, name: str) -> bool:
        """True or false; false when it is not there."""
        found = self._take(name, "true or false", False)
        if not isinstance(found, bool):
            raise self.bad(name, "true or false")
        return found

    def seconds(self, name: str, default: float | None = None, *, most_s: float = TTL_S_MAX) -> int:
        """A time in milliseconds."""
        wanted = seconds_up_to(most_s)
        found = self._take(name, wanted, _ABSENT if default is None else default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.bad(name, wanted)
        if not 0 <= found <= most_s:
            raise self.bad(name, wanted)
        return round(found * 1000)

    def life(self) -> tuple[int | None, int | None]:
        """``ttl`` in milliseconds (or "keep") and ``lease``, as a write has them."""
        ttl_ms: int | None = None
        if self._left.get("ttl") == "keep":
            del self._left["ttl"]
            ttl_ms = KEEP_TTL
        elif "ttl" in self:
            ttl_ms = checked_ttl(self.seconds("ttl"))
        lease = lease_id(self.text("lease").encode()) if "lease" in self else None
        return ttl_ms, lease

    def array(
        self,
        name: str,
        each: Callable[[object, str], _T],
        count_max: int,
        *,
        setting: str,
        needed: bool = True,
    ) -> list[_T]:
        """An array whose items ``each`` reads, given a name for it in errors; ``setting`` is
        what its limit is called. Raises TooLarge for more."""
        found = self._take(name, "an array", _ABSENT if needed else [])
        if not isinstance(found, list):
            raise self.bad(name, "an array")
        if len(found) > count_max:
            raise TooLarge(
                f"{name} of {self.what} has {len(found)} items,"
                f" the limit is {count_max} ({setting})"
            )
        return [each(item, f"{name}[{place}]") for place, item in enumerate(found)]


_BYTES = 'text, or {"base64": "…"}'


def bytes_of(item: object) -> bytes | None:
    """Bytes as JSON has them; None: these are none."""
    match item:
        case str():
            try:
                return item.encode()
            except UnicodeEncodeError:  # half of a surrogate pair
                return None
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text.encode("ascii"), validate=True)
            except (binascii.Error, UnicodeEncodeError):
                return None
    return None


def key_item(item: object, what: str) -> bytes:
    """A key in an array. Raises BadRequest."""
    key = bytes_of(item)
    if key is None:
        raise BadRequest(f"{what} must be {_BYTES}")
    return checked_key(key)


def body_of(exchange: Exchange) -> Fields:
    """The request's body. Raises BadRequest."""
    body = exchange.request.body
    if not body:
        raise BadRequest("the body is empty", hint="send JSON: curl -d '{…}'")
    try:
        # Of bytes json.loads takes UTF-16 and UTF-32 too, and halves of surrogate pairs.
        found = json.loads(body.decode(), parse_constant=_refuse)
        if b"\\u" in body:
            _check_text(found)
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"the body is no JSON: byte {error.start} is no UTF-8",
            hint='what is no text is {"base64": "…"}',
        ) from error
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise BadRequest(f"the body is no JSON: {why}") from error
    return Fields(found, "the body")


def _check_text(found: object) -> None:
    """Raises BadRequest for half a surrogate pair, which JSON may spell and UTF-8 has not: it
    could be neither stored nor told of in an answer."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest("the body has a \\u escape that is half a character") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
