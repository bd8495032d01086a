"""Home Assistant as a process: its folder, its start, its first user."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from edge_agent.mosquitto import free_port
from edge_agent.shipped import shipped
from home.frontend import Home, signed_in
from home.process import Process, process

ROOT: Final = Path(__file__).parents[2]
COMPONENTS: Final = ROOT / "custom_components"
PROGRAM: Final = ROOT / ".venv-home/bin/hass"
USER: Final = "demo"
PASSWORD: Final = "demo"  # noqa: S105 - printed for whoever looks at it, on loopback

_START_S: Final = 90.0
_LOOK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class HomeAssistant:
    """A running Home Assistant, and its user's connection to it."""

    process: Process
    home: Home
    folder: Path


@asynccontextmanager
async def home_assistant(folder: Path, port: int | None = None) -> AsyncIterator[HomeAssistant]:
    """Start the demonstration home in a folder that does not exist yet; yields when everything in it has started."""
    port = port or free_port()
    _prepare(folder, port)
    command = (PROGRAM, "--config", folder, "--log-no-color", "--skip-pip")
    log = folder.with_name(f"{folder.name}.log")
    url = f"http://127.0.0.1:{port}"
    async with process(*command, log=log) as running:
        await _until_served(url, running)
        async with signed_in(url, await _first_user(url)) as home:
            await _until_started(home)
            yield HomeAssistant(running, home, folder)


def _prepare(folder: Path, port: int) -> None:
    shutil.copytree(shipped("homeassistant/demo"), folder, dirs_exist_ok=True)
    (folder / "custom_components").symlink_to(COMPONENTS)
    blueprints = folder / "blueprints"
    blueprints.mkdir()
    for domain in ("automation", "script"):
        if (shown := ROOT / "blueprints" / domain).is_dir():
            shutil.copytree(shown, blueprints / domain)
    # All that is decided before its first start. The other steps of onboarding would look for devices and the weather.
    _store(folder, "http", 1, {"server_host": ["127.0.0.1"], "server_port": port})
    _store(folder, "onboarding", 4, {"done": ["core_config", "analytics", "integration"]})


def _store(folder: Path, key: str, version: int, data: Any) -> None:
    storage = folder / ".storage"
    storage.mkdir(exist_ok=True)
    stored = {"version": version, "minor_version": 1, "key": key, "data": data}
    (storage / key).write_text(json.dumps(stored), encoding="utf-8")


async def _until_served(url: str, running: Process) -> None:
    """Wait until the first page that a new user sees is there."""
    until = time.monotonic() + _START_S
    async with aiohttp.ClientSession() as session:
        while True:
            running.check()
            try:
                async with session.get(f"{url}/api/onboarding") as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > until:
                raise TimeoutError(f"Home Assistant does not answer:\n{running.tail()}")
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _first_user(url: str) -> str:
    """Do what the page for the first user does; returns an access token."""
    client = f"{url}/"
    user = {"name": "Demo", "username": USER, "password": PASSWORD, "client_id": client, "language": "en"}
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        async with session.post(f"{url}/api/onboarding/users", json=user) as answer:
            code = (await answer.json())["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        async with session.post(f"{url}/auth/token", data=form) as answer:
            token: str = (await answer.json())["access_token"]
            return token


async def _until_started(home: Home) -> None:
    async with home.subscription("subscribe_events", event_type="homeassistant_started") as events:
        if (await home.call("get_config"))["state"] != "RUNNING":
            async with asyncio.timeout(_START_S):
                await events.get()
