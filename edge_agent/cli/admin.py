"""`edge-agent admin`: an operator's order to a node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import typer
import yaml

from edge_agent.cli.caller import Caller
from edge_agent.cli.terminal import put
from edge_agent.wire import ADMIN_OPS


def order(caller: Caller, op: str, level: str | None) -> None:
    """Give the order and print the node's answer; raises `WireError` when it refuses."""
    if op not in ADMIN_OPS:
        raise typer.BadParameter(f"{op!r} is not one of {', '.join(ADMIN_OPS)}", param_hint="OP")
    if (op == "log-level") != (level is not None):
        raise typer.BadParameter("goes with log-level, and only with it", param_hint="LEVEL")
    body = asyncio.run(_order(caller, op, {} if level is None else {"level": level}))
    if "config" in body:
        put(yaml.safe_dump(body["config"], sort_keys=False, allow_unicode=True, width=120))
    else:
        put(f"{caller.node}: {op}: done\n")


async def _order(caller: Caller, op: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    async with caller.connect() as client:
        return await client.order(caller.node, op, **values)
