"""HTTP answers as bytes, and what an error looks like in HTTP.

Every error body is JSON and says what and why (``message``), what to do
(``hint``), which error it is (``code``), and what became of the request
(``outcome``: ``not applied``, ``applied`` or ``unknown``; also the header
``Krita-Outcome``). 503 is always *not applied* and may be repeated; 504 is
always *unknown*.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from krita.errors import Busy, KritaError, Outcome, Status

_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"
TEXT = b"text/plain; charset=utf-8"

_CODES: dict[Status, int] = {
    Status.BAD_REQUEST: 400,
    Status.UNAUTHENTICATED: 401,
    Status.FORBIDDEN: 403,
    Status.CONDITION_FAILED: 412,
    Status.TOO_LARGE: 413,
    Status.NOT_LEADER: 503,
    Status.WRONG_SHARD: 503,
    Status.BUSY: 429,
    Status.UNAVAILABLE: 503,
    Status.UNKNOWN: 504,
    Status.NO_SPACE: 507,
    Status.SESSION_EXPIRED: 409,
    Status.UNSUPPORTED: 501,
    Status.INTERNAL: 500,
    Status.FOREIGN: 403,
    Status.DEADLINE: 503,
    Status.CONFLICT: 409,
    Status.LOCKED: 423,
    Status.LEASE_UNKNOWN: 410,
    Status.COMPACTED: 410,
    Status.SEVERAL_GROUPS: 422,
}
assert set(_CODES) == set(Status) - {Status.OK}

_OUTCOMES = {
    Outcome.NOT_APPLIED: "not applied",
    Outcome.APPLIED: "applied",
    Outcome.UNKNOWN: "unknown",
}
_RETRY_AFTER_S = {429: 1, 503: 1}

# The header lines of an error that no database has answered.
NOT_APPLIED = b"Krita-Outcome: not-applied\r\n"
NOT_NOW = NOT_APPLIED + b"Retry-After: %d\r\n" % _RETRY_AFTER_S[503]

_STATUS_LINES = {
    code.value: f"HTTP/1.1 {code.value} {code.phrase}\r\n".encode() for code in HTTPStatus
}

_date_second = 0
_date_line = b""


def _date() -> bytes:
    """The Date header, formatted once a second."""
    global _date_second, _date_line
    second = int(time.time())
    if second != _date_second:
        _date_second = second
        _date_line = b"Date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
    return _date_line


def answer_bytes(
    code: int,
    content_type: bytes,
    body: bytes,
    headers: bytes = b"",
    *,
    connection: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """A whole answer. ``headers`` are lines, each ended by CRLF; ``connection`` is
    such a line too. ``head_only`` is for HEAD: the length without the body. 2 µs."""
    line = _STATUS_LINES[code]
    if code == 204 or code == 304:
        return b"%b%b%b%b\r\n" % (line, _date(), connection, headers)
    if head_only:
        length, body = len(body), b""
    else:
        length = len(body)
    return b"%b%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
        line, _date(), content_type, length, connection, headers, body,
    )  # fmt: skip


def stream_head(
    code: int, content_type: bytes, headers: bytes, *, connection: bytes, chunked: bool
) -> bytes:
    """The head of an answer whose length is not known yet: its body comes in chunks, or
    ends with the connection."""
    coding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    return b"%b%bContent-Type: %b\r\n%b%b%b\r\n" % (
        _STATUS_LINES[code], _date(), content_type, coding, connection, headers,
    )  # fmt: skip


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def json_bytes(document: dict[str, object] | None) -> bytes:
    """The document as compact JSON in UTF-8. 2 µs if small."""
    return _encode_json(document).encode()


def json_text(data: bytes) -> object:
    """Bytes as a JSON value: the text that they are, else ``{"base64": ...}``."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def json_text_bytes(data: bytes) -> bytes:
    """``json_text`` as a document of its own, or for the middle of one. 0.4 µs for text."""
    return _encode_json(json_text(data)).encode()


def error_code(error: KritaError) -> int:
    """The HTTP status that says what the error says about the outcome.

    Whatever else happened, an unknown outcome is a 504 and never a 503: a client
    library repeats a 503 by itself.
    """
    code = _CODES.get(error.status, 500)
    if error.outcome is Outcome.UNKNOWN and code in (503, 429):
        return 504
    if error.outcome is Outcome.NOT_APPLIED and code == 504:
        return 503
    return code


def error_name_of(status: Status) -> str:
    """What ``code`` in an error's body says for it."""
    return status.name.lower()


def outcome_text(outcome: Outcome) -> str:
    """What ``outcome`` in an error's body says for it."""
    return _OUTCOMES[outcome]


def error_document(error: KritaError) -> dict[str, object]:
    """An error's JSON body."""
    document: dict[str, object] = {
        "status": "error",
        "message": error.message,
        "code": error_name_of(error.status),
        "outcome": _OUTCOMES[error.outcome],
    }
    if error.hint:
        document["hint"] = error.hint
    return document | _DETAILS.get(error.status, _no_details)(error.detail)


def _no_details(_detail: dict[str, object]) -> dict[str, object]:
    return {}


def _of_lock(detail: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    if isinstance(detail.get("owner"), bytes):
        found["owner"] = json_text(detail["owner"])  # type: ignore[arg-type]
    if isinstance(detail.get("left_ms"), int):
        found["left"] = detail["left_ms"] / 1000  # type: ignore[operator]
    return found


def _of_groups(detail: dict[str, object]) -> dict[str, object]:
    groups = detail.get("groups")
    if not isinstance(groups, list):
        return {}
    return {"groups": [json_text(group) for group in groups if isinstance(group, bytes)]}


def _of_compacted(detail: dict[str, object]) -> dict[str, object]:
    return {"oldest": detail["oldest"]} if isinstance(detail.get("oldest"), int | str) else {}


# What an error tells programs besides, as its body has it.
_DETAILS: dict[Status, Callable[[dict[str, object]], dict[str, object]]] = {
    Status.LOCKED: _of_lock,
    Status.SEVERAL_GROUPS: _of_groups,
    Status.COMPACTED: _of_compacted,
}


def error_headers(error: KritaError, code: int) -> bytes:
    """The header lines that go with it."""
    lines = f"Krita-Outcome: {_OUTCOMES[error.outcome].replace(' ', '-')}\r\n"
    if code == 401:
        lines += 'WWW-Authenticate: Bearer realm="krita"\r\n'
    if code in _RETRY_AFTER_S:
        lines += f"Retry-After: {_RETRY_AFTER_S[code]}\r\n"
    if code == 412:
        revision = error.detail.get("revision")
        if isinstance(revision, int) and revision > 0 and "if_lock" not in error.detail:
            lines += f'ETag: "{revision}"\r\n'
    return lines.encode()


def absent_document(key: bytes) -> dict[str, object]:
    """The JSON body of a 404 about a key."""
    return {
        "status": "error",
        "message": "there is no such key",
        "key": json_text(key),
        "code": "not_found",
        "outcome": "not applied",
        "hint": "PUT it first, or look at the spelling: keys are compared byte by byte",
    }


def refusal_document(message: str, hint: str, error: str) -> dict[str, object]:
    """The JSON body of what HTTP itself or a route refuses: never applied."""
    document: dict[str, object] = {
        "status": "error",
        "message": message,
        "code": error,
        "outcome": "not applied",
    }
    if hint:
        document["hint"] = hint
    return document


_CROWDED = Busy("this node has as many connections as it takes (connections_max)")


def overloaded() -> bytes:
    """The whole answer to a connection too many."""
    document = json_bytes(error_document(_CROWDED))
    return answer_bytes(503, JSON, document, NOT_NOW, connection=b"Connection: close\r\n")
