"""JSON Schemas as the agent's constrained engines can obey them, and no longer than a small model needs.

Pure. What such a schema can say is written here; what it cannot is dropped, or told in the description.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

_LISTED: Final = 1024
"""The agent spells a range of numbers, and the length of a list, out up to this size."""
_COUNTED: Final = 64
"""It counts the characters of a string up to this many."""

_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
_ANYTHING: Final = ("string", "number", "boolean", "object", "array", "null")
_ALONE: Final = ("$ref", "enum", "const", "anyOf", "oneOf")
"""Keywords that say all: beside them, the agent takes the type alone."""


def slim(schema: Any) -> Any:
    """Give the schema without what the agent would refuse, or a reader would skip."""
    if not isinstance(schema, Mapping):
        return True if schema is True else {}
    schema = _merged(schema)
    kinds = _kinds(schema)
    words = _words(schema)
    for keyword in _ALONE:
        if keyword in schema and not ("properties" in schema and keyword in ("anyOf", "oneOf")):
            return _alone(schema, keyword, kinds) | words
    if not kinds:
        # A description alone would name no type at all, which no grammar can be made of.
        return {"type": list(_ANYTHING), **words} if words else {}
    slimmed: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    known = frozenset().union(*(_TYPES[kind] for kind in kinds))
    if "properties" in known:
        slimmed |= _object(schema)
    if "items" in known:
        slimmed |= _list(schema)
    if "minLength" in known:
        slimmed |= {key: schema[key] for key in ("minLength", "maxLength") if 0 < schema.get(key, 0) <= _COUNTED}
    if "minimum" in known:
        slimmed |= (bounds := _bounds(schema, whole="number" not in kinds))
        words = words if bounds.keys() >= _limits(schema).keys() else _told(words, schema)
    return slimmed | words


def _merged(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`allOf` folded into one schema, as far as that is one: later ones win, properties and required add up."""
    parts = [_merged(part) for part in schema.get("allOf", ()) if isinstance(part, Mapping)]
    if not parts:
        return schema
    merged: dict[str, Any] = {}
    for part in (*parts, {key: value for key, value in schema.items() if key != "allOf"}):
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*dict.fromkeys((*merged.get("required", ()), *part.get("required", ())))]
        merged |= part
        merged |= {"properties": properties} if properties else {}
        merged |= {"required": required} if required else {}
    return merged


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type")
    kinds = [str(each) for each in (kind if isinstance(kind, list) else [kind]) if each in _TYPES]
    if not kinds and "properties" in schema:
        return ["object"]
    return kinds


def _words(schema: Mapping[str, Any]) -> dict[str, str]:
    """The description, on one line."""
    text = " ".join(str(schema.get("description") or "").split())
    return {"description": text} if text else {}


def _alone(schema: Mapping[str, Any], keyword: str, kinds: list[str]) -> dict[str, Any]:
    value = schema[keyword]
    if keyword == "$ref":
        return {"$ref": value}
    if keyword in ("enum", "const"):
        # The values say their type themselves, save to a reader who never saw an enumeration.
        return {**({"type": kinds[0]} if len(kinds) == 1 else {}), keyword: value}
    options = [slim(each) for each in value]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: slim(each) for name, each in schema.get("properties", {}).items()}
    required = [name for name in schema.get("required", ()) if name in properties]
    others = schema.get("additionalProperties", True)
    if properties:  # The agent writes the properties alone anyway.
        return {"properties": properties} | ({"required": required} if required else {})
    if others is False:
        return {"properties": {}, "additionalProperties": False}
    inner = slim(others)
    return {} if inner in (True, {}) else {"additionalProperties": inner}


def _list(schema: Mapping[str, Any]) -> dict[str, Any]:
    items = slim(schema.get("items", True))
    counts = {key: schema[key] for key in ("minItems", "maxItems") if 0 < schema.get(key, 0) <= _LISTED}
    return ({} if items in (True, {}) else {"items": items}) | counts


def _limits(schema: Mapping[str, Any]) -> dict[str, float]:
    """Both bounds as inclusive ones; an exclusive bound is the next whole number."""
    limits = {}
    for key, exclusive, step in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        if isinstance(schema.get(key), (int, float)):
            limits[key] = schema[key]
        elif isinstance(schema.get(exclusive), (int, float)):
            limits[key] = schema[exclusive] + (step if schema.get("type") == "integer" else 0)
    return limits


def _bounds(schema: Mapping[str, Any], *, whole: bool) -> dict[str, int]:
    """The bounds that an engine can be held to: a range that can be spelled out, or zero and more."""
    limits = _limits(schema)
    low, high = limits.get("minimum"), limits.get("maximum")
    if low is None or (low < 0 and high is None):
        return {}
    if high is None or high - low > _LISTED:
        return {"minimum": 0} if low >= 0 else {}
    if whole:
        return {"minimum": math.ceil(low), "maximum": math.floor(high)}
    return {"minimum": math.floor(low), "maximum": math.ceil(high)}


def _told(words: dict[str, str], schema: Mapping[str, Any]) -> dict[str, str]:
    """The bounds as words, for a model that nothing else holds to them."""
    limits = _limits(schema)
    told = ", ".join(f"{name} {limits[key]:g}" for key, name in _BOUNDS if key in limits)
    return {"description": f"{words.get('description', '')} ({told})".strip()}


_BOUNDS: Final = (("minimum", "at least"), ("maximum", "at most"))
