"""Constraints as XGrammar's EBNF: compact JSON, and nothing in it that the runtime could stumble over.

The runtime would take a schema or an expression as it is. But then a small model may write white space until its
tokens are used up, and a schema that the runtime refuses breaks the pipeline for every turn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft202012Validator

from edge_agent.engines.base import Constraint
from edge_agent.engines.openvino.expressions import COUNTED, expression, literal, refused, times
from edge_agent.errors import RequestRefused, Unsupported
from edge_agent.wire import WireError

_LONGEST: Final = 1 << 16
_DEEPEST: Final = 64
_LISTED: Final = 1024
"""A range of whole numbers up to this size is spelled out, and so are the items of a list."""

_JSON: Final = r"""
json_value ::= json_object | json_array | json_string | json_number | "true" | "false" | "null"
json_object ::= "{" (json_string COLON json_value (COMMA json_string COLON json_value)*)? "}"
json_array ::= "[" (json_value (COMMA json_value)*)? "]"
json_string ::= "\"" json_char* "\""
json_char ::= [^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
json_natural ::= "0" | [1-9] [0-9]{0,14}
json_integer ::= "-"? json_natural
json_fraction ::= "." [0-9]{1,9}
json_number ::= "-"? json_natural json_fraction?
"""
_FREE: Final = r"""
opened ::= TagDispatch(("</think>", spoken), stop_eos=true, loop_after_dispatch=false)
spoken ::= space answer?
space ::= [ \t\r\n]{0,2}
answer ::= "<tool_call>" tagged | "```" (("json" | "tool_call")? "\n" bare "\n```" | code text) | bare | first text
code ::= [^jt \t\r\n{[<`] | "j" [^s<] | "js" [^o<] | "t" [^o<]
first ::= [^ \t\r\n{[<`] | "<" ([^t<] | "t" [^ho<]) | "`" "`"? [^`<]
text ::= TagDispatch(("<tool_call>", tagged), stop_eos=true, loop_after_dispatch=false)
"""
"""Text that calls no tool without a rule for it; it may end anywhere.

`TagDispatch` is the runtime's own: any text, until a tag hands over to a rule. One that was spelled out in rules would
grow with every character. The white space that an answer begins with is bounded, because nothing comes of more. A block
of JSON is a call, for models that know no other form; a block of code in another language is text.
"""
_MORE_CALLS: Final = 15
"""After the first one: a small model may go on calling until its tokens are used up, and every call would be made."""
_TAGGED: Final = r'"\n" call "\n</tool_call>"'
_COMPACT: Final = (",", ":")
_SPACED: Final = (", ", ": ")
"""What stands between the parts of JSON; in calls as models were trained to write them, never white space at will."""
_SILENT: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format"}
    | {"$schema", "$id", "$comment", "$defs", "definitions", "strict"}
)
_KEYWORDS: Final = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
}


def ebnf(constraint: Constraint) -> str:
    """Give the grammar; raises `Unsupported` for a constraint that cannot be enforced as it stands."""
    try:
        if constraint.regex is not None:
            text = f"root ::= {expression(constraint.regex)}\n"
        elif constraint.calls is not None:
            return _Schema(constraint.calls, _SPACED).calls(several=constraint.several, thinking=constraint.thinking)
        else:
            text = _Schema(constraint.json_schema or "").grammar()
        if len(text) > _LONGEST:
            raise Unsupported(f"the grammar has {len(text)} characters; {_LONGEST} are allowed")
    except WireError as error:
        error.param = constraint.param
        raise
    return text


class _Schema:
    """One JSON schema on its way to rules."""

    def __init__(self, source: str, marks: tuple[str, str] = _COMPACT) -> None:
        try:
            self._root = json.loads(source)
        except ValueError as error:
            raise RequestRefused(f"the schema is not JSON: {error}") from error
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        """Of rules, by what they say: the same is said once, for the runtime reads a grammar at every request."""
        self._refs: dict[str, str] = {}
        self._opened: set[str] = set()
        self._marks = marks
        self._comma, self._colon = map(literal, marks)

    def grammar(self) -> str:
        return self._written({"root": self._expression(self._root, 0)})

    def calls(self, *, several: bool, thinking: bool) -> str:
        """Free text in which tools may be called, by the schema's properties."""
        tools = self._one_of(self._call(name, each) for name, each in self._root["properties"].items())
        more = times(0, _MORE_CALLS if several else 0, _MORE_CALLS)
        rules = {
            "root": "opened" if thinking else 'space ("<think>" opened | answer)?',
            "call": rf'"{{\"name\": \"" {tools} "}}"',
            "bare": f'call ("\\n" call){more}',
            "tagged": f'{_TAGGED} ("\\n<tool_call>" {_TAGGED}){more}',
        }
        return self._written(rules) + _FREE

    def _call(self, name: str, arguments: Any) -> str:
        """From the tool's name on; arguments that cannot be enforced, or make the grammar too long, are any object."""
        rules, names, refs = dict(self._rules), dict(self._names), dict(self._refs)
        head = rf'{literal(name)} "\", \"arguments\": "'
        try:
            rule = self._rule(f"{head} {self._expression(arguments, 0)}")
            if sum(map(len, self._rules.values())) > _LONGEST:
                raise refused("so long a schema")
        except Unsupported:
            self._rules, self._names, self._refs, self._opened = rules, names, refs, set()
            rule = self._rule(f"{head} json_object")
        return rule

    def _written(self, rules: Mapping[str, str]) -> str:
        base = _JSON.replace("COMMA", self._comma).replace("COLON", self._colon)
        return "".join(f"{name} ::= {rule}\n" for name, rule in {**rules, **self._rules}.items()) + base

    def _rule(self, text: str) -> str:
        if text not in self._names:
            self._names[text] = name = f"rule_{len(self._rules)}"
            self._rules[name] = text
        return self._names[text]

    def _expression(self, schema: Any, depth: int) -> str:
        if depth > _DEEPEST:
            raise refused(f"a schema deeper than {_DEEPEST} levels")
        if schema is True or schema == {}:
            return "json_value"
        if not isinstance(schema, dict):
            raise refused(f"the schema {schema!r}")
        for keyword in ("$ref", "enum", "const", "anyOf", "oneOf"):
            if keyword in schema:
                self._only(schema, {keyword, "type"})
                return self._keyword(keyword, schema[keyword], _kinds(schema), depth)
        kinds = _kinds(schema) or ["object" if "properties" in schema else None]
        if strange := [each for each in kinds if each not in _KEYWORDS]:
            raise refused(f"the type {strange[0]!r}")
        self._only(schema, {"type"}.union(*(_KEYWORDS[each] for each in kinds)))
        return self._one_of(self._typed(schema, each, depth) for each in kinds)

    def _keyword(self, keyword: str, value: Any, kinds: list[Any], depth: int) -> str:
        """A keyword that says all but the type, which may stand beside it."""
        if keyword == "$ref":
            return self._referred(value, kinds, depth)
        if keyword in ("enum", "const"):
            values = value if keyword == "enum" else [value]
            fitting = (each for each in values if not kinds or any(_is(each, kind) for kind in kinds))
            return self._one_of(map(self._text, fitting))
        return self._one_of(self._expression(_narrowed(each, kinds), depth + 1) for each in value)

    def _typed(self, schema: Mapping[str, Any], kind: str, depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                item = self._rule(self._inside(schema.get("items", True), depth))
                return f'"[" {self._list_of(item, *_bounds(schema, "minItems", "maxItems"))} "]"'
            case "string" if "minLength" in schema or "maxLength" in schema:
                return rf'"\"" json_char{times(*_bounds(schema, "minLength", "maxLength"), COUNTED)} "\""'
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return '("true" | "false")'
        return '"null"' if kind == "null" else f"json_{kind}"

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        others = schema.get("additionalProperties", True)
        if unknown := required - properties.keys():
            properties = {**properties, **dict.fromkeys(sorted(unknown), others)}
        if not properties and (others is False or "properties" in schema):
            return '"{" "}"'
        if not properties:
            member = self._rule(f"json_string {self._colon} {self._inside(others, depth)}")
            return f'"{{" {self._list_of(member, 0, None)} "}}"'
        members = [
            (self._rule(f"{self._text(name)} {self._colon} {self._inside(each, depth)}"), name in required)
            for name, each in properties.items()
        ]
        return f'"{{" {self._members(members)} "}}"'

    def _members(self, members: Sequence[tuple[str, bool]]) -> str:
        """The members in their order; a comma stands before every one but the first that is written."""
        first = later = '""'
        for member, required in reversed(members):
            first = f"{member} {later}" if required else self._rule(f"{member} {later} | {first}")
            comma = self._comma
            later = self._rule(f"{comma} {member} {later}" if required else f"({comma} {member})? {later}")
        return first

    def _list_of(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return '""'
        more = f"({self._comma} {item}){times(max(least - 1, 0), None if most is None else most - 1, _LISTED)}"
        return f"{item} {more}" if least else f"({item} {more})?"

    def _text(self, value: Any) -> str:
        """A JSON value as an EBNF string."""
        return literal(json.dumps(value, ensure_ascii=False, separators=self._marks))

    def _inside(self, schema: Any, depth: int) -> str:
        """An expression behind a bracket: here a schema may refer to one that it is part of."""
        opened, self._opened = self._opened, set()
        expression = self._expression(schema, depth + 1)
        self._opened = opened
        return expression

    def _referred(self, reference: str, kinds: list[Any], depth: int) -> str:
        key = f"{reference} {kinds}"
        if key in self._opened:
            raise refused(f"the reference {reference} to itself")
        if key not in self._refs:
            target = self._root
            for part in reference.removeprefix("#").split("/")[1:]:
                target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
            if target is None:
                raise refused(f"the reference {reference}")
            self._refs[key] = name = f"ref_{len(self._refs)}"
            self._opened.add(key)
            self._rules[name] = self._expression(_narrowed(target, kinds), depth + 1)
            self._opened.discard(key)
        return self._refs[key]

    def _only(self, schema: Mapping[str, Any], known: set[str]) -> None:
        if unknown := schema.keys() - known - _SILENT:
            raise refused(f"the keyword {min(unknown)!r} of a schema")

    def _one_of(self, expressions: Any) -> str:
        alternatives = list(dict.fromkeys(expressions))
        if not alternatives:
            raise refused("a choice of nothing")
        return f"({' | '.join(alternatives)})"


def _is(value: Any, kind: Any) -> bool:
    if kind not in _KEYWORDS:
        raise refused(f"the type {kind!r}")
    return bool(Draft202012Validator.TYPE_CHECKER.is_type(value, kind))


def _kinds(schema: Mapping[str, Any]) -> list[Any]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def _narrowed(schema: Any, kinds: list[Any]) -> Any:
    """A schema that another one refers to, with the type that stands there."""
    if not kinds or schema is False:
        return schema
    inner = {} if schema is True else schema
    if _kinds(inner) not in ([], kinds):
        raise refused(f"the type {kinds} beside a reference or a choice that says another")
    return {**inner, "type": kinds}


def _bounds(schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
    """Two counts; `2.0` is as good as `2` to JSON Schema."""
    low, high = schema.get(least, 0), schema.get(most)
    if any(each is not None and not _is(each, "integer") for each in (low, high)):
        raise refused(f"{least} or {most} that is no whole number")
    return int(low), None if high is None else int(high)


def _number(schema: Mapping[str, Any], *, whole: bool) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return "json_integer" if whole else "json_number"
    if low == 0 and high is None:
        return "json_natural" if whole else "json_natural json_fraction?"
    if low is None or high is None or not 0 <= high - low <= _LISTED:
        raise refused(f"a range of numbers wider than {_LISTED} or open at one end")
    listed = range(math.ceil(low), math.floor(high) + 1)
    exact = [literal(str(number)) for number in listed]
    if not whole:
        exact += [f"{literal(str(n))} json_fraction" for n in listed if (low <= n - 1 if n < 0 else n + 1 <= high)]
    if not exact:
        raise refused(f"a number between {low} and {high}")
    return f"({' | '.join(exact)})"
