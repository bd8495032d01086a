"""A process that lives as long as its block, and whose log is kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_GOODBYE_S: Final = 20.0
_TAIL: Final = 6000


class Ended(Exception):
    """A process ended before it was asked to."""


class Process:
    """One process in a session of its own."""

    def __init__(self, name: str, running: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._running = running

    @property
    def pid(self) -> int:
        return self._running.pid

    def tail(self) -> str:
        """The end of what it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()

    def check(self) -> None:
        """Raise `Ended` if it is gone."""
        if self._running.returncode is not None:
            raise Ended(f"{self.name} ended with exit code {self._running.returncode}")

    async def ended(self) -> None:
        """Wait until it is gone."""
        await self._running.wait()

    async def kill(self) -> None:
        """End it at once, as a crash or a power cut would."""
        self._signal(signal.SIGKILL)
        await self._running.wait()

    async def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        if self._running.returncode is None:
            self._running.terminate()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._running.wait()
        except TimeoutError:
            await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._running.pid, number)


@asynccontextmanager
async def process(*command: str | Path, log: Path) -> AsyncIterator[Process]:
    """Start a program, its output going to `log`; it is gone when the block ends, whatever happens."""
    with log.open("ab") as output:
        running = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Process(log.stem, running, log)
    try:
        yield started
    finally:
        await started.stop()
