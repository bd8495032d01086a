"""Which engines there are, by name. They are loaded when chosen: importing this module loads none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from edge_agent.engines.base import Engine
from edge_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where an engine's class is, as `package.module:Class`, whether it is native code and whether it loads a model.

    Native code crashes and hangs in ways no exception reports, so it lives in a child process.
    """

    target: str
    native: bool
    model: bool


ENGINES: Final[Mapping[str, Runtime]] = MappingProxyType(
    {
        "echo": Runtime("edge_agent.engines.echo:EchoEngine", native=False, model=False),
        "openvino": Runtime("edge_agent.engines.openvino:OpenVinoEngine", native=True, model=True),
        "axera": Runtime("edge_agent.engines.axera:AxeraEngine", native=False, model=True),  # Decision 10 says why.
    }
)


def load(name: str) -> type[Engine]:
    """Import the engine class called `name`, or the one at `package.module:Class`; raises `ConfigError`."""
    runtime = ENGINES.get(name)
    module, colon, attribute = (runtime.target if runtime else name).partition(":")
    if not colon:
        known = ", ".join(ENGINES)
        raise ConfigError(f"there is no engine {name!r}; there are {known}, or name one as package.module:Class")
    try:
        engine: type[Engine] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the engine {name!r} cannot be loaded: {error}") from error
    return engine


def needs_model(name: str) -> bool:
    """Whether this engine loads a model from files; it is then told where as the option `model`."""
    return name in ENGINES and ENGINES[name].model


def create(name: str, options: Mapping[str, Any]) -> Engine:
    """Build the engine called `name`, in a child process where it is native; raises `ConfigError`."""
    runtime = ENGINES.get(name)
    if runtime is None or not runtime.native:
        return load(name)(options)
    process = importlib.import_module("edge_agent.engines.process")
    engine: Engine = process.ProcessEngine(name, options)
    return engine
