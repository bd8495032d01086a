"""Prompt templates of the agent's configuration: the operator's words, with the client's values as data in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import voluptuous as vol

from edge_agent.chat import sandbox
from edge_agent.chat.request import parse
from edge_agent.envelope import EMPTY, Edge
from edge_agent.errors import ConfigError, RequestRefused
from edge_agent.wire import WireError

MAX_VARIABLE: Final = 65_536
"""Characters of one variable, written as JSON."""
_ROLES: Final = ("system", "user", "assistant")
_OPTIONS: Final = ("max_tokens", "temperature", "stop", "response_format")
_CONFIGURATION: Final = vol.Schema(
    {
        vol.Required("messages"): vol.All(
            [{vol.Required("role"): vol.In(_ROLES), vol.Required("content"): str}], vol.Length(min=1)
        ),
        vol.Optional("defaults", default=dict): dict,
        vol.Optional("required", default=list): [str],
        vol.Optional("options", default=dict): {vol.Optional(each): object for each in _OPTIONS},
    }
)


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """Messages with holes: (role, Jinja source) pairs. Raises `ConfigError` for a source that does not compile."""

    name: str
    messages: Sequence[tuple[str, str]]
    defaults: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    required: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    """Fields of the body (max_tokens, temperature, stop, response_format) that a request may override."""

    def __post_init__(self) -> None:
        for index, (_, source) in enumerate(self.messages):
            try:
                sandbox.load(source, strict=True)
            except ConfigError as error:
                raise ConfigError(f"templates.{self.name}.messages.{index}: {error}") from error

    @property
    def variables(self) -> frozenset[str]:
        """All variables a request may set."""
        return self.required.union(self.defaults, *(sandbox.variables(source) for _, source in self.messages))

    def expand(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Fill in the variables; returns OpenAI messages. What they contain is data, whatever it looks like."""
        known = self.variables
        for name, value in given.items():
            where = f"edge.vars.{name}"
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                raise RequestRefused(f"{where}: template {self.name} has no such variable; it has {has}", param=where)
            if value is None or len(json.dumps(value, ensure_ascii=False)) > MAX_VARIABLE:
                raise RequestRefused(f"{where} must be a value of at most {MAX_VARIABLE} characters", param=where)
        values = {**self.defaults, **given}
        if missing := sorted(self.required - values.keys()):
            where = f"edge.vars.{missing[0]}"
            raise RequestRefused(f"{where} is missing: template {self.name} needs it", param=where)
        return [{"role": role, "content": self._fill(source, values)} for role, source in self.messages]

    def _fill(self, source: str, values: Mapping[str, Any]) -> str:
        return sandbox.render(sandbox.load(source, strict=True), values, today=None, param="edge.vars")


def build(name: str, value: Any) -> NamedTemplate:
    """Make a template of its configuration; raises `ConfigError` naming what is wrong in it."""
    try:
        given = _CONFIGURATION(value)
        parse({**given["options"], "messages": [{"role": "user", "content": "?"}]}, Edge())
    except vol.Invalid as error:
        where = ".".join(str(step) for step in ("templates", name, *error.path))
        raise ConfigError(f"{where}: {error.msg}") from error
    except WireError as error:
        raise ConfigError(f"templates.{name}.options: {error.message}") from error
    messages = [(each["role"], each["content"]) for each in given["messages"]]
    return NamedTemplate(name, messages, given["defaults"], frozenset(given["required"]), given["options"])


def apply(body: Mapping[str, Any], edge: Edge, templates: Mapping[str, NamedTemplate]) -> Mapping[str, Any]:
    """Put a named template's messages before the body's own, and its options under the body's fields."""
    if edge.template is None:
        return body
    template = templates.get(edge.template)
    if template is None:
        has = ", ".join(sorted(templates)) or "none"
        message = f"edge.template: no template is called {edge.template[:64]!r}; there are {has}"
        raise RequestRefused(message, param="edge.template")
    own = body.get("messages")
    if own is not None and not isinstance(own, list):
        raise RequestRefused("messages must be a list", param="messages")
    given = {name: value for name, value in body.items() if value is not None}
    return {**template.options, **given, "messages": [*template.expand(edge.vars), *(own or ())]}
