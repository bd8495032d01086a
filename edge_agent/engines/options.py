"""The options of an engine, checked by the engine itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import voluptuous as vol

from edge_agent.errors import ConfigError


def checked(schema: vol.Schema, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options with the schema's defaults; raises `ConfigError` with every problem on a line of its own."""
    try:
        values: dict[str, Any] = schema(dict(options))
    except vol.MultipleInvalid as invalid:
        raise ConfigError("\n".join(map(_sentence, invalid.errors))) from invalid
    return values


def _sentence(error: vol.Invalid) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.path)
    return f"engine.options{path}: {error.msg}"
