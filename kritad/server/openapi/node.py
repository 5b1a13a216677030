"""What ``http_node`` serves: what a node says of itself."""

from __future__ import annotations

from kritad.server.openapi.parts import (
    JSON,
    TEXT,
    Json,
    answer,
    content,
    failures,
    operation,
    reads,
    schema,
)

_TAG = "node"
_TEXT: Json = {"type": "string"}


def _check(name: str, summary: str, word: str, bad_code: int) -> dict[str, Json]:
    good = answer(f"Yes: {word}.", content(TEXT, {"const": word}))
    # The server itself may fail with the same status.
    bad_body: Json = {"anyOf": [schema("Unhealthy"), schema("Error")]}
    bad = answer("No, and why.", content(JSON, bad_body), "Krita-Outcome", "Retry-After")
    answers = {**failures(), "200": good, str(bad_code): bad}
    return reads(operation(name, summary, answers, tag=_TAG, is_open=True))


def _page(name: str, summary: str, media_type: str, shape: Json) -> dict[str, Json]:
    answers = {"200": answer("It.", content(media_type, shape)), **failures()}
    return reads(operation(name, summary, answers, tag=_TAG, is_open=True))


_METRICS = operation(
    "metrics",
    "Figures for Prometheus",
    {"200": answer("In its text format.", content(TEXT, _TEXT)), **failures(401, 403)},
    tag=_TAG,
)

# At / the key would have no name, so there is nothing to put or to delete.
_NO_NAME = {
    method: operation(
        f"{method}_without_name", "Refused: no key is named", failures(401, 403), tag=_TAG
    )
    for method in ("put", "delete")
}

PATHS: dict[str, dict[str, Json]] = {
    "/": {**_page("welcome", "What this is, and what to try with curl", TEXT, _TEXT), **_NO_NAME},
    "/livez": _check("livez", "Whether the process is alive; never that there is a quorum",
                     "live", 503),
    "/readyz": _check("readyz", "Whether the node knows a leader for every shard", "ready", 503),
    "/health": _check("health", "Whether nothing is wrong with the cluster", "healthy", 500),
    "/metrics": reads(_METRICS),
    "/openapi.json": _page("openapi", "This document", JSON, {"type": "object"}),
}  # fmt: skip
