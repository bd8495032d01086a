"""A private mosquitto with the shipped configuration: users, passwords and its access list."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.mosquitto import find, free_port
from edge_agent.shipped import shipped
from home.process import Process, process

AGENT: Final = "edge-agent"
HOME: Final = "homeassistant"
PERSON: Final = "anna"

_START_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is. Every user's password is the user's name."""

    port: int
    process: Process

    def login(self, user: str = AGENT) -> dict[str, Any]:
        """The `broker` section of a configuration for this user."""
        return {"host": "127.0.0.1", "port": self.port, "username": user, "password": user}


@asynccontextmanager
async def broker(folder: Path, port: int | None = None) -> AsyncIterator[Broker]:
    """Run one for the length of a block; started again at the same port, it has forgotten what it kept."""
    port = port or free_port()
    file = await _configured(folder, port)
    async with process(find(), "-c", file, log=folder / "mosquitto.log") as running:
        async with asyncio.timeout(_START_S):
            while not await _listens(port):  # It says so only in its log.
                running.check()
                await asyncio.sleep(_LOOK_AGAIN_S)
        yield Broker(port, running)


async def _configured(folder: Path, port: int) -> Path:
    """Do what its README tells an operator to do."""
    passwords, access, file = (folder / f"mosquitto.{kind}" for kind in ("passwords", "acl", "conf"))
    passwords.unlink(missing_ok=True)
    passwords.touch(mode=0o600)
    for user in (AGENT, HOME, PERSON):
        made = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", passwords, user, user)
        if await made.wait():
            raise OSError("mosquitto_passwd failed")
    listed = shipped("mosquitto/edge-agent.acl").read_text(encoding="utf-8")
    for line in ("user homeassistant", "topic readwrite #"):
        listed = listed.replace(f"# {line}\n", f"{line}\n")
    access.write_text(listed, encoding="utf-8")
    settings = shipped("mosquitto/edge-agent.conf").read_text(encoding="utf-8")
    places = {"listener 1883": f"listener {port}", "/etc/mosquitto/edge-agent.passwd": passwords}
    for place, here in {**places, "/etc/mosquitto/edge-agent.acl": access}.items():
        settings = settings.replace(place, str(here))
    file.write_text(f"{settings}\nuser {getpass.getuser()}\n", encoding="utf-8")
    return file


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False
