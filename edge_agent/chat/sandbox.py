"""Jinja, set up as Hugging Face sets it up for chat templates, but sandboxed, bounded and told the date by us."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date
from functools import lru_cache, wraps
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.filters import do_format
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_agent.errors import ConfigError, RequestRefused

MAX_TEXT: Final = 4 << 20
"""Characters a template may write."""
MAX_SECONDS: Final = 2.0
"""For one rendering."""
_DEADLINE: Final = ContextVar[float]("deadline")
_PADDING: Final = ("batch", "center", "format", "indent", "slice", "tojson")
"""Filters that a number makes write much."""
_WIDE: Final = re.compile(r"\d{7}")
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
    TimeoutError,
    TypeError,
    ValueError,
)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"%", "*", "**", "+"})

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        """Compile, with an eye on the clock in every loop."""
        for loop in [*source.find_all(nodes.For)]:
            loop.iter = nodes.Filter(loop.iter, "in_time", [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, *args, **options)

    def call(self, context: Any, called: Any, /, *args: Any, **options: Any) -> Any:
        """Call what a template calls, in time, and without a method of text that pads it with gigabytes."""
        _look_at_the_clock()
        method = getattr(called, "__wrapped__", called)
        if isinstance(text := getattr(method, "__self__", None), str):
            _bound(text if method.__name__.startswith("format") else "", (*args, *options.values()))
        return super().call(context, called, *args, **options)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate without letting a short template write gigabytes."""
        if operator == "%" and isinstance(left, str):
            _bound(left, right if isinstance(right, tuple) else (right,))
        if operator == "+" and isinstance(left, (str, list)) and len(left) + len(right) > MAX_TEXT:
            raise OverflowError(f"more than {MAX_TEXT} items")
        if operator == "**" and not (abs(left) <= MAX_TEXT and abs(right) <= 64):
            raise OverflowError(f"{operator} of numbers this large")
        sizes = [len(each) for each in (left, right) if isinstance(each, (str, list, tuple))]
        counts = [each for each in (left, right) if isinstance(each, int)]
        if operator == "*" and sizes and counts and sizes[0] * counts[0] > MAX_TEXT:
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
    sandbox.filters["in_time"] = _in_time
    for name in _PADDING:
        sandbox.filters[name] = _bounded_filter(sandbox.filters[name])
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
    token = _DEADLINE.set(time.monotonic() + MAX_SECONDS)
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
    finally:
        _DEADLINE.reset(token)


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    left = MAX_TEXT
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise OverflowError(f"more than {MAX_TEXT} characters")
        yield piece


def _look_at_the_clock() -> None:
    if time.monotonic() > _DEADLINE.get():
        raise TimeoutError(f"it takes longer than {MAX_SECONDS:g} s")


def _in_time(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _look_at_the_clock()
        yield item


def _bound(template: str, values: Iterable[Any]) -> None:
    """Refuse widths beyond reason, whether they stand in a format or among its values."""
    if _WIDE.search(template) or any(isinstance(value, int) and value > MAX_TEXT for value in values):
        raise OverflowError(f"more than {MAX_TEXT} characters")


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*args: Any, **options: Any) -> Any:
        _bound(str(args[0]) if function is do_format else "", (*args, *options.values()))
        return function(*args, **options)

    return bounded


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
