"""As much of JSON Schema as the server's OpenAPI document uses, to hold answers to it."""

from __future__ import annotations

from typing import Any

_TYPES = {"string": str, "integer": int, "object": dict, "array": list}
_JUDGED = {
    "type", "const", "enum", "oneOf", "anyOf", "properties", "required", "items", "minimum",
    "minLength", "additionalProperties",
}  # fmt: skip
_SAID = {"description", "default", "contentEncoding"}  # for people, or for generators


def resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """What the part says, or what it refers to."""
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    assert isinstance(found, dict)
    return found


def fits(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    """Whether the value is what the schema says."""
    schema = resolve(document, schema)
    unknown = schema.keys() - _JUDGED - _SAID
    assert not unknown, f"a schema says {unknown}, which nobody judges"
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    for word in ("oneOf", "anyOf"):
        fitting = sum(fits(document, one, value) for one in schema.get(word, ()))
        if word in schema and (fitting == 0 or (word == "oneOf" and fitting > 1)):
            return False
    if "type" in schema and type(value) is not _TYPES[schema["type"]]:
        return False
    if isinstance(value, int) and value < schema.get("minimum", value):
        return False
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        return False
    if isinstance(value, list):
        return all(fits(document, schema.get("items", {}), item) for item in value)
    return not isinstance(value, dict) or _object_fits(document, schema, value)


def _object_fits(
    document: dict[str, Any], schema: dict[str, Any], value: dict[str, object]
) -> bool:
    properties = schema.get("properties", {})
    if set(schema.get("required", ())) - value.keys():
        return False
    if schema.get("additionalProperties") is False and value.keys() - properties.keys():
        return False
    return all(
        fits(document, properties[name], item) for name, item in value.items() if name in properties
    )
