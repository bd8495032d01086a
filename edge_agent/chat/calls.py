"""One stretch of a model's answer, read as tool calls if it is any: the shapes small models write."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

KEYS: Final = ("name", "arguments", "parameters", "function", "type", "id")
"""What the first key of a call can be."""
_MAX_PYTHON: Final = 16_384
"""Characters of a call in Python's notation: Python's own parser gets no more."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the model wrote it; `arguments` is JSON text, always an object."""

    name: str
    arguments: str


def read(text: str, tools: Collection[str], forced: str | None = None, *, closed: bool = True) -> tuple[Call, ...]:
    """Read JSON, a list of JSON or Python's notation; nothing, unless all of it is calls of known tools.

    If `forced` names a tool, only that one counts, and an object that is no call is taken for its arguments. Text that
    the answer's end cut short (`closed` is false) is only completed by a bracket when no argument can be missing.
    """
    allowed = {forced} if forced else set(tools)
    try:
        found = _json(text) if closed else _completed(text)
        items = found if isinstance(found, list) else [found]
        calls = tuple(_call(item, allowed, forced, closed=closed) for item in items)
    except (ValueError, RecursionError):
        return _python(text, allowed) if closed else ()
    return tuple(call for call in calls if call) if all(calls) else ()


def _json(text: str) -> Any:
    stripped = text.strip()
    try:
        return json.loads(stripped, parse_constant=no_constant)
    except ValueError:
        # Models that saw many templates write the braces twice.
        if not (stripped.startswith("{{") and stripped.endswith("}}")):
            raise
        return json.loads(stripped[1:-1], parse_constant=no_constant)


def _completed(text: str) -> Any:
    try:
        return _json(f"{text}}}")
    except ValueError:
        return _json(f"{text}]")


def _call(item: Any, allowed: Collection[str], forced: str | None, *, closed: bool) -> Call | None:
    if not isinstance(item, Mapping):
        return None
    inner = item.get("function")
    call = {**item, **inner} if isinstance(inner, Mapping) else item
    name = inner if isinstance(inner, str) else call.get("name")
    given = next((call[key] for key in ("arguments", "parameters") if key in call), None)
    if isinstance(name, str) and name in allowed and (closed or given is not None):
        arguments = json.loads(given, parse_constant=no_constant) if isinstance(given, str) and given else given or {}
        return _write(name, arguments)
    if forced and given is None and closed:
        return _write(forced, item)
    return None


def _write(name: str, arguments: Any) -> Call | None:
    if not isinstance(arguments, Mapping):
        return None
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode()  # Half a surrogate pair could be read but never sent: a ValueError, so no call.
    return Call(name, text)


def _python(text: str, allowed: Collection[str]) -> tuple[Call, ...]:
    """Read `[name(argument=1), …]`, as Llama 3.2 writes calls."""
    if len(text) > _MAX_PYTHON:
        return ()
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            body = ast.parse(text.strip(), mode="eval").body
        calls = [_python_call(each, allowed) for each in body.elts] if isinstance(body, ast.List) else []
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return ()
    return tuple(call for call in calls if call) if all(calls) else ()


def _python_call(node: ast.expr, allowed: Collection[str]) -> Call | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args):
        return None
    arguments = {each.arg: ast.literal_eval(each.value) for each in node.keywords}
    return _write(node.func.id, arguments) if node.func.id in allowed and None not in arguments else None


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python's parser would take."""
    raise ValueError(f"{name} is no JSON")
