"""The configuration of an agent: frozen dataclasses hold defaults and bounds, `load` reads file and environment."""

from edge_agent.config.load import load
from edge_agent.config.settings import (
    Admin,
    Backlog,
    Broker,
    Config,
    Engine,
    Limits,
    Log,
    Option,
    Pool,
    Tls,
    default_node,
    options,
)

__all__ = [
    "Admin",
    "Backlog",
    "Broker",
    "Config",
    "Engine",
    "Limits",
    "Log",
    "Option",
    "Pool",
    "Tls",
    "default_node",
    "load",
    "options",
]
