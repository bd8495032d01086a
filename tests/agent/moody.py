"""The scripted engine with a mood: it loads when told to, and its health is what a file says."""

import asyncio
from pathlib import Path

from edge_agent.engines.base import Health
from edge_agent.engines.echo import EchoEngine


class Moody(EchoEngine):
    """Option `folder`: loaded once `loaded` is there; `mood` says well, ill, lost or silent, `looks` what was told."""

    def __init__(self, options):
        self._folder = Path(options["folder"])
        super().__init__({name: value for name, value in options.items() if name != "folder"})

    async def __aenter__(self):
        while not (self._folder / "loaded").exists():  # noqa: ASYNC110 - the test is another process
            await asyncio.sleep(0.01)
        return self

    async def health(self):
        mood = (self._folder / "mood").read_text()
        with (self._folder / "looks").open("a") as looks:
            looks.write(f"{mood}\n")
        if mood == "silent":
            await asyncio.get_running_loop().create_future()
        return Health(ok=mood == "well", detail=f"it is {mood}", lost=mood == "lost")
