"""What ``http_kv`` serves: a value's bytes in and out, with revisions and conditions."""

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

_TAG = "keys"
_CONDITIONS = (parameter("IfMatch"), parameter("IfNoneMatch"))
_ANY_BYTES: Json = {"*/*": {}}

_GET = operation(
    "get_value",
    "Read a key: the value's bytes, under the Content-Type that they were stored with",
    {
        "200": answer("The value.", _ANY_BYTES, "ETag", "Krita-Revision", "Krita-Staleness-Ms"),
        "304": answer("The key is at a revision of If-None-Match.", None, "ETag", "Krita-Revision"),
        **failures(404, 412, *OF_DATA),
    },
    tag=_TAG,
    parameters=(parameter("Key"), parameter("Consistency"), *_CONDITIONS),
)
_PUT = operation(
    "put_value",
    "Set a key to the body's bytes; its Content-Type is stored with them",
    {
        "200": answer("Replaced.", content(JSON, schema("Stored")), "ETag", "Krita-Revision"),
        "201": answer("Created.", content(JSON, schema("Stored")), "ETag", "Krita-Revision"),
        **failures(412, 507, *OF_WRITES),
    },
    tag=_TAG,
    parameters=(parameter("Key"), *_CONDITIONS),
    body=_ANY_BYTES,
    is_body_required=False,  # an empty value is one
)
_DELETE = operation(
    "delete_value",
    "Remove a key",
    {
        "204": answer("It is not there any more.", None, "Krita-Existed", "Krita-Revision"),
        **failures(412, *OF_WRITES),
    },
    tag=_TAG,
    parameters=(parameter("Key"), *_CONDITIONS),
)

PATHS: dict[str, dict[str, Json]] = {
    "/v1/kv/{key}": {**reads(_GET), "put": _PUT, "delete": _DELETE},
}
