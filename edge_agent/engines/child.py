"""The process an engine lives in: `python -m edge_agent.engines.child FD`, started by `process.ProcessEngine` only.

It imports its engine and nothing else of the agent. It ends with its parent: by signal where the kernel offers that,
and in any case at the end of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any, Final

from edge_agent.engines import frames
from edge_agent.engines.base import Engine, Prompt
from edge_agent.engines.registry import load
from edge_agent.errors import OperatorError
from edge_agent.memory import resident_bytes
from edge_agent.wire import WireError

_PR_SET_PDEATHSIG: Final = 1
_log = logging.getLogger(__name__)


class Server:
    """Answers one parent with one engine. Every request is a task; cancelling it closes its generator."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engine: Engine) -> None:
        self._reader = reader
        self._writer = writer
        self._engine = engine
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._windows: dict[int, asyncio.Semaphore] = {}

    async def run(self) -> None:
        """Serve until the parent says stop or is gone."""
        try:
            while (request := await frames.read(self._reader)) is not None and request["op"] != "stop":
                self._take(request)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _take(self, request: dict[str, Any]) -> None:
        id_, op = request["id"], request["op"]
        if op == "more":
            if window := self._windows.get(id_):
                for _ in range(request["pieces"]):
                    window.release()
        elif op == "cancel":
            if task := self._tasks.get(id_):
                task.cancel()
        else:
            self._windows[id_] = asyncio.Semaphore(frames.WINDOW)
            self._tasks[id_] = task = asyncio.create_task(self._run(id_, op, request))
            task.add_done_callback(functools.partial(self._end, id_, op))

    def _end(self, id_: int, op: str, task: asyncio.Task[Any]) -> None:
        """Say how a request ended; a callback, because a task cancelled before its first step runs no code at all."""
        del self._tasks[id_], self._windows[id_]
        last: dict[str, Any] = {"id": id_, "end": True}
        if not task.cancelled():
            error = task.exception()
            if error is None:
                last["result"] = task.result()
            else:
                last["error"] = frames.error_out(error)
                if not isinstance(error, WireError | OperatorError):
                    _log.error("the engine failed in %s", op, exc_info=error)
        self._writer.write(frames.pack(last))

    async def _run(self, id_: int, op: str, request: dict[str, Any]) -> Any:
        if op == "health":
            health = await self._engine.health()
            return {**asdict(health), "memory": health.memory or resident_bytes()}
        prompt = frames.prompt_in(request["prompt"])
        if op == "generate":
            return await self._generate(id_, prompt, request["sampling"])
        if op == "prepare":
            usage = await self._engine.prepare(prompt)
            return [usage.prompt, usage.cached, usage.completion]
        if op == "score":
            return await self._engine.score(prompt, request["choices"])
        return await self._engine.count(prompt)

    async def _generate(self, id_: int, prompt: Prompt, sampling: dict[str, Any]) -> None:
        window = self._windows[id_]
        async with contextlib.aclosing(self._engine.generate(prompt, frames.sampling_in(sampling))) as pieces:
            async for piece in pieces:
                await window.acquire()
                self._writer.write(frames.pack({"id": id_, "piece": frames.piece_out(piece)}))
                await self._writer.drain()


async def serve(fd: int) -> None:
    """Load the engine that the first frame names, say so, and serve it until the parent has enough."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    try:
        if (start := await frames.read(reader)) is not None:
            async with load(start["engine"])(start["options"]) as engine:
                writer.write(frames.pack({"ready": frames.ready_out(engine.capabilities, engine.dialect)}))
                await Server(reader, writer, engine).run()
    except (WireError, OperatorError) as error:
        writer.write(frames.pack({"failed": frames.error_out(error)}))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # The parent is gone: nobody is left to tell.
            await writer.wait_closed()


def main() -> None:
    """Tie this process to its parent, then serve."""
    os.dup2(2, 1)  # What native code prints belongs in the log.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
