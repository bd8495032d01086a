"""The command line as people have it: a process, against a real broker and a real agent with the scripted engine."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import yaml

from edge_agent.config import Broker
from edge_agent.connection import connect
from edge_agent.mosquitto import private_broker

PATIENCE_S = 30
NODE = {
    "node": "kitchen",
    "engine": {
        "name": "echo",
        "options": {
            "rules": [
                {"match": "^hang$", "text": "it begins and never ends", "hang_after": 2},
                {"match": "^bell$", "text": "a\x1b]0;title\x07b\x9b2Jc\rd\te\n"},
                {"match": "^long$", "text": "word " * 3000},
            ],
            "context": 8192,
            "write_tps": 100,
        },
    },
    "limits": {"max_tokens": 4000},
    "admin": {"clients": ["operator"]},
    "templates": {"shorten": {"messages": [{"role": "user", "content": "Shorten: {{ text }}"}]}},
}


@pytest.fixture(scope="session")
def port(tmp_path_factory) -> Iterator[int]:
    with private_broker(tmp_path_factory.mktemp("broker")) as port:
        yield port


@pytest.fixture(scope="session")
def config(tmp_path_factory, port) -> Path:
    """The configuration of the agent, which the commands share with it."""
    file = tmp_path_factory.mktemp("config") / "agent.yaml"
    file.write_text(yaml.safe_dump({**NODE, "broker": {"port": port}}))
    return file


@pytest.fixture(scope="session")
def environ(tmp_path_factory, config) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_AGENT_", "XDG_"))}
    return {**kept, "HOME": str(home), "EDGE_AGENT_CONFIG": str(config), "COLUMNS": "100"}


Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="session")
def edge_agent(environ) -> Command:
    """Run a command to its end."""

    def run(*arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "edge_agent", *arguments]
        return subprocess.run(
            command, input=stdin, env={**environ, **more}, capture_output=True, timeout=PATIENCE_S, check=False
        )

    return run


@pytest.fixture(scope="session")
def reached(port) -> Callable[[str, str], None]:
    """Wait until a node's presence says this phase, or `offline`."""

    async def wait(node: str, phase: str) -> None:
        async with asyncio.timeout(PATIENCE_S), connect(Broker(port=port), "watcher") as client:
            async for nodes in client.changes():
                view = nodes.get(node)
                if view and (view.state.phase if view.online and view.state else "offline") == phase:
                    return

    return lambda node, phase: asyncio.run(wait(node, phase))


@pytest.fixture
def busy(port) -> Callable[[int], None]:
    """Wait until so many answers are being written; presence lags, so see the one before the other."""

    async def wait(count: int) -> None:
        async with asyncio.timeout(10), connect(Broker(port=port), "watcher") as client:
            async for nodes in client.changes():
                view = nodes.get("kitchen")
                if view and view.state and view.state.running == count:
                    return

    return lambda count: asyncio.run(wait(count))


@contextmanager
def process(*arguments: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs beside the test; gone when the block ends."""
    command = [sys.executable, "-m", "edge_agent", *arguments]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture(scope="session")
def started(environ) -> Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]:
    return lambda *arguments, **more: process(*arguments, environ={**environ, **more})


@pytest.fixture(scope="session")
def agent(started, reached) -> Iterator[subprocess.Popen[bytes]]:
    """A node that answers."""
    with started("run") as running:
        reached("kitchen", "ready")
        yield running


@pytest.fixture(scope="session")
def answered(edge_agent, agent) -> Command:
    """Run a command to its end while a node answers."""
    assert agent.poll() is None
    return edge_agent


class Typing:
    """A command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.seen = b""

    def type(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\n")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def interrupt_until(self, text: bytes) -> None:
        """Press Ctrl-C until it shows: readline misses one that comes between its prompt and its first look."""
        for _ in range(20):
            self.interrupt()
            while text not in self.seen and select.select([self._terminal], [], [], 0.5)[0]:
                self.seen += self._more()
            if text in self.seen:
                break
        self.until(text)

    def until(self, text: bytes) -> bytes:
        """Everything up to `text`, and nothing of it will be seen again."""
        while text not in self.seen:
            more = self._more()
            assert more, f"{self.seen!r} without {text!r}"
            self.seen += more
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self) -> tuple[int, bytes]:
        """The exit code, and what was left to see."""
        while more := self._more():
            self.seen += more
        return self.process.wait(PATIENCE_S), self.seen

    def _more(self) -> bytes:
        assert select.select([self._terminal], [], [], PATIENCE_S)[0], self.seen
        try:
            return os.read(self._terminal, 65536)
        except OSError:  # How Linux says that the other end is closed.
            return b""


@pytest.fixture
def typing(environ) -> Callable[..., AbstractContextManager[Typing]]:
    @contextmanager
    def start(*arguments: str) -> Iterator[Typing]:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "edge_agent", *arguments]
        with subprocess.Popen(
            command,
            env={**environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                yield Typing(process, ours)
            finally:
                process.kill()
                os.close(ours)

    return start
