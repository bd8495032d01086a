"""`edge-agent top`: the nodes of a broker, as their presence tells."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from edge_agent.cli.caller import Caller
from edge_agent.cli.terminal import printable
from edge_agent.client import NodeView
from edge_agent.wire import State

_GATHER_S: Final = 1.0
"""How long one picture waits for the retained messages."""
_REFRESH_S: Final = 0.5
_WIDE: Final = 200
"""Columns of a picture that goes to a file or a pipe."""
_COLUMNS: Final = ("node", "phase", "run", "wait", "room", "tok/s", "first", "cached", "memory", "pool", "model", "why")
_STYLES: Final = {"ready": "green", "loading": "yellow", "draining": "yellow", "failed": "red", "offline": "dim"}


def top(caller: Caller, *, once: bool) -> None:
    """Show the nodes until Ctrl-C, or once; raises `BrokerError`."""
    with suppress(KeyboardInterrupt):  # The way out of it.
        asyncio.run(_once(caller) if once or not sys.stdout.isatty() else _live(caller))


async def _once(caller: Caller) -> None:
    async with caller.connect() as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_S):
                async for _ in client.changes():
                    continue
        Console(width=None if sys.stdout.isatty() else _WIDE).print(table(client.nodes))


async def _live(caller: Caller) -> None:
    async with caller.connect() as client:
        with Live(auto_refresh=False) as live:
            while True:  # The loss of the broker changes no presence: look, do not wait.
                live.update(table(client.nodes, lost=not client.connected), refresh=True)
                await asyncio.sleep(_REFRESH_S)


def table(nodes: Mapping[str, NodeView], *, lost: bool = False) -> Table:
    """One row for each node, by name."""
    caption = "the broker is lost; trying to reach it again" if lost else None
    columns = (Column(name, no_wrap=True) for name in _COLUMNS)
    picture = Table(*columns, box=None, pad_edge=False, caption=caption, caption_style="red")
    for _, view in sorted(nodes.items()):
        picture.add_row(*(Text(printable(cell), style=style) for cell, style in row(view)))
    if not nodes:
        picture.add_row(Text("no node has been on this broker"))
    return picture


def row(view: NodeView) -> list[tuple[str, str]]:
    """The cells of a node with their styles."""
    phase = view.state.phase if view.online and view.state else "loading" if view.online else "offline"
    model = view.info.model if view.info else ""
    style = _STYLES.get(phase, "")
    measured = _measured(view.state) if view.online and view.state else [""] * 8
    why = view.state.why if view.online and view.state else ""
    return [(view.name, ""), (phase, style), *((cell, "") for cell in measured), (model, ""), (why, "dim")]


def _measured(state: State) -> list[str]:
    return [
        str(state.running),
        str(state.queued),
        str(state.room),
        f"{state.write_tps:g}",
        f"{state.first_token_s:.2f} s",
        f"{state.cache_hits:.0%}",
        f"{state.memory / 1e6:,.0f} MB",
        state.pool,
    ]
