"""What the descriptions of many addresses share, and short ways to say it.

An address is described by functions that return plain dicts, so that what they say can
be read in the order of the document. Names of components are in one place each.
"""

from __future__ import annotations

from collections.abc import Iterable

from krita.errors import Outcome, Status

Json = dict[str, object]

JSON, TEXT = "application/json", "text/plain"
# What the server says by itself, beside the statuses of the binary protocol.
_OWN_CODES = ("not_found", "method_not_allowed")

# What HTTP and its limits forbid, on every address.
OF_EVERY_REQUEST = (400, 408, 413, 414, 417, 431, 500, 503, 505)
# What the database may answer besides, to whoever asks for data.
OF_DATA = (401, 403, 413, 429, 501)
OF_WRITES = (*OF_DATA, 504)


def schema(name: str) -> Json:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def headers(*names: str) -> Json:
    """References to some of HEADERS."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def parameter(name: str) -> Json:
    """A reference to one of PARAMETERS."""
    return {"$ref": f"#/components/parameters/{name}"}


def content(media_type: str, shape: Json) -> Json:
    """A body of one type."""
    return {media_type: {"schema": shape}}


def answer(description: str, body: Json | None = None, *header_names: str) -> Json:
    """One response."""
    said: Json = {"description": description}
    if header_names:
        said["headers"] = headers(*header_names)
    if body is not None:
        said["content"] = body
    return said


def failures(*codes: int) -> dict[str, object]:
    """The errors of every request, and these."""
    known = sorted({*OF_EVERY_REQUEST, *codes})
    return {str(code): {"$ref": f"#/components/responses/Error{code}"} for code in known}


def operation(
    name: str,
    summary: str,
    answers: dict[str, object],
    *,
    tag: str,
    parameters: Iterable[Json] = (),
    body: Json | None = None,
    is_body_required: bool = True,
    is_open: bool = False,
) -> Json:
    """One method of an address. ``is_open``: no token is ever asked for."""
    said: Json = {"operationId": name, "summary": summary, "tags": [tag]}
    given = list(parameters)
    if given:
        said["parameters"] = given
    if body is not None:
        said["requestBody"] = {"required": is_body_required, "content": body}
    said["responses"] = dict(sorted(answers.items()))
    if is_open:
        said["security"] = []
    return said


def reads(get: Json) -> dict[str, Json]:
    """GET, and HEAD, which is the same without the body."""
    responses = get["responses"]
    assert isinstance(responses, dict)
    bare = {code: _without_body(response) for code, response in responses.items()}
    name = f"{get['operationId']}_head"
    return {"get": get, "head": {**get, "operationId": name, "responses": bare}}


def _without_body(response: Json) -> Json:
    reference = response.get("$ref")
    if isinstance(reference, str):
        # An error's headers stay; what its body would say is in the status.
        code = int(reference[-3:])
        return answer(_ERRORS[code][0], None, *_ERRORS[code][1])
    return {part: said for part, said in response.items() if part != "content"}


# -- Components ----------------------------------------------------------------

_BYTES: Json = {
    "description": "Text, or bytes that are no UTF-8 in base64.",
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
            "required": ["base64"],
            "additionalProperties": False,
        },
    ],
}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def _is(constant: str) -> Json:
    return {"const": constant}


_TEXT: Json = {"type": "string"}
_CODES = sorted({status.name.lower() for status in Status if status} | set(_OWN_CODES))
_OUTCOMES = [outcome.name.lower().replace("_", " ") for outcome in Outcome]

SCHEMAS: dict[str, Json] = {
    "Bytes": _BYTES,
    "Revision": {
        "type": "integer",
        "minimum": 0,
        "description": "The place in its shard's log of the write that set the key.",
    },
    "Error": _object(
        {
            "status": _is("error"),
            "message": {"type": "string", "description": "What and why."},
            "code": {"enum": _CODES},
            "outcome": {"enum": _OUTCOMES, "description": "What became of the request."},
        },
        {"hint": {"type": "string", "description": "What to do."}, "key": schema("Bytes")},
    ),
    "Unhealthy": _object(
        {
            "status": _is("error"),
            "message": _TEXT,
            "problems": {"type": "array", "items": _TEXT},
        }
    ),
    "Done": _object({"status": _is("success"), "message": _is("200 ok"), "key": schema("Bytes")}),
    "Found": _object(
        {
            "status": _is("success"),
            "message": _is("200 ok"),
            "key": schema("Bytes"),
            "value": schema("Bytes"),
        }
    ),
    "Stored": _object(
        {
            "status": _is("success"),
            "message": {"enum": ["created", "replaced"]},
            "key": schema("Bytes"),
            "revision": schema("Revision"),
        }
    ),
}

HEADERS: dict[str, Json] = {
    "ETag": {"description": "The key's revision, in quotes.", "schema": _TEXT},
    "Krita-Revision": {
        "description": "The revision that the answer speaks of; of a key that is absent, how "
        "far its shard had come.",
        "schema": schema("Revision"),
    },
    "Krita-Staleness-Ms": {
        "description": "By how much a stale read may be behind.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Krita-Existed": {
        "description": "Whether there was anything to remove.",
        "schema": {"enum": ["true", "false"]},
    },
    "Krita-Outcome": {
        "description": "What became of the request.",
        "schema": {"enum": [outcome.replace(" ", "-") for outcome in _OUTCOMES]},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": _TEXT},
}

_TAG = r'(W/)?"[^"]*"'
_TAGS = rf"^(\*|{_TAG}( *, *{_TAG})*)$"

PARAMETERS: dict[str, Json] = {
    "Key": {
        "name": "key", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1},
        "description": "1 to 4096 bytes, percent-encoded. Slashes are part of it, encoded or not.",
    },
    "Name": {
        "name": "name", "in": "path", "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": "As the key of /v1/kv/{key}; names that the server uses itself are only "
        "there.",
    },
    "Consistency": {
        "name": "consistency", "in": "query", "required": False,
        "schema": {"enum": ["linearizable", "stale"], "default": "linearizable"},
        "description": "A stale read takes what the node has, and says how old it may be.",
    },
    "IfMatch": {
        "name": "If-Match", "in": "header", "required": False,
        "schema": {"type": "string", "pattern": _TAGS}, "example": '"6"',
        "description": "Only if the key is at one of these revisions (entity tags), or exists (*).",
    },
    "IfNoneMatch": {
        "name": "If-None-Match", "in": "header", "required": False,
        "schema": {"type": "string", "pattern": _TAGS}, "example": "*",
        "description": "Only if the key is at none of these revisions, or is absent (*).",
    },
}  # fmt: skip

# Status: what it means, and the headers besides.
_OUTCOME = ("Krita-Outcome",)
_ERRORS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request is wrong; the message says where.", _OUTCOME),
    401: ("No token, or a wrong one.", (*_OUTCOME, "WWW-Authenticate")),
    403: ("This may not be done, by anybody or by you.", _OUTCOME),
    404: ("There is no such key.", ("Krita-Revision",)),
    408: ("Head or body did not arrive in time.", _OUTCOME),
    412: ("The key is at another revision, which is in the ETag.", (*_OUTCOME, "ETag")),
    413: ("Key, value or body are over their limit.", _OUTCOME),
    414: ("The URL is over its limit.", _OUTCOME),
    417: ("An Expect other than 100-continue.", _OUTCOME),
    429: ("Too many writes are waiting. Not applied.", (*_OUTCOME, "Retry-After")),
    431: ("The headers are over their limit.", _OUTCOME),
    500: ("A bug, or a disk failed under the request. Outcome unknown.", _OUTCOME),
    501: ("The node is older than what you ask of it.", _OUTCOME),
    503: ("No leader, no quorum, or the node is stopping. Always not applied.",
          (*_OUTCOME, "Retry-After")),
    504: ("The outcome is unknown: read before you write again.", _OUTCOME),
    505: ("Neither HTTP/1.1 nor HTTP/1.0.", _OUTCOME),
    507: ("The leader's disk is full but for its reserve; deletes are taken.", _OUTCOME),
}  # fmt: skip

RESPONSES: dict[str, Json] = {
    f"Error{code}": answer(meaning, content(JSON, schema("Error")), *names)
    for code, (meaning, names) in _ERRORS.items()
}
