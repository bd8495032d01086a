"""Constraints as XGrammar's EBNF: compact JSON, and nothing in it that the runtime could stumble over.

The runtime would take a schema or an expression as it is. But then a small model may write white space until its
tokens are used up, and a schema that the runtime refuses breaks the pipeline for every turn.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edge_agent.engines.base import Constraint
from edge_agent.errors import RequestRefused

_PARAM: Final = "response_format"
_LONGEST: Final = 1 << 16
_DEEPEST: Final = 64
_LISTED: Final = 1024
"""A range of whole numbers up to this size is spelled out, and so is a repetition, nested ones multiplied."""
_COUNTED: Final = 64
"""Characters of a string that are counted. The runtime's matcher needs 0.1 s for a token at 128, and 1 s at 1,024."""

_BASE: Final = r"""
json_value ::= json_object | json_array | json_string | json_number | "true" | "false" | "null"
json_object ::= "{" (json_string ":" json_value ("," json_string ":" json_value)*)? "}"
json_array ::= "[" (json_value ("," json_value)*)? "]"
json_string ::= "\"" json_char* "\""
json_char ::= [^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
json_natural ::= "0" | [1-9] [0-9]{0,14}
json_integer ::= "-"? json_natural
json_fraction ::= "." [0-9]{1,9}
json_number ::= "-"? json_natural json_fraction?
"""
_SILENT: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format"}
    | {"$schema", "$id", "$comment", "$defs", "definitions", "additionalProperties", "strict"}
)
_KEYWORDS: Final = {
    "object": {"properties", "required"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
}


def ebnf(constraint: Constraint) -> str:
    """Give the grammar; raises `RequestRefused` for a schema or an expression that cannot be enforced as it stands."""
    if constraint.regex is not None:
        text = f"root ::= {_expression(constraint.regex)}\n"
    else:
        text = _Schema(constraint.json_schema or "").grammar()
    if len(text) > _LONGEST:
        raise RequestRefused(f"the grammar has {len(text)} characters; {_LONGEST} are allowed", param=_PARAM)
    return text


def literal(text: str) -> str:
    """Give text as an EBNF string."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if " " <= char <= "~" else f"\\U{ord(char):08X}"


def _refused(what: str) -> RequestRefused:
    return RequestRefused(f"{what} cannot be enforced", param=_PARAM)


class _Schema:
    """One JSON schema on its way to rules."""

    def __init__(self, source: str) -> None:
        try:
            self._root = json.loads(source)
        except ValueError as error:
            raise RequestRefused(f"the schema is not JSON: {error}", param=_PARAM) from error
        self._rules: dict[str, str] = {}
        self._refs: dict[str, str] = {}
        self._opened: set[str] = set()

    def grammar(self) -> str:
        root = self._expression(self._root, 0)
        return "".join(f"{name} ::= {rule}\n" for name, rule in {"root": root, **self._rules}.items()) + _BASE

    def _rule(self, text: str) -> str:
        name = f"rule_{len(self._rules)}"
        self._rules[name] = text
        return name

    def _expression(self, schema: Any, depth: int) -> str:
        if depth > _DEEPEST:
            raise _refused(f"a schema deeper than {_DEEPEST} levels")
        if schema is True or schema == {}:
            return "json_value"
        if not isinstance(schema, dict):
            raise _refused(f"the schema {schema!r}")
        if "const" in schema or "enum" in schema:
            return self._one_of(_text(value) for value in schema.get("enum", [schema.get("const")]))
        if "$ref" in schema:
            return self._referred(schema["$ref"], depth)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                self._only(schema, {keyword, "type"})
                return self._one_of(self._expression(each, depth + 1) for each in schema[keyword])
        kind = schema.get("type", "object" if "properties" in schema else None)
        kinds: list[Any] = kind if isinstance(kind, list) else [kind]
        if strange := [each for each in kinds if each not in _KEYWORDS]:
            raise _refused(f"the type {strange[0]!r}")
        self._only(schema, {"type"}.union(*(_KEYWORDS[each] for each in kinds)))
        return self._one_of(self._typed(schema, each, depth) for each in kinds)

    def _typed(self, schema: Mapping[str, Any], kind: str, depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                item = self._rule(self._inside(schema.get("items", True), depth))
                return f'"[" {_list_of(item, schema.get("minItems", 0), schema.get("maxItems"))} "]"'
            case "string" if "minLength" in schema or "maxLength" in schema:
                return rf'"\"" json_char{_times(schema.get("minLength", 0), schema.get("maxLength"), _COUNTED)} "\""'
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return '("true" | "false")'
        return '"null"' if kind == "null" else f"json_{kind}"

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        if unknown := required - properties.keys():
            properties = {**properties, **dict.fromkeys(sorted(unknown), True)}
        if not properties:
            return '"{" "}"' if schema.get("additionalProperties") is False else "json_object"
        members = [
            (self._rule(f"{_text(name)} {literal(':')} {self._inside(each, depth)}"), name in required)
            for name, each in properties.items()
        ]
        return f'"{{" {self._members(members)} "}}"'

    def _members(self, members: Sequence[tuple[str, bool]]) -> str:
        """The members in their order; a comma stands before every one but the first that is written."""
        first = later = '""'
        for member, required in reversed(members):
            first = f"{member} {later}" if required else self._rule(f"{member} {later} | {first}")
            later = self._rule(f'"," {member} {later}' if required else f'("," {member})? {later}')
        return first

    def _inside(self, schema: Any, depth: int) -> str:
        """An expression behind a bracket: here a schema may refer to one that it is part of."""
        opened, self._opened = self._opened, set()
        expression = self._expression(schema, depth + 1)
        self._opened = opened
        return expression

    def _referred(self, reference: str, depth: int) -> str:
        if reference in self._opened:
            raise _refused(f"the reference {reference} to itself")
        if reference not in self._refs:
            target = self._root
            for part in reference.removeprefix("#").split("/")[1:]:
                target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
            if target is None:
                raise _refused(f"the reference {reference}")
            self._refs[reference] = name = f"ref_{len(self._refs)}"
            self._opened.add(reference)
            self._rules[name] = self._expression(target, depth + 1)
            self._opened.discard(reference)
        return self._refs[reference]

    def _only(self, schema: Mapping[str, Any], known: set[str]) -> None:
        if unknown := schema.keys() - known - _SILENT:
            raise _refused(f"the keyword {min(unknown)!r} of a schema")

    def _one_of(self, expressions: Any) -> str:
        alternatives = list(dict.fromkeys(expressions))
        if not alternatives:
            raise _refused("a choice of nothing")
        return f"({' | '.join(alternatives)})"


def _text(value: Any) -> str:
    """A JSON value, compact, as an EBNF string."""
    return literal(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _list_of(item: str, least: int, most: int | None) -> str:
    if most == 0:
        return '""'
    more = f'("," {item}){_times(max(least - 1, 0), None if most is None else most - 1)}'
    return f"{item} {more}" if least else f"({item} {more})?"


def _times(least: int, most: int | None, limit: int = _LISTED) -> str:
    if max(least, most or 0) > limit or (most is not None and least > most):
        raise _refused(f"a repetition of {least} to {most} times")
    return f"{{{least},{'' if most is None else most}}}"


def _number(schema: Mapping[str, Any], *, whole: bool) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return "json_integer" if whole else "json_number"
    if low == 0 and high is None:
        return "json_natural" if whole else "json_natural json_fraction?"
    if low is None or high is None or not 0 <= high - low <= _LISTED:
        raise _refused(f"a range of numbers wider than {_LISTED} or open at one end")
    listed = range(math.ceil(low), math.floor(high) + 1)
    exact = [literal(str(number)) for number in listed]
    if not whole:
        exact += [f"{literal(str(n))} json_fraction" for n in listed if (low <= n - 1 if n < 0 else n + 1 <= high)]
    if not exact:
        raise _refused(f"a number between {low} and {high}")
    return f"({' | '.join(exact)})"


# Regular expressions -------------------------------------------------------------------------------------------------

_CLASSES: Final = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_WORD": "a-zA-Z0-9_",
    "CATEGORY_SPACE": r" \t\n\r",
}


def _expression(regex: str) -> str:
    """Read with Python's own parser; what a grammar cannot say (look-around, back-references) is refused by name."""
    parser = importlib.import_module("re._parser")
    try:
        parsed = parser.parse(regex)
        if parsed.state.flags != re.UNICODE:
            raise _refused("a flag in a regular expression")
        return _sequence(parsed)
    except (parser.error, OverflowError, RecursionError) as error:
        raise RequestRefused(f"not a regular expression: {error}", param=_PARAM) from error


def _sequence(nodes: Any, weight: int = 1) -> str:
    return " ".join(filter(None, (_node(str(kind), value, weight) for kind, value in nodes))) or '""'


def _node(kind: str, value: Any, weight: int) -> str:
    if kind == "AT" and str(value) in _ANCHORS:
        return ""  # What is written is the whole text anyway.
    if kind not in _NODES or (kind == "SUBPATTERN" and (value[1] or value[2])):
        raise _refused(f"{kind.lower().replace('_', ' ')} in a regular expression")
    return _NODES[kind](value, weight)


def _repeated(value: Any, weight: int) -> str:
    low, high, inner = value
    most = None if str(high) == "MAXREPEAT" else high
    weight *= max(low, most or 1, 1)
    if weight > _LISTED:
        raise _refused(f"a repetition of {weight} times")
    return f"({_sequence(inner, weight)}){_times(low, most)}"


def _member(kind: str, value: Any) -> str:
    match kind:
        case "NEGATE":
            return "^"
        case "LITERAL":
            return _class_char(value)
        case "RANGE":
            return f"{_class_char(value[0])}-{_class_char(value[1])}"
        case "CATEGORY" if str(value) in _CLASSES:
            return _CLASSES[str(value)]
    raise _refused(f"{str(value).lower().replace('_', ' ')} in a set of characters")


def _class_char(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\U{code:08X}"


_ANCHORS: Final = ("AT_BEGINNING", "AT_BEGINNING_STRING", "AT_END", "AT_END_STRING")
_NODES: Final[Mapping[str, Callable[[Any, int], str]]] = {
    "LITERAL": lambda code, _: literal(chr(code)),
    "NOT_LITERAL": lambda code, _: f"[^{_class_char(code)}]",
    "ANY": lambda _, __: r"[^\n]",
    "IN": lambda members, _: f"[{''.join(_member(str(kind), value) for kind, value in members)}]",
    "BRANCH": lambda value, weight: f"({' | '.join(_sequence(each, weight) for each in value[1])})",
    "SUBPATTERN": lambda value, weight: f"({_sequence(value[3], weight)})",
    "MAX_REPEAT": _repeated,
    "MIN_REPEAT": _repeated,
}
