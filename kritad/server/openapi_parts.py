"""Parameters, headers and errors, for /openapi.json: by their names, to be referred to."""

from __future__ import annotations

from collections.abc import Iterable

from krita.limits import KEY_BYTES_MAX
from kritad.server.openapi_schemas import (
    COUNT,
    LEASE,
    REVISION,
    SECONDS,
    TEXT,
    TOKEN,
    TTL,
    Schema,
    constant,
    ref,
)


def query(name: str, schema: Schema, description: str, *, required: bool = False) -> Schema:
    """A parameter of the query."""
    found: Schema = {"name": name, "in": "query", "description": description, "schema": schema}
    return found | {"required": True} if required else found


def header(name: str, schema: Schema, description: str) -> Schema:
    """A header of a request."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def place(name: str, description: str, schema: Schema | None = None) -> Schema:
    """A part of the path."""
    found: Schema = {"name": name, "in": "path", "required": True, "description": description}
    return found | {"schema": schema or KEY_TEXT}


KEY_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX}
_YES: Schema = constant("1", "0", "true", "false")

PARAMETERS: dict[str, Schema] = {
    "timeout": query(
        "timeout", {"type": "number", "minimum": 0.001, "maximum": 60},
        "how long to wait for the answer, in seconds; also the header Krita-Timeout",
    ),
    "request_id": header(
        "Krita-Request-Id", {"type": "string", "minLength": 1, "maxLength": 128, "pattern":
                             "^[!-~]*$"},
        "a name for the request: the answer repeats it, and the log if it fails",
    ),
    "consistency": query(
        "consistency", constant("linearizable", "stale", "bounded"),
        "how fresh; bounded needs max_staleness",
    ),
    "max_staleness": query("max_staleness", SECONDS, "in seconds, with consistency=bounded"),
    "min_revision": header(
        "Krita-Min-Revision", REVISION, "of a stale read: at least as new as that"
    ),
    "at": query("at", TEXT, "as it was then: ISO 8601, or seconds since 1970"),
    "at_revision": query("at_revision", TOKEN, "as it was then: a revision of the shard"),
    "wait": query(
        "wait", {"type": "number", "minimum": 0, "maximum": 600},
        "answer when the key has changed, or after so many seconds with 304",
    ),
    "after": query("after", REVISION, "with wait: changed behind that Krita-Revision"),
    "ttl": query("ttl", {"oneOf": [TTL, constant("keep")]},
                 "it ends in so many seconds; keep: when it would have"),
    "lease": query("lease", LEASE, "it ends with that lease"),
    "previous": query("previous", _YES, "answer what the key was before"),
    "if_match": header("If-Match", TEXT, "only if the key is at this ETag, or one of these; *: "
                       "only if it is there"),
    "if_none_match": header("If-None-Match", TEXT, "only if the key is not at this ETag; *: only "
                            "if it is absent"),
    "if_lock": header("If-Lock", TEXT, "NAME@TOKEN: only while that lock is held so"),
    "idempotency": header(
        "Idempotency-Key", {"type": "string", "minLength": 1, "maxLength": 255, "pattern":
                            "^[!-~]*$"},
        "the same request with the same key within an hour happens once",
    ),
    "prefix": query("prefix", TEXT, "keys that begin with that"),
    "start": query("start", TEXT, "the first key"),
    "stop": query("stop", TEXT, "the first key behind the last"),
}  # fmt: skip


def parameters(*names: str) -> list[Schema]:
    """References to those."""
    return [ref(name, "parameters") for name in names]


def _header(schema: Schema, description: str) -> Schema:
    return {"description": description, "schema": schema}


HEADERS: dict[str, Schema] = {
    "ETag": _header(TEXT, "the key's revision, in quotes"),
    "Krita-Revision": _header(REVISION, "the revision of its shard that the answer speaks of"),
    "Krita-Existed": _header(constant("true", "false"), "whether there was such a key"),
    "Krita-Staleness-Ms": _header(COUNT, "by how much a stale read may be behind"),
    "Krita-Expires-In": _header(SECONDS, "seconds that the key has left"),
    "Krita-Lease": _header(LEASE, "the lease that it ends with"),
    "Krita-Outcome": _header(
        constant("not-applied", "applied", "unknown"), "what became of the request"
    ),
    "Retry-After": _header(COUNT, "seconds"),
    "Location": _header(TEXT, "where it is from now on"),
}


def headers(*names: str) -> dict[str, object]:
    """References to those, for an answer."""
    return {"headers": {name: ref(name, "headers") for name in names}}


# By status: the errors that an address may answer.
ERRORS: dict[int, str] = {
    400: "The request makes no sense; the message says where",
    401: "No token, or a wrong one",
    403: "That may not be done",
    404: "There is no such key, or nobody holds the lock",
    409: "What the key holds does not allow it, or the idempotency key was used for another",
    410: "The lease has ended, or what is asked for is not kept any more",
    412: "A condition did not hold; ETag has the key's revision",
    413: "Over a limit, which the message names",
    414: "The URL is too long, and so is the key",
    422: "The keys are of several groups",
    423: "Somebody else holds the lock",
    431: "The headers are too long",
    429: "Too much at once, here; not applied",
    500: "A bug, or a disk failed under the request",
    503: "No leader, or the node is stopping: not applied, may be repeated",
    504: "It may have been applied, or may yet be",
    507: "The leader's disk is full; deletes are taken",
}


# What any address may answer besides, with a status that depends on the request's form alone.
_OTHERS = "What HTTP itself refuses (405, 408, 415, 417, 505), or an older node (501)"


def _error_response(description: str, *header_names: str) -> Schema:
    return {
        "description": description,
        "content": {"application/json": {"schema": ref("Error")}},
        **headers("Krita-Outcome", *header_names),
    }


def error_responses() -> dict[str, Schema]:
    """The components that answers refer to."""
    found = {"Error": _error_response(_OTHERS)}
    for code, description in ERRORS.items():
        names = ["Retry-After"] if code in (429, 503) else []
        names += ["ETag"] if code == 412 else []
        found[f"Error{code}"] = _error_response(description, *names)
    return found


def errors(codes: Iterable[int]) -> dict[str, object]:
    """References to those, and to what is said of all other errors."""
    named: dict[str, object] = {str(code): ref(f"Error{code}", "responses") for code in codes}
    return named | {"default": ref("Error", "responses")}
