"""The shortest text that satisfies a constraint, for the scripted engine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, SchemaError

from edge_agent.chat import schema as schemas
from edge_agent.engines.base import Constraint
from edge_agent.errors import RequestRefused, Unsupported

_DEEPEST: Final = 32
_LARGEST: Final = 10_000
"""Values and characters that one instance may need."""


def instance(constraint: Constraint, wish: str) -> str:
    """Give `wish` if it satisfies the constraint, else the shortest text found; `Unsupported` if none is.

    For a schema: constants, the first of an enum or an alternative, required properties only, as few items and
    characters as allowed, zero or the bound nearest to it. For a regular expression: the first alternative that is a
    literal. Free text with calls is given as it is wished: a script is its author's word, bad calls included.
    """
    if constraint.calls is not None:
        return wish
    param = constraint.param or "tools"
    if constraint.regex is not None:
        return _matching(constraint.regex, wish, param)
    try:
        schema = json.loads(constraint.json_schema or "")
        Draft202012Validator.check_schema(schema)
    except (ValueError, SchemaError) as error:
        raise RequestRefused(f"not a JSON schema: {error}", param=param) from error
    if _is_json(wish) and not schemas.problem(schema, json.loads(wish), param):
        return wish
    made = _Maker(schema, param).make(schema, 0)
    if schemas.problem(schema, made, param):
        raise Unsupported("the scripted engine finds no instance of this schema", param=param)
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def _matching(regex: str, wish: str, param: str) -> str:
    schemas.check_pattern(regex, param)
    for text in (wish, "", *regex.strip("()").split("|")):
        if schemas.matches(regex, text, param):
            return text
    raise Unsupported("the scripted engine finds no text for this expression", param=param)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class _Maker:
    """Makes the shortest value that a schema describes, within bounds."""

    def __init__(self, root: Any, param: str) -> None:
        self._root = root
        self._param = param
        self._left = _LARGEST

    def make(self, schema: Any, depth: int) -> Any:
        self._spend(1)
        if depth > _DEEPEST:
            raise Unsupported("the schema has no short instance", param=self._param)
        match schema:
            case {"const": value} | {"enum": [value, *_]}:
                return value
            case {"$ref": str(reference)}:
                return self.make(self._referred(reference), depth + 1)
            case {"anyOf": [first, *_]} | {"oneOf": [first, *_]}:
                return self.make(first, depth + 1)
            case dict():
                kind = schema.get("type", "object" if "properties" in schema else "null")
                return self._typed(schema, kind[0] if isinstance(kind, list) else kind, depth + 1)
        return None

    def _typed(self, schema: Mapping[str, Any], kind: str, depth: int) -> Any:
        match kind:
            case "object":
                wanted = schema.get("properties", {})
                return {name: self.make(wanted.get(name, {}), depth) for name in schema.get("required", ())}
            case "array":
                count = self._spend(schema.get("minItems", 0))
                return [self.make(schema.get("items", {}), depth) for _ in range(count)]
            case "string":
                return "x" * self._spend(schema.get("minLength", 0))
            case "number" | "integer":
                return max(schema.get("minimum", -math.inf), min(0, schema.get("maximum", 0)))
        return False if kind == "boolean" else None

    def _spend(self, count: float) -> int:
        self._left -= int(count)
        if self._left < 0:
            raise Unsupported(f"the shortest instance of the schema is larger than {_LARGEST}", param=self._param)
        return int(count)

    def _referred(self, reference: str) -> Any:
        target = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target
