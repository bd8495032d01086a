"""Fields of a JSON object and what each may be: a table in, checked values or a refusal that names the field out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Field:
    """What a field may be, in words and as a test."""

    allowed: str
    check: Callable[[Any], bool]


def of(allowed: str, *types: type) -> Field:
    """Allow instances of some types."""
    return Field(allowed, lambda value: isinstance(value, types))


def number(allowed: str, check: Callable[[float], bool]) -> Field:
    """Allow numbers that pass a check, which NaN must not."""
    return Field(allowed, lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and check(v))


def whole(low: int, high: int) -> Field:
    """Allow whole numbers from `low` to `high`."""
    return Field(
        f"a whole number from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def read(source: Mapping[str, Any], fields: Mapping[str, Field], path: str = "") -> dict[str, Any]:
    """Take the known fields of an object, each checked; null is the same as absent."""
    given = {name: source[name] for name in fields if source.get(name) is not None}
    for name, value in given.items():
        if not fields[name].check(value):
            raise wrong(f"{path}{name}", fields[name].allowed)
    return given


def take(value: Any, fields: Mapping[str, Field], path: str, *needed: str) -> dict[str, Any]:
    """Read what must be an object, at `path`, with the fields that are needed."""
    if not isinstance(value, Mapping):
        raise wrong(path, "an object")
    given = read(value, fields, f"{path}.")
    for name in needed:
        if name not in given:
            raise RequestRefused(f"{path}.{name} is missing", param=f"{path}.{name}")
    return given


def wrong(param: str, allowed: str) -> RequestRefused:
    """Say what a field must be."""
    return RequestRefused(f"{param} must be {allowed}", param=param)
