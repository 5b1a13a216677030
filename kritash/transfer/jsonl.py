"""JSON lines: a record is an object on a line of its own.

    {"key": "user:1", "value": "Ada", "content_type": "text/plain", "ttl_ms": 60000}
    {"key": {"base64": "/wA="}, "value": {"base64": "gA=="}}

``key`` and ``value`` are text, or bytes that are no UTF-8 as ``{"base64": …}``, as HTTP
answers show them. ``content_type`` and ``ttl_ms`` may be missing or null. ``revision``,
which an export may have, is read over: revisions are each cluster's own. A blank line
is no record.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator

from kritash.transfer.record import (
    Record,
    TransferError,
    base64_of,
    checked,
    unique,
    utf8_of,
)

_FIELDS = frozenset({"key", "value", "content_type", "ttl_ms", "revision"})


def read(lines: Iterable[str]) -> Iterator[Record]:
    """Raises TransferError."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"line {number}"
            yield checked(_record(_object(line, place), place), place)


def write(records: Iterable[Record]) -> Iterator[str]:
    """A line for each."""
    for record in records:
        document: dict[str, object] = {"key": _shown(record.key), "value": _shown(record.value)}
        if record.content_type is not None:
            document["content_type"] = record.content_type
        if record.ttl_ms is not None:
            document["ttl_ms"] = record.ttl_ms
        yield json.dumps(document, ensure_ascii=False) + "\n"


def _shown(data: bytes) -> object:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _object(line: str, place: str) -> dict[str, object]:
    try:
        item = json.loads(line.rstrip("\r\n"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        message = f"not JSON at column {error.colno}: {error.msg}"
        raise TransferError(place, message) from error
    except (ValueError, RecursionError) as error:
        raise TransferError(place, f"not a record: {error}") from error
    if not isinstance(item, dict):
        raise TransferError(place, 'expected an object, {"key": …, "value": …}')
    unknown = item.keys() - _FIELDS
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise TransferError(place, f"unknown field {min(unknown)!r}; known are {known}")
    return item


def _record(item: dict[str, object], place: str) -> Record:
    content_type = item.get("content_type")
    if content_type is not None and not isinstance(content_type, str):
        raise TransferError(place, "content_type must be text or null")
    if content_type is not None:
        utf8_of(content_type, "content_type", place)
    return Record(
        _bytes(item, "key", place), _bytes(item, "value", place), content_type, _ttl(item, place)
    )


def _bytes(item: dict[str, object], name: str, place: str) -> bytes:
    match item.get(name):
        case str(text):
            return utf8_of(text, name, place)
        case {"base64": str(text), **others} if not others:
            return base64_of(text, name, place)
        case None if name not in item:
            raise TransferError(place, f"{name} is missing")
    raise TransferError(place, f'{name} must be text or {{"base64": …}}')


def _ttl(item: dict[str, object], place: str) -> int | None:
    ttl_ms = item.get("ttl_ms")
    if ttl_ms is None:
        return None
    if not isinstance(ttl_ms, int) or isinstance(ttl_ms, bool) or ttl_ms < 1:
        raise TransferError(place, "ttl_ms must be a whole number from 1 on, or null")
    return ttl_ms
