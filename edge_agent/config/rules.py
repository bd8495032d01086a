"""What a value of the configuration may be: each rule checks one value and says in words what is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import voluptuous as vol

from edge_agent.wire import POOL, is_segment


@dataclass(frozen=True, slots=True)
class Rule:
    """A voluptuous validator that can be documented. `check` returns the value to keep or raises `vol.Invalid`."""

    allowed: str
    check: Callable[[Any], Any]
    literal: bool = False
    """Text: an environment variable is taken as it stands instead of as YAML."""
    secret: bool = False
    """Never shown; may be given as `NAME_file`."""
    path: bool = False
    """A relative path starts at the configuration file's folder."""
    readable: bool = False
    """The path of a file that must be readable; systemd's credentials are looked at first."""

    def __call__(self, value: Any) -> Any:
        return self.check(value)


def shown(value: Any) -> str:
    """A value as an error names it: short, and as YAML would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(value: Any, allowed: str) -> vol.Invalid:
    return vol.Invalid(f"{shown(value)} is not {allowed}")


def whole(low: int, high: int) -> Rule:
    """A whole number within bounds."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _refuse(value, "a whole number")
        if not low <= value <= high:
            raise _refuse(value, f"between {low} and {high}")
        return value

    return Rule(f"whole number, {low} to {high}", check)


def seconds(low: float, high: float) -> Rule:
    """A number of seconds within bounds."""

    def check(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _refuse(value, "a number of seconds")
        if not low <= value <= high:
            raise _refuse(value, f"between {low:g} and {high:g}")
        return float(value)

    return Rule(f"seconds, {low:g} to {high:g}", check)


def one_of(*names: str) -> Rule:
    """One word out of a few. YAML reads a bare 5 as a number, so numbers are taken for their text."""

    def check(value: Any) -> str:
        text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        if text not in names:
            raise _refuse(value, f"one of {', '.join(names)}")
        return str(text)

    return Rule(" ".join(f"`{name}`" for name in names), check, literal=True)


def flag() -> Rule:
    """True or false."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise _refuse(value, "true or false")
        return value

    return Rule("`true` `false`", check)


def text(what: str = "text", *, secret: bool = False, fits: Callable[[str], bool] = bool) -> Rule:
    """Text of which `fits` holds; without it, any that is not empty. A secret is never quoted in a refusal."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            hint = "; put it in quotes" if isinstance(value, (int, float)) else ""
            raise vol.Invalid(f"{'the value' if secret else shown(value)} is not {what}{hint}")
        if not fits(value):
            raise vol.Invalid(f"{'the value' if secret else shown(value)} is not {what}")
        return value

    return Rule(what, check, literal=True, secret=secret)


def node_name() -> Rule:
    """A segment of a topic that is not the pool's."""
    what = f"1 to 64 of A-Z a-z 0-9 _ . - and not `{POOL}`"
    return text(what, fits=lambda value: is_segment(value) and value != POOL)


def topic_root() -> Rule:
    """Segments of a topic, joined by slashes."""
    return text("topic segments of A-Z a-z 0-9 _ . -, joined by /", fits=lambda v: all(map(is_segment, v.split("/"))))


def segments() -> Rule:
    """A list of names that fit a topic."""

    def check(value: Any) -> frozenset[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) and is_segment(item) for item in value):
            raise _refuse(value, "a list of client names of A-Z a-z 0-9 _ . -")
        return frozenset(value)

    return Rule("list of client names", check)


def mapping(what: str = "mapping") -> Rule:
    """Anything under keys of text: whoever uses it checks what is inside."""

    def check(value: Any) -> Mapping[str, Any]:
        if value is None:
            return MappingProxyType({})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _refuse(value, f"a {what}")
        return MappingProxyType(dict(value))

    return Rule(what, check)


def mappings(what: str) -> Rule:
    """A mapping of names to mappings, which stay plain: they have schemas of their own."""
    outer, inner = mapping(what), mapping()

    def check(value: Any) -> Mapping[str, Any]:
        return MappingProxyType(vol.Schema({str: lambda each: dict(inner(each))})(dict(outer(value))))

    return Rule(what, check)


def folder() -> Rule:
    """A folder's path; it need not exist."""

    def check(value: Any) -> Path:
        if not isinstance(value, (str, Path)) or not str(value):
            raise _refuse(value, "the path of a folder")
        return Path(value)

    return Rule("path of a folder", check, literal=True, path=True)


def readable_file() -> Rule:
    """The path of a file this process may read."""

    def check(value: Any) -> Path:
        if not isinstance(value, (str, Path)) or not str(value):
            raise _refuse(value, "the path of a file")
        if not Path(value).is_file():
            raise vol.Invalid(f"there is no file {value}")
        if not os.access(value, os.R_OK):
            raise vol.Invalid(f"{value} cannot be read by this user")
        return Path(value)

    return Rule("path of a readable file", check, literal=True, path=True, readable=True)
