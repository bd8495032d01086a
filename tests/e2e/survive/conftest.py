"""Agents in processes of their own, and a line to the broker that can be delayed, stalled and cut."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

import psutil
import pytest
import yaml

HERE = Path(__file__).parent
WORDS = " ".join(f"w{number}" for number in range(100))
ASKED = {"messages": [{"role": "user", "content": WORDS}], "stream": True}


class Agent:
    """A process that runs one agent."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def memory(self) -> int:
        return psutil.Process(self.pid).memory_info().rss

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            return await self._process.wait()


@pytest.fixture
async def process(broker, tmp_path):
    """Start agents: `await process("node", engine={…}, limits={…})`; as for `configured`."""
    started: list[asyncio.subprocess.Process] = []

    async def start(node: str = "kitchen", *, engine: dict | None = None, **sections) -> Agent:
        name = f"{node}{len(started)}"
        where = {"host": "127.0.0.1", "port": broker.port, "reconnect_max_s": 1, "timeout_s": 3}
        sections["broker"] = where | sections.get("broker", {})
        sections["engine"] = {"name": "echo", "options": engine or {}}
        conf = tmp_path / f"{name}.yaml"
        conf.write_text(yaml.safe_dump({"node": node, "data_dir": str(tmp_path), **sections}))
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edge_agent", "run", "--config", conf),
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])},
            )
        started.append(process)
        return Agent(process, tmp_path / f"{name}.log")

    yield start
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            each.kill()
        await each.wait()


class Proxy:
    """A line to the broker on a port of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task] = set()
        self.delay_s = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def stall(self) -> None:
        """Keep every connection and move nothing."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection, in mid-packet if need be."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward[1]}
        for source, sink in ((reader, onward[1]), (onward[0], writer)):
            task = asyncio.create_task(self._move(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _move(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 14):
                await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@pytest.fixture
async def proxy(broker):
    async with Proxy(broker.port) as made:
        yield made


class Asking:
    """A request through the client library, and what has come of it."""

    def __init__(self, client, body=ASKED, **how) -> None:
        self.replies = []
        self.wrote = asyncio.Event()
        self.task = asyncio.create_task(self._run(client, body, how))

    async def _run(self, client, body, how) -> None:
        async for reply in client.ask(body, **how):
            self.replies.append(reply)
            if reply.kind == "chunk":
                self.wrote.set()

    async def whole(self, text: str = WORDS) -> None:
        async with asyncio.timeout(40):
            await self.task
        assert [reply.final for reply in self.replies] == [False] * (len(self.replies) - 1) + [True]
        numbers = [reply.seq for reply in self.replies if reply.boot == self.replies[-1].boot]
        assert numbers == sorted(set(numbers))
        assert self.replies[-1].body["choices"][0]["message"]["content"] == text


@pytest.fixture
def asking():
    """Ask through the client library: `asking(client)`."""
    return Asking
