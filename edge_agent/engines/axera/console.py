"""The console program as a child process: lines in, events out, and its end in four steps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from edge_agent.engines.axera.stream import Event, Line, Stream

STOP_S: Final = ((signal.SIGINT, 10.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))
"""After `q`: what is sent next, and how long the step before it may take. Freeing the card takes seconds."""
KILLED_S: Final = 5.0
_TAIL: Final = 4
_STDOUT: Final = 1

_LAUNCH: Final = """
import os, signal, sys
parent, binary = int(sys.argv[1]), sys.argv[2]
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except (ImportError, MemoryError, OSError):
    pass  # A hardened service may forbid it, and then its control group ends what is left.
if os.getppid() != parent:
    sys.exit("the agent is gone")
try:
    os.execv(binary, sys.argv[2:])
except OSError as error:
    sys.exit(f"{binary} cannot be started: {error.strerror}")
"""
"""Becomes the program, having asked to be killed when the agent ends, however it ends.

Without that the program would go on by itself, spinning at the end of its input and holding the card.
"""

_log = logging.getLogger(__name__)


class Console(asyncio.SubprocessProtocol):
    """One life of the program, from `start` to `stop`.

    `hear` is called with every event; `ended` with the exit code and the last lines, once all output has been heard.
    """

    def __init__(self, hear: Callable[[Event], None], ended: Callable[[int, Sequence[str]], None]) -> None:
        self._hear = hear
        self._ended = ended
        self._streams = (Stream(), Stream())
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._gone = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def pid(self) -> int | None:
        """The program's process id; None before the start."""
        return self._transport.get_pid() if self._transport else None

    async def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start the program in this working folder, in a session of its own."""
        launcher = (sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command)
        self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: self, *launcher, cwd=folder, env=environment, start_new_session=True
        )

    def write(self, line: str) -> None:
        """Type a line."""
        pipe = self._transport and self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(f"{line}\n".encode())

    def send(self, number: signal.Signals) -> None:
        """Signal the program itself; one that is gone takes no notice."""
        if self._transport:
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(number)

    async def stop(self, more_s: float = 0.0) -> None:
        """End the program: `q`, then signals, each when the step before has taken too long; `more_s` for the first."""
        if self._transport is None:
            return
        self.write("q")
        for number, patience_s in STOP_S:
            if await self._ends(patience_s + more_s):
                break
            more_s = 0.0
            _log.warning("the console program does not end; sending %s", number.name)
            self.send(number)
        else:
            if not await self._ends(KILLED_S):
                _log.error("process %s cannot be killed: the card's driver holds it; reboot the host", self.pid)
        self._transport.close()

    async def _ends(self, patience_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._gone.wait()
        return self._gone.is_set()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Cut what was printed into events."""
        for event in self._streams[fd - _STDOUT].feed(data if isinstance(data, bytes) else data.encode()):
            if isinstance(event, Line):
                self._tail.append(event.text[-200:])
                _log.debug("%s", event.text)
            elif fd != _STDOUT:
                continue
            self._hear(event)

    def process_exited(self) -> None:
        """Note the end; `connection_lost` follows when all output has been read."""
        self._gone.set()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell how it ended, and with what words."""
        code = self._transport.get_returncode() if self._transport else None
        self._ended(code or 0, tuple(self._tail))
