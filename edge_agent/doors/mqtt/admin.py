"""The orders of an operator. Nobody may give one until `admin.clients` says who."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.wire import ADMIN_OPS, WireError, loads

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Operations:
    """What an operator can do to this node."""

    reload: Callable[[], None]
    drain: Callable[[], None]
    shutdown: Callable[[], None]
    config: Callable[[], Mapping[str, Any]]
    """The configuration without its secrets."""


def perform(payload: bytes, boot: str, operations: Operations) -> dict[str, Any]:
    """Carry out `{"op": …, "boot": …}` and return what to answer; raises `WireError` for anything else."""
    order = loads(payload)
    if order.get("boot") != boot:
        raise WireError(
            "expired", "the node has another boot: read its state and decide again", param="boot", boot=boot
        )
    match order.get("op"):
        case "reload":
            operations.reload()
        case "drain":
            operations.drain()
        case "shutdown":
            operations.shutdown()
        case "config":
            return {"object": "edge.admin", "op": "config", "config": dict(operations.config())}
        case "log-level":
            level = order.get("level")
            if level not in _LEVELS:
                raise WireError("invalid_request", f"must be one of {', '.join(_LEVELS)}", param="level")
            logging.getLogger().setLevel(level.upper())
        case _:
            raise WireError("unsupported", "unknown op", param="op", supported=list(ADMIN_OPS))
    return {"object": "edge.admin", "op": order["op"], "done": True}
