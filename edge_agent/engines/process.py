"""Any engine in a child process: a crash or a hang of native code becomes `EngineFailed`, and the agent lives on."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Self

from edge_agent.engines import frames
from edge_agent.engines.base import Capabilities, Dialect, Health, Piece, Prompt, Sampling, Usage
from edge_agent.errors import EngineFailed

CANCEL_S: Final = 10.0
"""How long a cancelled turn may take to let go of the device before the whole process counts as failed."""
HEALTH_S: Final = 5.0
STOP_S: Final = 5.0
_TAIL: Final = 8
_LINE: Final = 500
_LINES_PER_S: Final = 50

_log = logging.getLogger(__name__)


class _Call:
    """One request to the child and what has come back for it, bounded by `frames.WINDOW`."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Piece | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def piece(self, piece: Piece) -> None:
        self._arrived.put_nowait(piece)

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        self.result, self.error = result, error
        self.ended.set()
        self._arrived.put_nowait(None)

    async def next(self) -> Piece | None:
        """The next piece, None after the last one; raises what the child raised."""
        piece = await self._arrived.get()
        if piece is None and self.error:
            raise self.error
        return piece


class ProcessEngine:
    """The engine called `name`, run by `child.py` at the other end of a socket pair that leaves no file behind."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = dict(options)
        self._calls: dict[int, _Call] = {}
        self._count = 0
        self._ready: tuple[Capabilities, Dialect] | None = None
        self._failure: EngineFailed | None = EngineFailed("the engine is not started", code="unavailable")
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL)

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's too."""
        return self._process.pid

    @property
    def capabilities(self) -> Capabilities:
        return self._facts()[0]

    @property
    def dialect(self) -> Dialect:
        return self._facts()[1]

    def _facts(self) -> tuple[Capabilities, Dialect]:
        if self._ready is None:
            raise EngineFailed("the engine is not loaded yet", code="unavailable")
        return self._ready

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edge_agent.engines.child", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={
                    **os.environ,
                    "EDGE_AGENT_ENGINE_CHILD": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._stderr = asyncio.create_task(self._log_stderr())
        try:
            self._writer.write(frames.pack({"engine": self._name, "options": self._options}))
            await self._await_ready(reader)
        except BaseException:
            await self._end()
            raise
        self._failure = None
        self._reading = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._fail(EngineFailed("the engine was stopped"))
        with contextlib.suppress(ConnectionError):  # It may be dead already, which is what is wanted.
            self._writer.write(frames.pack({"op": "stop"}))
        await self._end(grace=STOP_S)
        await self._reading

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        fields = {"prompt": frames.prompt_out(prompt), "sampling": asdict(sampling)}
        async with self._request("generate", **fields) as (id_, call):
            taken = 0
            while (piece := await call.next()) is not None:
                yield piece
                taken += 1
                if taken == frames.WINDOW // 2 and not self._failure:
                    self._send({"id": id_, "op": "more", "pieces": taken})
                    taken = 0

    async def prepare(self, prompt: Prompt) -> Usage:
        return Usage(*await self._ask("prepare", prompt=frames.prompt_out(prompt)))

    async def score(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        scores: list[float] = await self._ask("score", prompt=frames.prompt_out(prompt), choices=list(choices))
        return scores

    async def count(self, prompt: Prompt) -> int:
        count: int = await self._ask("count", prompt=frames.prompt_out(prompt))
        return count

    async def health(self) -> Health:
        """Ask the child; a child that does not answer within `HEALTH_S` is not well."""
        if self._failure:
            return Health(ok=False, detail=self._failure.message)
        try:
            async with asyncio.timeout(HEALTH_S):
                return Health(**await self._ask("health"))
        except TimeoutError:
            return Health(ok=False, detail=f"process {self.pid} has not answered for {HEALTH_S:g} s")
        except EngineFailed as error:
            return Health(ok=False, detail=error.message)

    async def _ask(self, op: str, **fields: Any) -> Any:
        async with self._request(op, **fields) as (_, call):
            await call.next()
            return call.result

    @contextlib.asynccontextmanager
    async def _request(self, op: str, **fields: Any) -> AsyncIterator[tuple[int, _Call]]:
        """A request under way. Left before its end it is cancelled, and the device free when this returns."""
        self._count += 1
        id_, call = self._count, _Call()
        self._send({"id": id_, "op": op, **fields})
        self._calls[id_] = call
        try:
            yield id_, call
        finally:
            if not call.ended.is_set():
                self._send({"id": id_, "op": "cancel"})
                if op != "health":
                    await self._until_idle(call)
            self._calls.pop(id_, None)

    async def _until_idle(self, call: _Call) -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await call.ended.wait()
        except TimeoutError:
            self._kill(f"the engine did not stop a turn within {CANCEL_S:g} s")

    def _send(self, request: dict[str, Any]) -> None:
        if self._failure:
            raise EngineFailed(self._failure.message, code=self._failure.code.name)
        self._writer.write(frames.pack(request))

    async def _await_ready(self, reader: asyncio.StreamReader) -> None:
        first = await frames.read(reader)
        if first is None:
            raise EngineFailed(await self._obituary())
        if "failed" in first:
            raise frames.error_in(first["failed"])
        self._ready = frames.ready_in(first["ready"])

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Give every frame to its call; at the end of the child fail what is still running."""
        try:
            while (frame := await frames.read(reader)) is not None:
                if (call := self._calls.get(frame["id"])) is None:
                    continue  # The answer to a health question nobody waits for any more.
                if "piece" in frame:
                    call.piece(frames.piece_in(frame["piece"]))
                else:
                    error = frame.get("error")
                    call.end(frame.get("result"), frames.error_in(error) if error else None)
        except (frames.FrameError, LookupError, TypeError, ValueError) as error:
            self._kill(f"the engine process broke the protocol: {error!r}")
        else:
            self._fail(EngineFailed(await self._obituary()))

    async def _obituary(self) -> str:
        """How the child ended and its last words. A child that only closed its socket is ended here."""
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._process.wait()
                await asyncio.shield(self._stderr)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            code = await self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ": ".join([f"the engine process {how}", *filter(None, [" | ".join(self._tail)])])

    def _kill(self, why: str) -> None:
        self._fail(EngineFailed(why))
        self._signal(signal.SIGKILL)

    def _fail(self, failure: EngineFailed) -> None:
        """End every running call; the first reason stays."""
        self._failure = self._failure or failure
        for call in self._calls.values():
            if not call.ended.is_set():
                call.end(error=EngineFailed(self._failure.message))

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # Gone already.
            os.killpg(self._process.pid, number)

    async def _end(self, grace: float = 0.0) -> None:
        """Wait `grace` seconds, ask with SIGTERM, then insist; afterwards no process and no descriptor is left."""
        waits = ((grace, signal.SIGTERM), (STOP_S, signal.SIGKILL)) if grace else ((0.0, signal.SIGKILL),)
        for seconds, number in waits:
            try:
                async with asyncio.timeout(seconds):
                    await self._process.wait()
                    break
            except TimeoutError:
                self._signal(number)
        await self._process.wait()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._stderr

    async def _log_stderr(self) -> None:
        """Log what the child says, cut and counted: a runtime in trouble can write without end."""
        stream = self._process.stderr
        if stream is None:
            return
        rest, second, said = "", 0, 0
        clock = asyncio.get_running_loop().time
        while data := await stream.read(1 << 14):
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            rest = rest[-_LINE:]
            second, said = (second, said) if int(clock()) == second else (int(clock()), 0)
            for line in filter(None, map(str.strip, lines)):
                self._tail.append(line[:_LINE])
                said += 1
                if said <= _LINES_PER_S:
                    _log.info("%s", line[:_LINE])
        if rest.strip():
            self._tail.append(rest.strip())
