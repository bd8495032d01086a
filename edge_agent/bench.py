"""What the agent adds to its engine, measured on this machine in one run: every target is a ratio or a small time.

Timings are compared, never asserted, in a test: machines differ, and so do their neighbours. `BENCHES` is the list.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from edge_agent.client import Client
from edge_agent.config import Broker
from edge_agent.connection import connect
from edge_agent.engines import base, registry
from edge_agent.engines.echo import EchoEngine
from edge_agent.errors import ModelError
from edge_agent.memory import resident_bytes
from edge_agent.mosquitto import private_broker
from edge_agent.wire import WireError

QUESTION: Final = "Why is the sky blue? Answer in three sentences."
_ROUNDS: Final = 7


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, beside what it must be."""

    what: str
    value: float
    target: float
    unit: str = ""
    at_least: bool = False
    note: str = ""

    @property
    def kept(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def row(self) -> tuple[str, str, str, str]:
        sign = "≥" if self.at_least else "≤"
        measured = f"{_short(self.value)} {self.unit}".strip()
        return self.what, measured, f"{sign} {_short(self.target)} {self.unit}".strip(), self.note


class StampEngine(EchoEngine):
    """Writes the time at which each token left it, in ns of the monotonic clock that all processes share."""

    async def generate(self, prompt: base.Prompt, sampling: base.Sampling) -> AsyncGenerator[base.Piece, None]:
        """Write a stamp for every token of the echo."""
        async with aclosing(super().generate(prompt, sampling)) as pieces:
            async for piece in pieces:
                stamped = base.Piece(f"{time.monotonic_ns()} ", tokens=1) if piece.text else piece
                yield stamped


async def first_token_and_speed(model: Path, cache: Path) -> AsyncIterator[Figure]:
    """Compare an answer over MQTT with the same engine called directly in one process, in turns."""
    options = {"model": str(model), "cache_dir": str(cache)}
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True, "temperature": 0, "max_tokens": 96}
    added, ratios = [], []
    async with agents({"model": str(model)}) as stand, registry.load("openvino")(options) as engine:
        prompt = base.Prompt(
            (
                base.Segment("<|im_start|>user\n", control=True),
                base.Segment(QUESTION),
                base.Segment("<|im_end|>\n<|im_start|>assistant\n", control=True),
            )
        )
        for turn in range(2 * _ROUNDS + 1):
            ours = await _timed_answer(stand.client, body)
            direct = await _timed_run(engine, prompt)
            if turn:  # The first round warms both.
                added.append((ours[0] - direct[0]) * 1000)
                ratios.append(ours[1] / direct[1])
    yield Figure("first token over MQTT, added to the engine's own", statistics.median(added), 10, "ms")
    yield Figure("tokens/s over MQTT, share of the engine's own", statistics.median(ratios), 0.97, at_least=True)


async def chunks() -> AsyncIterator[Figure]:
    """Time single chunks from the engine to the client, then count as many as will go through."""
    stamp = {"name": f"{__name__}:StampEngine"}
    words = "word " * 400
    ask = {"messages": [{"role": "user", "content": words}], "stream": True, "max_tokens": 2000}
    async with agents({"engine": {**stamp, "options": {"write_tps": 100, "context": 8192}}}) as stand:
        texts = _texts(stand.client, {**ask, "edge": {"flush_ms": 0}})
        late = [(time.monotonic_ns() - int(text)) / 1e6 async for text in texts]
    steps = statistics.quantiles(late, n=100)
    yield Figure("latency added to a chunk, p50", steps[49], 2, "ms")
    yield Figure("latency added to a chunk, p99", steps[98], 10, "ms")
    async with agents({"engine": {"name": "echo", "options": {"context": 8192}}}) as stand:
        began, count = time.monotonic(), 0
        for _ in range(5):
            async for _text in _texts(stand.client, {**ask, "edge": {"flush_ms": 0}}):
                count += 1
        yield Figure("chunks per second, one client", count / (time.monotonic() - began), 1500, "/s", at_least=True)


async def crowd() -> AsyncIterator[Figure]:
    """Let 200 clients ask at once; every answer must be whole and in order."""
    config = {"engine": {"name": "echo", "options": {"parallel": 8}}, "backlog": {"size": 256}}
    text = "every word of this answer comes back in the order in which it was sent"
    body = {"messages": [{"role": "user", "content": text}], "stream": True, "edge": {"flush_ms": 0}}
    whole = 0
    async with agents(config) as stand:

        async def one(number: int) -> bool:
            async with connect(stand.broker, f"crowd{number}") as mine:
                return "".join([text async for text in _texts(mine, body)]) == text

        began = time.monotonic()
        whole = sum(await asyncio.gather(*(one(number) for number in range(200))))
        note = f"in {time.monotonic() - began:.1f} s"
    yield Figure("200 clients at once: whole, ordered answers", whole, 200, at_least=True, note=note)


async def resident_prefix(model: Path) -> AsyncIterator[Figure]:
    """Ask twice about the same 1,500 tokens; the second time they are resident."""
    house = " ".join(f"The lamp number {number} in room {number % 7} is off." for number in range(115))
    times = []
    async with agents({"model": str(model)}) as stand:
        await stand.client.complete({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
        for question in ("How many lamps are there?", "Which room has lamp 3?", "Is lamp 5 off?"):
            messages = [{"role": "system", "content": house}, {"role": "user", "content": question}]
            reply = await stand.client.complete({"messages": messages, "max_tokens": 4, "temperature": 0})
            times.append(reply.extra["timings"]["first_token_s"])
            tokens = reply.body["usage"]["prompt_tokens"]
    note = f"{tokens} tokens: {times[0]:.2f} s, then {min(times[1:]):.3f} s"
    yield Figure("first token with a resident prefix, share of cold", min(times[1:]) / times[0], 0.1, note=note)


async def cancelling(model: Path) -> AsyncIterator[Figure]:
    """Cancel answers in mid-sentence; their final says that the engine has stopped."""
    task = "Count from one to a hundred in words."
    body = {"messages": [{"role": "user", "content": task}], "stream": True, "max_tokens": 400}
    took, gaps = [], []
    async with agents({"model": str(model)}) as stand:
        for _ in range(_ROUNDS):
            stopped, gap = await _cancelled_after(stand.client, {**body, "edge": {"flush_ms": 0}}, 8)
            took.append(stopped)
            gaps.append(gap)
    note = f"{statistics.median(took) * 1000:.1f} ms at {1 / statistics.median(gaps):.0f} tokens/s"
    ratio = statistics.median(took) / statistics.median(gaps)
    yield Figure("from cancel to an idle engine, in token times", ratio, 2, note=note)


async def footprint(model: Path) -> AsyncIterator[Figure]:
    """Weigh an idle agent, without the child that holds the engine, and time the import of its command line."""
    async with agents({"model": str(model)}) as stand:
        yield Figure("memory of the idle agent without its engine", resident_bytes(stand.pids[0]) / 1e6, 80, "MB")
    took = _import_s("edge_agent.cli") - _import_s("sys")
    yield Figure("import of the command line", took, 0.3, "s")


async def pool() -> AsyncIterator[Figure]:
    """Let one node, then two in one pool, answer 20 equal requests."""
    engine = {"name": "echo", "options": {"write_tps": 50, "parallel": 1}}
    config = {"engine": engine, "backlog": {"per_client": 32}}
    body = {"messages": [{"role": "user", "content": "ten words that take a fifth of a second each"}]}
    times = []
    for nodes in (1, 2):
        async with agents(config, nodes) as stand:
            began = time.monotonic()
            await asyncio.gather(*(stand.client.complete(body) for _ in range(20)))
            times.append(time.monotonic() - began)
    yield Figure("20 requests on two nodes, share of one node's time", times[1] / times[0], 0.6)


BENCHES: Final[Mapping[str, Callable[..., AsyncIterator[Figure]]]] = {
    "direct": first_token_and_speed,
    "chunks": chunks,
    "crowd": crowd,
    "prefix": resident_prefix,
    "cancel": cancelling,
    "footprint": footprint,
    "pool": pool,
}


@dataclass(frozen=True, slots=True)
class Stand:
    """A private broker with ready agents on it, and a client of theirs."""

    client: Client
    broker: Broker
    pids: tuple[int, ...]


@asynccontextmanager
async def agents(config: Mapping[str, Any], nodes: int = 1) -> AsyncIterator[Stand]:
    """Run agents on a private broker for the length of a block, which begins when all of them are ready."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder, private_broker(Path(folder)) as port:
        broker = Broker(port=port)
        running = [await _start(Path(folder), f"bench{number}", port, config) for number in range(nodes)]
        try:
            async with connect(broker, "bench") as client:
                async for views in client.changes():
                    if sum(view.ready for view in views.values()) == nodes:
                        break
                yield Stand(client, broker, tuple(process.pid for process in running))
        finally:
            for process in running:
                process.terminate()
            await asyncio.gather(*(process.wait() for process in running))


async def _start(folder: Path, node: str, port: int, config: Mapping[str, Any]) -> asyncio.subprocess.Process:
    file = folder / f"{node}.yaml"
    settings = {"node": node, "broker": {"port": port}, "log": {"level": "warning"}, **config}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_AGENT_")}
    command = (sys.executable, "-m", "edge_agent", "--config", file, "run")
    return await asyncio.create_subprocess_exec(*command, env=environ)


async def _texts(client: Client, body: Mapping[str, Any]) -> AsyncIterator[str]:
    async for reply in client.ask(body):
        if reply.kind == "chunk":
            yield reply.body["choices"][0]["delta"].get("content", "")


async def _timed_answer(client: Client, body: Mapping[str, Any]) -> tuple[float, float]:
    """(seconds to the first text, tokens/s after it) of an answer over MQTT."""
    began, first, last, tokens = time.monotonic(), 0.0, 0.0, 0
    async for reply in client.ask(body):
        if reply.kind == "chunk":
            last = time.monotonic()
            first = first or last
        elif reply.final:
            tokens = reply.body["usage"]["completion_tokens"]
    return first - began, (tokens - 1) / (last - first)


async def _timed_run(engine: base.Engine, prompt: base.Prompt) -> tuple[float, float]:
    began, first, last, tokens = time.monotonic(), 0.0, 0.0, 0
    async with aclosing(engine.generate(prompt, base.Sampling(max_tokens=96, temperature=0))) as pieces:
        async for piece in pieces:
            if piece.text:
                last = time.monotonic()
                first = first or last
            tokens += piece.tokens
    return first - began, (tokens - 1) / (last - first)


async def _cancelled_after(client: Client, body: Mapping[str, Any], count: int) -> tuple[float, float]:
    """(seconds from cancel to the final, seconds per token before it)."""
    gaps: list[float] = []
    last = asked = 0.0
    try:
        async for reply in client.ask(body):
            if reply.kind == "chunk":
                now = time.monotonic()
                gaps.append(now - last)
                last = now
                if len(gaps) == count:
                    asked = time.monotonic()
                    await client.cancel(reply.rid)
    except WireError as error:
        if error.code.name != "cancelled":
            raise
    if not asked:
        raise ModelError(f"the answer ended before its {count}th token: this model cannot show how it is cancelled")
    return time.monotonic() - asked, statistics.median(gaps[1:])


def _import_s(module: str) -> float:
    """The shortest of five times in which a fresh interpreter imports a module."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603 - ourselves
        times.append(time.monotonic() - began)
    return min(times)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


async def run(names: Iterable[str], model: Path, cache: Path) -> AsyncIterator[Figure]:
    """Run the named benches one after the other and yield their figures as they come."""
    given = {"model": model, "cache": cache}
    for name in names:
        bench = BENCHES[name]
        wanted = inspect.signature(bench).parameters
        async for figure in bench(**{each: given[each] for each in wanted}):
            yield figure


def machine() -> str:
    """This machine in a few words, for the head of the table."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", info)
    return f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, Python {platform.python_version()}"


def table(figures: Iterable[Figure]) -> str:
    """The figures as a table in Markdown."""
    rows = [("measured", "here", "target", "")]
    rows += [figure.row() for figure in figures]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]])
