"""CBOR's diagnostic notation (RFC 8949 §8), for the items that Krita sends."""

from __future__ import annotations

import json


def diagnose(item: object) -> str:
    """``[1, h'6b', "text", {"a": null}]``: what the specification and vectors show."""
    match item:
        case None:
            return "null"
        case bool():
            return "true" if item else "false"
        case bytes():
            return f"h'{item.hex()}'"
        case str():
            return json.dumps(item, ensure_ascii=False)
        case list():
            return "[" + ", ".join(map(diagnose, item)) + "]"
        case dict():
            pairs = (f"{diagnose(key)}: {diagnose(value)}" for key, value in item.items())
            return "{" + ", ".join(pairs) + "}"
        case int() | float():
            return repr(item)
    raise AssertionError(f"no notation for {item!r}")
