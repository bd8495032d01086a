"""The shortest text that satisfies a constraint, for the scripted engine."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonschema
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from edge_agent.engines.base import Constraint
from edge_agent.errors import RequestRefused, Unsupported

_DEEPEST: Final = 32


def instance(constraint: Constraint, wish: str) -> str:
    """Give `wish` if it satisfies the constraint, else the shortest text found; `Unsupported` if none is.

    For a schema: constants, the first of an enum or an alternative, required properties only, as few items and
    characters as allowed, zero or the bound nearest to it. For a regular expression: the first alternative that is a
    literal.
    """
    if constraint.regex is not None:
        return _matching(constraint.regex, wish)
    try:
        schema = json.loads(constraint.json_schema or "")
        validator = validator_for(schema)(schema)
        validator.check_schema(schema)
    except (ValueError, jsonschema.SchemaError) as error:
        raise RequestRefused(f"not a JSON schema: {error}", param="response_format") from error
    try:
        if _is_json(wish) and validator.is_valid(json.loads(wish)):
            return wish
        made = _make(schema, schema, 0)
        found = validator.is_valid(made)
    except Unresolvable as error:
        raise RequestRefused(f"not a JSON schema: {error}", param="response_format") from error
    if not found:
        raise Unsupported("the scripted engine finds no instance of this schema", param="response_format")
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def _matching(regex: str, wish: str) -> str:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise RequestRefused(f"not a regular expression: {error}", param="response_format") from error
    for text in (wish, "", *regex.strip("()").split("|")):
        if pattern.fullmatch(text):
            return text
    raise Unsupported("the scripted engine finds no text for this expression", param="response_format")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _make(schema: Any, root: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise Unsupported("the schema has no short instance", param="response_format")
    if not isinstance(schema, dict):
        return None
    for keyword, make in _BY_KEYWORD.items():
        if keyword in schema:
            return make(schema[keyword], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    return _BY_TYPE[kind[0] if isinstance(kind, list) else kind](schema, root, depth + 1)


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    wanted = schema.get("properties", {})
    return {name: _make(wanted.get(name, {}), root, depth) for name in schema.get("required", ())}


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    return [_make(schema.get("items", {}), root, depth) for _ in range(schema.get("minItems", 0))]


def _number(schema: Mapping[str, Any], _root: Any, _depth: int) -> Any:
    return max(schema.get("minimum", -math.inf), min(0, schema.get("maximum", 0)))


def _referred(reference: str, root: Any) -> Any:
    target = root
    for part in reference.removeprefix("#").split("/")[1:]:
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target


_BY_KEYWORD: Final[Mapping[str, Callable[[Any, Any, int], Any]]] = {
    "const": lambda value, _root, _depth: value,
    "enum": lambda values, _root, _depth: values[0],
    "$ref": lambda reference, root, depth: _make(_referred(reference, root), root, depth),
    "anyOf": lambda schemas, root, depth: _make(schemas[0], root, depth),
    "oneOf": lambda schemas, root, depth: _make(schemas[0], root, depth),
}
_BY_TYPE: Final[Mapping[str, Callable[[Any, Any, int], Any]]] = {
    "object": _object,
    "array": _array,
    "string": lambda schema, _root, _depth: "x" * schema.get("minLength", 0),
    "number": _number,
    "integer": _number,
    "boolean": lambda _schema, _root, _depth: False,
    "null": lambda _schema, _root, _depth: None,
}
