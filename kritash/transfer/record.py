"""What a file has of one key, and what is wrong with one that cannot be read."""

from __future__ import annotations

import base64
import binascii

import attrs

from krita.checks import key_bytes, ttl, value_bytes
from krita.errors import BadRequest, TooLarge


class TransferError(Exception):
    """The text is not of its format, or no cluster would take what it says. ``place``:
    ``line 3`` or ``record 17``."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message


def _none_if_empty(text: str | None) -> str | None:
    return text or None


@attrs.frozen
class Record:
    """One key. An empty content type is none, as in HTTP."""

    key: bytes
    value: bytes
    content_type: str | None = attrs.field(default=None, converter=_none_if_empty)
    ttl_ms: int | None = None  # how long it is to live from when it is put; None: for good
    lost: tuple[str, ...] = attrs.field(default=(), eq=False)  # what Krita does not keep of it


def checked(record: Record, place: str) -> Record:
    """The record, if a cluster could take it. Raises TransferError."""
    try:
        key_bytes(record.key)
        value_bytes(record.value)
        ttl(record.ttl_ms)
    except (BadRequest, TooLarge) as error:
        raise TransferError(place, error.message) from error
    return record


def utf8_of(text: str, what: str, place: str) -> bytes:
    """Raises TransferError for half a surrogate pair, which JSON can say."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TransferError(place, f"{what} has half a surrogate pair, which is no text") from error


def base64_of(text: str, what: str, place: str) -> bytes:
    """The bytes that standard base64 says. Raises TransferError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TransferError(place, f"{what} is not base64: {error}") from error


class FieldTwice(ValueError):
    """``json`` would take the last one, and say nothing."""


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these fields, for ``json``'s ``object_pairs_hook``. Raises FieldTwice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FieldTwice("an object has the same field twice")
    return found
