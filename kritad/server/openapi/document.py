"""The whole document."""

from __future__ import annotations

from kritad import __version__
from kritad.server.openapi import kv, names, node
from kritad.server.openapi.parts import HEADERS, PARAMETERS, RESPONSES, SCHEMAS, Json

PATHS: dict[str, dict[str, Json]] = {**kv.PATHS, **names.PATHS, **node.PATHS}

_ABOUT = """\
A distributed key-value database. Every node answers every request.

Every error is JSON: `message` says what and why, `hint` what to do, and `outcome` what became of
the request. 503 is always *not applied*, 504 always *unknown*. docs/http.md has it in prose."""

_TAGS: list[Json] = [
    {"name": "keys", "description": "Raw bytes, with revisions and conditions."},
    {"name": "names", "description": "Forms in, JSON out."},
    {"name": "node", "description": "What a node says of itself."},
]


def document(value_bytes_max: int) -> Json:
    """OpenAPI 3.1 of a server that takes values of that many bytes."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Krita",
            "version": __version__,
            "description": f"{_ABOUT}\n\nA value has at most {value_bytes_max} bytes here.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": _TAGS,
        # A token is not asked for on the node's own machine.
        "security": [{"token": []}, {}],
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "responses": RESPONSES,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
