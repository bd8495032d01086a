"""JSON Schema, Draft 2020-12, from people we do not know: bounded, closed to the outside, never a hang.

A `$ref` reads `#/$defs/NAME`, where NAME is defined in the schema itself or in the request's `edge.defs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from edge_agent.chat.fields import Field, number, of
from edge_agent.errors import RequestRefused, Unsupported

MAX_DEPTH: Final = 32
MAX_NODES: Final = 4096
MAX_REFERENCES: Final = 20_000
"""Followed while one text is validated: references to references can cost exponential time."""
PATTERN_SECONDS: Final = 0.1
"""For one match: a backtracking pattern can cost exponential time too."""

_DATA: Final = frozenset({"const", "default", "enum", "examples"})
_NAMES: Final = frozenset({"$defs", "dependentSchemas", "properties"})
"""Their keys are names of the client's choosing, their values schemas."""
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_ONE: Final = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_CLOSED: Final = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "patternProperties"})
_PREFIX: Final = "#/$defs/"
_extend: Final[Callable[..., Any]] = extend


def check(schema: Any, defs: Mapping[str, Any], param: str) -> None:
    """Refuse what is no sound, bounded schema; `defs` are the definitions it may refer to besides its own."""
    if not isinstance(schema, Mapping):
        raise RequestRefused(f"{param} must be a JSON Schema object", param=param)
    own = schema.get("$defs", {})
    known = {*defs, *(own if isinstance(own, Mapping) else ())}
    for count, (node, depth) in enumerate(_walk(schema)):
        if count > MAX_NODES or depth > MAX_DEPTH:
            limits = f"{MAX_NODES} parts or {MAX_DEPTH} levels"
            raise RequestRefused(f"{param} is larger than {limits}: simplify the schema", param=param)
        _check_node(node, known, param)


def close(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with all it may refer to inside; its own definitions hide those of the request."""
    own = {**defs, **schema.get("$defs", {})}
    return {**schema, "$defs": own} if own else dict(schema)


def lift(schema: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a schema that will stand inside another into its body and its own definitions, renamed by `prefix`."""
    own = schema.get("$defs", {})
    names = {name: f"{prefix}{name}" for name in own}
    body = _rename({key: value for key, value in schema.items() if key != "$defs"}, names)
    return body, {names[name]: _rename(value, names) for name, value in own.items()}


def problem(schema: Mapping[str, Any], value: Any, param: str) -> str | None:
    """Say what is wrong with a value, in a sentence for the model that wrote it; None when it is valid."""
    budget = itertools.count()
    follow = Draft202012Validator.VALIDATORS["$ref"]

    def counted(validator: Any, ref: str, instance: Any, node: Any) -> Iterator[ValidationError]:
        if next(budget) > MAX_REFERENCES:
            raise RecursionError
        yield from follow(validator, ref, instance, node) or ()

    validator = _extend(Draft202012Validator, {"$ref": counted, "pattern": _pattern})
    try:  # An empty registry fetches nothing: without one, jsonschema would follow an address to the network.
        error = best_match(validator(schema, registry=Registry()).iter_errors(value))
    except (RecursionError, TimeoutError, Unresolvable) as too_much:
        raise RequestRefused(
            f"{param} cannot be validated within bounds: simplify its schema", param=param
        ) from too_much
    if error is None:
        return None
    place = ".".join(str(step) for step in error.absolute_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:297]}..."
    return f"at {place}: {message}" if place else message


def matches(pattern: str, text: str, param: str) -> bool:
    """Whether the whole text matches a pattern checked by `check_pattern`."""
    try:
        return regex.fullmatch(pattern, text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError as error:
        raise RequestRefused(f"{param} takes too long to match: simplify the pattern", param=param) from error


def check_pattern(pattern: str, param: str) -> None:
    """Refuse what is no regular expression."""
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise RequestRefused(f"{param} is no valid regular expression: {error}", param=param) from error


def _check_node(node: Mapping[str, Any], known: set[str], param: str) -> None:
    if closed := _CLOSED & node.keys():
        raise Unsupported(f"{param} uses {min(closed)}, which is not supported", param=param)
    ref = node.get("$ref")
    if "$ref" in node and not (isinstance(ref, str) and ref.startswith(_PREFIX) and ref[len(_PREFIX) :] in known):
        where = "must be #/$defs/NAME with NAME defined in the schema or in edge.defs"
        raise RequestRefused(f"{param}: the $ref {str(ref)[:80]!r} {where}", param=param)
    for keyword, value in node.items():
        if keyword in _KEYWORDS and not _KEYWORDS[keyword].check(value):
            rule = f"{keyword} must be {_KEYWORDS[keyword].allowed}"
            raise RequestRefused(f"{param} is no valid JSON Schema: {rule}", param=param)
    if "pattern" in node:
        check_pattern(node["pattern"], param)


def _walk(schema: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield every schema inside a schema, with its depth; what stands below an unknown keyword means nothing."""
    stack: list[tuple[Any, int]] = [(schema, 0)]
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, Mapping):
            continue
        yield node, depth
        for keyword in node.keys() & _NAMES:
            stack.extend((value, depth + 2) for value in node[keyword].values())
        for keyword in node.keys() & _SEVERAL:
            stack.extend((value, depth + 2) for value in node[keyword])
        stack.extend((node[keyword], depth + 1) for keyword in node.keys() & _ONE)


def _is_schema(value: Any) -> bool:
    return isinstance(value, (Mapping, bool))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value) and len(set(value)) == len(value)


def _is_dependency(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_names, value.values()))


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_names(names) and bool(names) and _TYPES.issuperset(names)


_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_COUNTS: Final = tuple(
    f"{end}{what}" for end in ("max", "min") for what in ("Contains", "Items", "Length", "Properties")
)
_KEYWORDS: Final[Mapping[str, Field]] = {
    keyword: rule
    for keywords, rule in (
        (_ONE, Field("a schema", _is_schema)),
        (_SEVERAL, Field("a list of schemas", lambda v: isinstance(v, list) and v != [] and all(map(_is_schema, v)))),
        (_NAMES, Field("an object of schemas", lambda v: isinstance(v, Mapping) and all(map(_is_schema, v.values())))),
        (_COUNTS, number("a whole number from 0", lambda v: v >= 0 and v == int(v))),
        (("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"), number("a number", lambda _: True)),
        (("description", "format", "pattern", "title"), of("a string", str)),
        (("dependentRequired",), Field("an object of lists of different names", _is_dependency)),
        (("enum",), of("a list", list)),
        (("multipleOf",), number("a number above 0", lambda v: v > 0)),
        (("required",), Field("a list of different names", _is_names)),
        (("type",), Field(f"one or more of {', '.join(sorted(_TYPES))}", _is_type)),
        (("uniqueItems",), of("true or false", bool)),
    )
    for keyword in keywords
}
"""What the metaschema demands of one schema, as a table: validating against it takes a hundred times as long."""


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not regex.search(pattern, instance, timeout=PATTERN_SECONDS):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _rename(node: Any, renamed: Mapping[str, str], *, names: bool = False) -> Any:
    if isinstance(node, list):
        return [_rename(item, renamed) for item in node]
    if not isinstance(node, Mapping):
        return node
    copy = {
        key: value if key in _DATA and not names else _rename(value, renamed, names=not names and key in _NAMES)
        for key, value in node.items()
    }
    if not names and "$ref" in copy:
        name = copy["$ref"].removeprefix(_PREFIX)
        copy["$ref"] = f"{_PREFIX}{renamed.get(name, name)}"
    return copy
