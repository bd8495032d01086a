"""What the agent's constrained engine takes of a JSON Schema, stated again: its own code runs on another Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SILENT = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "$comment"}
KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
}


def refusal(schema: Any, defs: Mapping[str, Any]) -> str | None:
    """Say why the agent would refuse a schema; None if it takes it."""
    if schema is True or schema == {}:
        return None
    for keyword in ("$ref", "enum", "const", "anyOf", "oneOf"):
        if keyword in schema:
            if strange := schema.keys() - {keyword, "type"} - SILENT:
                return f"{sorted(strange)} beside {keyword}"
            return alone(keyword, schema[keyword], defs)
    kinds = schema.get("type", ["object"] if "properties" in schema else [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or not KEYWORDS.keys() >= set(kinds):
        return f"the type {kinds}"
    strange = schema.keys() - {"type"} - SILENT - set[str]().union(*(KEYWORDS[kind] for kind in kinds))
    return f"{sorted(strange)} in {kinds}" if strange else number(schema) or counted(schema) or inner(schema, defs)


def alone(keyword: str, value: Any, defs: Mapping[str, Any]) -> str | None:
    if keyword == "$ref":
        name = value.removeprefix("#/$defs/")
        return refusal(defs[name], defs) if name in defs else f"{value} is not defined"
    if keyword in ("anyOf", "oneOf"):
        return next(filter(None, (refusal(each, defs) for each in value)), None)
    return None if keyword == "const" or value else "a choice of nothing"


def number(schema: Mapping[str, Any]) -> str | None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is None and high is None) or (low == 0 and high is None):
        return None
    if low is None or high is None or not 0 <= high - low <= 1024:
        return f"a range from {low} to {high}"
    return None


def counted(schema: Mapping[str, Any]) -> str | None:
    for most, keywords in ((64, ("minLength", "maxLength")), (1024, ("minItems", "maxItems"))):
        for keyword in keywords:
            if schema.get(keyword, 0) > most:
                return f"{keyword} {schema[keyword]}"
    return None


def inner(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str | None:
    below = [
        *schema.get("properties", {}).values(),
        schema.get("items", True),
        schema.get("additionalProperties", True),
    ]
    return next(filter(None, (refusal(each, defs) for each in below if each is not False)), None)
