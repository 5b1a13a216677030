"""GET /openapi.json: every address, what it takes and what it answers, for programs.

``PATHS`` has a row for each address of http_routes.py and each of its methods; a test
holds the two together. HEAD is made from GET. The parts are in openapi_parts.py.
"""

from __future__ import annotations

from typing import Any

from kritad import __version__
from kritad.server.http_answers import json_bytes
from kritad.server.http_exchange import Exchange
from kritad.server.openapi_parts import (
    HEADERS,
    KEY_TEXT,
    PARAMETERS,
    error_responses,
    errors,
    headers,
    parameters,
    place,
    query,
)
from kritad.server.openapi_schemas import (
    INTEGER,
    LEASE,
    REVISION,
    SCHEMAS,
    TEXT,
    TOKEN,
    TTL,
    Schema,
    ref,
)

# What any request for data may meet: a node that is busy, stopping, without a leader.
_READ = (400, 401, 403, 413, 414, 429, 431, 500, 503)
_OPEN = (400, 414, 431)
_WRITE = (*_READ, 409, 504, 507)
_CONDITIONAL = (*_WRITE, 410, 412, 422)
_GUARD = ("if_match", "if_none_match", "if_lock", "idempotency")
_BINARY: Schema = {"*/*": {}}


def _json(name: str, description: str, *header_names: str) -> Schema:
    return {
        "description": description,
        "content": {"application/json": {"schema": ref(name)}},
        **headers(*header_names),
    }


def _empty(description: str, *header_names: str) -> Schema:
    return {"description": description, **headers(*header_names)}


def _text(description: str) -> Schema:
    return {"description": description, "content": {"text/plain": {"schema": TEXT}}}


def _body(name: str) -> Schema:
    schema = {"schema": ref(name)}
    return {"required": True, "content": {"application/json": schema}}


def _form(needed: str, **fields: Schema) -> Schema:
    schema = {"type": "object", "required": needed.split(), "properties": fields,
              "additionalProperties": False}  # fmt: skip
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def _op(
    name: str,
    summary: str,
    answers: dict[int, Schema],
    failures: tuple[int, ...],
    *,
    takes: tuple[str, ...] = (),
    also: tuple[Schema, ...] = (),
    body: Schema | None = None,
    tag: str,
    open_to_all: bool = False,
) -> Schema:
    """One operation. ``takes`` are names of PARAMETERS, ``also`` parameters of its own."""
    common = ("request_id",) if tag == "node" else ("timeout", "request_id")
    found: Schema = {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "parameters": [
            *also,
            *parameters(*takes, *common),
        ],
        "responses": {str(code): answer for code, answer in answers.items()}
        | errors(code for code in sorted(set(failures)) if code not in answers),
    }
    if open_to_all:
        found["security"] = []
    return found if body is None else found | {"requestBody": body}


_KEY = place("key", "the key, percent-encoded; it may hold slashes")
_NAME = place("name", "the key, percent-encoded; it may hold slashes")
_LOCK = place("name", "the lock, percent-encoded")
_LEASE_ID = place("id", "the lease", LEASE)
_VALUE_HEADERS = (
    "ETag", "Krita-Revision", "Krita-Staleness-Ms", "Krita-Expires-In", "Krita-Lease",
)  # fmt: skip
_FRESH = ("consistency", "max_staleness", "min_revision")
_RANGE = ("prefix", "start", "stop")
_BYTES_TEXT: Schema = {"type": "string", "description": "bytes, percent-encoded"}
_YES = PARAMETERS["previous"]["schema"]
_NDJSON_OR = "application/x-ndjson"


def _yes(name: str, description: str) -> Schema:
    return query(name, dict(_YES), description)  # type: ignore[call-overload]


def _plain() -> dict[str, dict[str, Schema]]:
    """The addresses that the first users know."""
    tag = "names"
    by_query = (query("value", _BYTES_TEXT, "the key", required=True),)
    got = {
        200: _json("NamedValue", "The value", "Krita-Staleness-Ms"),
        404: _json("Error", "There is no such key", "Krita-Staleness-Ms", "Krita-Outcome"),
    }
    done = {200: _json("Named", "Done")}
    return {
        "/key": {
            "get": _op("getByQuery", "The value of a key", got, _READ,
                       takes=_FRESH, also=by_query, tag=tag),
            "put": _op("putByForm", "Set a key; without a field key the one called key", done,
                       _WRITE, body=_form("value", key=KEY_TEXT, value=TEXT), tag=tag),
            "delete": _op("deleteKey", "Remove the key called key", done, (*_WRITE, 404), tag=tag),
        },
        "/{name}": {
            "get": _op("getByName", "The value of a key", got, _READ, takes=_FRESH,
                       also=(_NAME,), tag=tag),
            "put": _op("putByName", "Set a key", done, _WRITE, also=(_NAME,),
                       body=_form("value", value=TEXT), tag=tag),
            "delete": _op("deleteByName", "Remove a key", done, (*_WRITE, 404), also=(_NAME,),
                          tag=tag),
        },
    }  # fmt: skip


def _kv() -> dict[str, dict[str, Schema]]:
    tag = "keys"
    value: Schema = {"description": "The value", "content": _BINARY, **headers(*_VALUE_HEADERS)}
    unchanged = _empty("It is what If-None-Match names, or nothing changed in time", "ETag",
                       "Krita-Revision")  # fmt: skip
    absent = _json("Error", "There is no such key, as of Krita-Revision", "Krita-Revision",
                   "Krita-Staleness-Ms", "Krita-Outcome")  # fmt: skip
    written = ("ETag", "Krita-Revision")
    gone = _empty("Removed, or not there", "Krita-Existed", "Krita-Revision")
    verb = query("do", {"enum": ["add", "append", "touch", "persist"]}, "what", required=True)
    binary: Schema = {"content": _BINARY}
    return {
        "/v1/kv/{key}": {
            "get": _op("get", "A value", {200: value, 304: unchanged, 404: absent},
                       (*_READ, 410, 412), also=(_KEY,), tag=tag,
                       takes=(*_FRESH, "at", "at_revision", "wait", "after", "if_match",
                              "if_none_match")),
            "put": _op("put", "Set a key to the body",
                       {200: _json("Written", "Replaced", *written),
                        201: _json("Written", "Created", *written)},
                       _CONDITIONAL, takes=("ttl", "lease", "previous", *_GUARD), also=(_KEY,),
                       body=binary, tag=tag),
            "delete": _op("delete", "Remove a key",
                          {200: _json("Written", "Removed; with previous", "Krita-Existed",
                                      "Krita-Revision"), 204: gone},
                          _CONDITIONAL, takes=("previous", *_GUARD), also=(_KEY,), tag=tag),
            "post": _op("change", "Add to a number, append, or change how long a key lasts",
                        {200: _json("Changed", "Changed", *written),
                         201: _json("Changed", "It was absent", *written),
                         404: _json("Error", "Nothing to touch", "Krita-Outcome")},
                        _CONDITIONAL, takes=("ttl", "lease", *_GUARD), body=binary, tag=tag,
                        also=(_KEY, verb, query("by", INTEGER, "of do=add; 1 without it"))),
        },
        "/v1/kv": {
            "get": _op("scan", "Keys in order, a page of them, or all as lines", {200: _scanned()},
                       _READ, takes=_RANGE, tag=tag, also=(
                           query("limit", TOKEN, "of keys; a page may have fewer"),
                           _yes("reverse", "the last ones first"),
                           _yes("keys_only", "without values"),
                           _yes("count", "only how many there are"),
                           query("cursor", TEXT, "next_cursor of the page before"))),
        },
    }  # fmt: skip


def _scanned() -> Schema:
    return {
        "description": "A page, or a count; as lines all of them",
        "content": {
            "application/json": {"schema": {"oneOf": [ref("Page"), ref("Count")]}},
            _NDJSON_OR: {"schema": {"oneOf": [ref("Item"), ref("Error")]}},
        },
    }


def _several() -> dict[str, dict[str, Schema]]:
    tag = "several keys"
    return {
        "/v1/get": {"post": _op("getMany", "Many keys at once",
                                {200: _json("Items", "In the order of the keys")}, _READ,
                                body=_body("Keys"), tag=tag)},
        "/v1/bulk": {"post": _op("bulk", "Many writes at once, each for itself",
                                 {200: _json("BulkResults", "What became of each")}, _WRITE,
                                 takes=("idempotency",), body=_body("Bulk"), tag=tag)},
        "/v1/txn": {"post": _op("transaction", "Compare, and do one thing or the other, in one "
                                "step", {200: _json("TransactionResults", "What was done",
                                                    "Krita-Revision")},
                                (*_WRITE, 410, 422), takes=("idempotency",),
                                body=_body("Transaction"), tag=tag)},
        "/v1/watch": {"get": _op("watch", "What changes, as it does", {200: _watched()},
                                 (*_READ, 410), takes=_RANGE, tag=tag, also=(
                                     query("key", _BYTES_TEXT, "one key"),
                                     query("from", TEXT, "go on behind this token"),
                                     query("progress", {"type": "number", "minimum": 0.1,
                                                        "maximum": 60},
                                           "how often to say that nothing happens, in seconds"),
                                     {"name": "Last-Event-ID", "in": "header",
                                      "description": "as from, and wins", "schema": TEXT}))},
    }  # fmt: skip


def _watched() -> Schema:
    event = {"schema": ref("WatchEvent")}
    return {
        "description": "Events, one a line, or server-sent with the token as id",
        "content": {_NDJSON_OR: event, "text/event-stream": event},
    }


def _lives() -> dict[str, dict[str, Schema]]:
    lost = (*_WRITE, 412)
    token = query("token", TOKEN, "that the lock is held with", required=True)
    return {
        "/v1/lease": {"post": _op("grantLease", "Begin a lease",
                                  {201: _json("Lease", "Granted", "Location")}, _WRITE,
                                  body=_body("LeaseWanted"), tag="leases")},
        "/v1/lease/{id}": {
            "get": _op("showLease", "What a lease has left, and its keys",
                       {200: _json("LeaseState", "It lives")}, (*_READ, 410), also=(_LEASE_ID,),
                       tag="leases"),
            "put": _op("keepLease", "Let it last for its whole time from now on",
                       {200: _json("Lease", "Kept")}, (*_WRITE, 410), also=(_LEASE_ID,),
                       tag="leases"),
            "delete": _op("endLease", "End it, and its keys",
                          {200: _json("LeaseEnded", "Ended")}, (*_WRITE, 410), also=(_LEASE_ID,),
                          tag="leases"),
        },
        "/v1/lock/{name}": {
            "get": _op("showLock", "Who holds a lock",
                       {200: _json("LockHolder", "It is held", "Krita-Revision"),
                        404: _json("Error", "It is free", "Krita-Revision",
                                   "Krita-Outcome")},
                       _READ, also=(_LOCK,), tag="locks"),
            "post": _op("takeLock", "Take a lock, waiting for it if asked to",
                        {200: _json("Lock", "Taken")}, (*_WRITE, 410, 423), also=(_LOCK,),
                        body=_body("LockWanted"), tag="locks"),
            "put": _op("renewLock", "Hold it for longer", {200: _json("Lock", "Renewed")}, lost,
                       also=(_LOCK,), body=_body("LockRenewal"), tag="locks"),
            "delete": _op("giveLockBack", "Give it back",
                          {204: _empty("It is free", "Krita-Revision")}, lost,
                          also=(_LOCK, token), tag="locks"),
        },
    }  # fmt: skip


def _past() -> dict[str, dict[str, Schema]]:
    prefix = query("prefix", _BYTES_TEXT, "of the keys; empty: of all", required=True)
    keep = query("keep", TTL, "seconds", required=True)
    return {
        "/v1/history/{key}": {"get": _op(
            "history", "The newest versions of a key", {200: _json("History", "Newest first")},
            _READ, tag="history", also=(_KEY, query("limit", TOKEN, "of versions; 100 without it"),
                                        query("before", REVISION, "next_before of the page "
                                              "before")))},
        "/v1/undo/{key}": {"post": _op(
            "undo", "Make a key what it was before its last change",
            {200: _json("Undone", "Restored", "Krita-Revision")}, (*_WRITE, 410, 412),
            also=(_KEY,), tag="history")},
        "/v1/retention": {
            "get": _op("retentions", "Of which prefixes versions are kept",
                       {200: _json("Retentions", "The rules")}, _READ, tag="history"),
            "put": _op("retain", "Keep versions of a prefix's keys from now on",
                       {200: _json("Retention", "Set")}, _WRITE, also=(prefix, keep),
                       tag="history"),
            "delete": _op("forget", "Keep them no more", {204: _empty("Ended")}, _WRITE,
                          also=(prefix,), tag="history"),
        },
    }  # fmt: skip


def _node() -> dict[str, dict[str, Schema]]:
    def said(name: str, word: str, bad: int, summary: str) -> dict[str, Schema]:
        again = ("Retry-After",) if bad == 503 else ()
        problems = _json("Problems", "What is wrong", "Krita-Outcome", *again)
        answers = {200: _text(word), bad: problems}
        return {"get": _op(name, summary, answers, _OPEN, tag="node", open_to_all=True)}

    return {
        "/": {"get": _op("welcome", "What this is", {200: _text("A text for people")}, _OPEN,
                         tag="node", open_to_all=True),
              "put": _op("putNothing", "Refused: no key is named", {}, _OPEN, tag="node"),
              "delete": _op("deleteNothing", "Refused: no key is named", {}, _OPEN, tag="node")},
        "/livez": said("livez", "live", 503, "Whether the process works"),
        "/readyz": said("readyz", "ready", 503, "Whether the node serves"),
        "/health": said("health", "healthy", 500, "What is wrong with this node"),
        "/metrics": {"get": _op("metrics", "Figures for Prometheus", {200: _text("Figures")},
                                (*_OPEN, 401, 403, 500), tag="node")},
        "/openapi.json": {"get": _op(
            "openapi", "This document",
            {200: {"description": "OpenAPI 3.1", "content": {"application/json": {
                "schema": {"type": "object"}}}}},
            _OPEN, tag="node", open_to_all=True)},
    }  # fmt: skip


def _with_heads(paths: dict[str, dict[str, Schema]]) -> dict[str, dict[str, Schema]]:
    """HEAD beside every GET but that of a watch: the same, without bodies."""
    for path, methods in paths.items():
        get: Any = methods.get("get")
        if get is None or path == "/v1/watch":
            continue
        head = dict(get) | {"operationId": f"{get['operationId']}Head"}
        head["responses"] = {
            code: {"description": "As GET's, without the body"} for code in get["responses"]
        }
        methods["head"] = head
    return paths


PATHS: dict[str, dict[str, Schema]] = _with_heads(
    _node() | _plain() | _kv() | _several() | _lives() | _past()
)

DOCUMENT: dict[str, object] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Krita",
        "version": __version__,
        "summary": "A distributed key-value database",
        "description": "Any node answers for all keys. Every error says what became of the "
        "request: 503 is always not applied, 504 always unknown.",
        "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"token": []}, {}],
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "parameters": PARAMETERS,
        "headers": HEADERS,
        "responses": error_responses(),
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "not needed over the node's loopback interface",
            }
        },
    },
}

_BYTES = json_bytes(DOCUMENT)


def openapi(exchange: Exchange) -> None:
    """GET and HEAD"""
    exchange.reply(200, _BYTES, b"Access-Control-Allow-Origin: *\r\n")
