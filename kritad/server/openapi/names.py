"""What ``http_plain`` serves: the addresses with forms in and JSON out."""

from __future__ import annotations

from kritad.server.openapi.parts import (
    JSON,
    OF_DATA,
    OF_WRITES,
    Json,
    answer,
    content,
    failures,
    operation,
    parameter,
    reads,
    schema,
)

_TAG = "names"
_FORM = "application/x-www-form-urlencoded"
_FOUND = answer("The value.", content(JSON, schema("Found")))
_DONE = answer("Done.", content(JSON, schema("Done")))
_TEXT: Json = {"type": "string"}
_QUERIED: Json = {
    "name": "value", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1},
    "description": "The name of the key.",
}  # fmt: skip


def _form(required: Json, optional: Json | None = None) -> Json:
    shape: Json = {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
    return content(_FORM, shape)


_GET_BY_QUERY = operation(
    "get_by_query",
    "Read a key that the query names",
    {"200": _FOUND, **failures(404, *OF_DATA)},
    tag=_TAG,
    parameters=(_QUERIED, parameter("Consistency")),
)
_PUT_BY_FORM = operation(
    "put_by_form",
    "Set the key that the form names, or the one called key",
    {"200": _DONE, **failures(507, *OF_WRITES)},
    tag=_TAG,
    body=_form({"value": _TEXT}, {"key": {"type": "string", "minLength": 1}}),
)
_GET = operation(
    "get_name",
    "Read a key",
    {"200": _FOUND, **failures(404, *OF_DATA)},
    tag=_TAG,
    parameters=(parameter("Name"), parameter("Consistency")),
)
_PUT = operation(
    "put_name",
    "Set a key to the form's value",
    {"200": _DONE, **failures(507, *OF_WRITES)},
    tag=_TAG,
    parameters=(parameter("Name"),),
    body=_form({"value": _TEXT}),
)
_DELETED = {"200": _DONE, **failures(404, *OF_WRITES)}
_DELETE = operation(
    "delete_name", "Remove a key", _DELETED, tag=_TAG, parameters=(parameter("Name"),)
)
_DELETE_KEY = operation("delete_key", "Remove the key that is called key", _DELETED, tag=_TAG)

PATHS: dict[str, dict[str, Json]] = {
    "/key": {**reads(_GET_BY_QUERY), "put": _PUT_BY_FORM, "delete": _DELETE_KEY},
    "/{name}": {**reads(_GET), "put": _PUT, "delete": _DELETE},
}
