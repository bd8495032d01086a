"""Agents as processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from edge_agent import config
from edge_agent.client import Client
from edge_agent.connection import connect
from home.process import Ended, Process, process


def configured(folder: Path, node: str, broker: Mapping[str, Any], **sections: Any) -> Path:
    """Write the configuration of a node: its broker and whatever else it says."""
    file = folder / f"{node}.yaml"
    settings = {"node": node, "broker": {**broker, "reconnect_max_s": 1}, **sections}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@asynccontextmanager
async def started(file: Path) -> AsyncIterator[Process]:
    """Run the node of a configuration; its log lies beside it."""
    command = (sys.executable, "-m", "edge_agent", "--config", file, "run")
    async with process(*command, log=file.with_suffix(".log")) as running:
        yield running


async def ready(client: Client, node: str, running: Process) -> str:
    """Wait until a node's presence says ready; returns the model it serves. Raises `Ended` when it fails instead."""
    waiting, ended = asyncio.ensure_future(_presence(client, node)), asyncio.ensure_future(running.ended())
    try:
        await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
        running.check()
        return await waiting
    finally:
        waiting.cancel()
        ended.cancel()


async def _presence(client: Client, node: str) -> str:
    async for nodes in client.changes():
        view = nodes.get(node)
        if view and view.state and view.state.phase == "failed":
            raise Ended(view.state.why)
        if view and view.ready and view.info:
            return view.info.model
    raise Ended("the connection ended")


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Process]:
    """Run the node of a configuration; yields once it is ready."""
    settings = config.load(file, os.environ)
    async with started(file) as running:
        async with connect(settings.broker, f"watch-{settings.node}") as client:
            await ready(client, settings.node, running)
        yield running
