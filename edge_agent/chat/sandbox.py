"""Jinja, set up as Hugging Face sets it up for chat templates, but sandboxed, bounded and without a clock."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_agent.errors import ConfigError, RequestRefused

MAX_TEXT: Final = 4 << 20
"""Characters a template may write."""
_GENERATION: Final = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
"""Training's mark around the assistant's words; means nothing here."""
_MISSING: Final = re.compile(r"'(\w+)' is undefined")
# What an expression of a template can raise besides Jinja's own errors.
_FAULTS: Final = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply without letting a short template write gigabytes."""
        if operator == "**" and not (abs(left) <= MAX_TEXT and abs(right) <= 64):
            raise OverflowError(f"{operator} of numbers this large")
        sizes = [len(each) for each in (left, right) if isinstance(each, (str, list, tuple))]
        counts = [each for each in (left, right) if isinstance(each, int)]
        if sizes and counts and sizes[0] * counts[0] > MAX_TEXT:
            raise OverflowError(f"more than {MAX_TEXT} items")
        return super().call_binop(context, operator, left, right)


class _RaisedError(TemplateError):
    """The template itself objects, through `raise_exception`."""


@lru_cache(maxsize=256)
def load(source: str, *, strict: bool = False) -> Template:
    """Compile a template; `strict` refuses variables without a value. Raises `ConfigError`, naming the line."""
    try:
        return _sandbox(strict=strict).from_string(_GENERATION.sub(r"{#\1 \2#}", source))
    except TemplateSyntaxError as error:
        raise ConfigError(f"template, line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise ConfigError("template: nested too deeply") from error


@lru_cache(maxsize=256)
def variables(source: str) -> frozenset[str]:
    """Name the variables a template reads and does not set itself; it must compile."""
    sandbox = _sandbox(strict=True)
    return frozenset(find_undeclared_variables(sandbox.parse(source)) - sandbox.globals.keys())


@lru_cache(maxsize=2)
def _sandbox(*, strict: bool) -> _Sandbox:
    sandbox = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        undefined=StrictUndefined if strict else Undefined,
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.globals["raise_exception"] = _refuse
    return sandbox


def render(template: Template, values: Mapping[str, Any], *, today: str | None, param: str) -> str:
    """Write a template out; `today` is YYYY-MM-DD, or None if the template should do without a date.

    Raises `RequestRefused` when the template cannot, or will not, render what it was given; `param` is to blame, or, in
    a strict template, the variable of it that is missing.
    """
    if today is not None:
        day = date.fromisoformat(today)
        values = {**values, "strftime_now": day.strftime}
    try:
        return "".join(_bounded(template.generate(**values)))
    except _RaisedError as error:
        raise RequestRefused(f"the template refuses: {error.message}", param=param) from error
    except UndefinedError as error:
        missing = _MISSING.match(error.message or "")
        strict = template.environment.undefined is StrictUndefined
        where = f"{param}.{missing[1]}" if missing and strict else param
        raise RequestRefused(f"the template needs more than it was given: {error}", param=where) from error
    except _FAULTS as error:
        raise RequestRefused(f"the template cannot render this: {error}", param=param) from error


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    left = MAX_TEXT
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise OverflowError(f"more than {MAX_TEXT} characters")
        yield piece


def _refuse(message: str) -> NoReturn:
    raise _RaisedError(message)


def _tojson(
    value: Any,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    *,
    ensure_ascii: bool = False,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
