"""Random turns: no answer out of step, none lost, no process left. `script/soak` runs many more of them."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import aclosing
from typing import Any

import psutil
import pytest

from edge_agent.engines.axera import AxeraEngine, engine
from edge_agent.engines.base import Prompt, Sampling, Segment
from edge_agent.errors import EngineFailed

TURNS = int(os.environ.get("EDGE_AGENT_TEST_TURNS", "500"))
SEED = int(os.environ.get("EDGE_AGENT_TEST_SEED", "4"))
ODD = [
    "\n",
    "q",
    "q\n",
    "\r\n",
    ">> ",
    "prompt >> ",
    "🙂",
    "日本",
    "é",
    "\x1b[0m",
    "<|im_end|>",
    "ab",
    " word",
    "7",
    "  ",
]
FAULTS: list[dict[str, Any]] = [
    {"do": "lines", "preset": "link", "raw": True},
    {"do": "lines", "preset": "link"},
    {"do": "lines", "preset": "link", "to": "stderr"},
    {"do": "slow", "times": 3},
    {"do": "silence", "seconds": 0.05},
]
BREAKS: list[dict[str, Any]] = [
    {"do": "crash"},
    {"do": "crash", "exit": 3},
    {"do": "lines", "preset": "dead", "raw": True},
    {"do": "errors"},
    {"do": "silence"},
]
MOMENTS = [("encode", 0), ("read", 2), ("write", 1), ("write", 4), ("end", 0), ("end", 1), ("end", 2)]


class Turns:
    """One life of turns: `card` is the stand-in's, `options` the engine's. `counts` says what there was."""

    def __init__(self, card: Any, options: dict[str, Any], seed: int, breaks: float) -> None:
        self.counts = Counter[str]()
        self._card, self._options = card, options
        self._random = random.Random(seed)
        self._breaks = breaks
        self._engine: AxeraEngine | None = None
        self._pid = 0
        self._doomed = False

    async def run(self, turns: int) -> None:
        try:
            for _ in range(turns):
                if self._engine is None:
                    self._card.script()
                    self._engine = await AxeraEngine(self._options).__aenter__()
                    self._pid, self._doomed = self._engine._console.pid, False
                    self.counts["starts"] += 1
                await self._turn(self._engine)
        finally:
            await self._close()

    async def _turn(self, engine: AxeraEngine) -> None:
        question = "x" + "".join(self._random.choices(ODD, k=self._random.randint(0, 12))) + f"{self.counts['turns']}"
        breaks = self._random.random() < self._breaks
        self._doomed = self._doomed or breaks  # Some breaks are felt in a later turn only.
        self._fault(BREAKS if breaks else FAULTS if self._random.random() < 0.3 else [])
        self.counts["turns"] += 1
        ending = self._random.choice(["whole", "whole", "limit", "close", "close reading", "cancel", "beside"])
        try:
            async with asyncio.timeout(20):
                await self._ask(engine, question, ending)
        except EngineFailed:
            if not self._doomed:
                raise
            self.counts["failures"] += 1
            assert not (await engine.health()).ok
            await self._close()
        else:
            self.counts[ending] += 1
            health = await engine.health()
            assert health.running == 0
            if not health.ok:  # It broke behind the end of the answer.
                assert self._doomed
                await self._close()

    async def _ask(self, engine: AxeraEngine, question: str, ending: str) -> None:
        if ending == "limit":
            limit = self._random.randint(1, 9)
            text, last = await self._read(engine, question, limit)
            assert question.startswith(text.rstrip("\ufffd"))
            assert last.usage.completion <= limit
            assert (last.finish == "stop") == (text == question) or last.usage.completion == limit
        elif ending == "beside":
            both = await asyncio.gather(
                *(self._read(engine, question + each, 500) for each in "ab"), return_exceptions=True
            )
            for result in both:
                if isinstance(result, BaseException):
                    raise result
            assert [text for text, _ in both] == [question + "a", question + "b"]
        elif ending == "whole":
            text, last = await self._read(engine, question, 500)
            assert (text, last.finish) == (question, "stop")
        elif ending == "cancel":
            task = asyncio.create_task(self._read(engine, question, 500))
            await asyncio.sleep(self._random.random() * 0.05)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                assert task.result()[0] == question
        else:
            async with aclosing(engine.generate(chat(question), Sampling(max_tokens=500))) as pieces:
                async for piece in pieces:
                    if piece.tokens or ending == "close reading":
                        break

    async def _read(self, engine: AxeraEngine, question: str, limit: int) -> tuple[str, Any]:
        async with aclosing(engine.generate(chat(question), Sampling(max_tokens=limit))) as pieces:
            got = [piece async for piece in pieces]
        assert got[-1].finish
        assert got[-1].usage.completion == sum(piece.tokens for piece in got)
        return "".join(piece.text for piece in got), got[-1]

    def _fault(self, faults: list[dict[str, Any]]) -> None:
        if not faults:
            self._card.script()
            return
        when, at = self._random.choice(MOMENTS)
        fault = self._random.choice(faults)
        self.counts[f"{fault['do']} at {when}"] += 1
        self._card.script({"when": when, "at": at, **fault})

    async def _close(self) -> None:
        if self._engine is not None:
            await self._engine.__aexit__(None, None, None)
            self._engine = None
            assert not psutil.pid_exists(self._pid)


def chat(question: str) -> Prompt:
    start, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    return Prompt((Segment(start, control=True), Segment(question), Segment(end, control=True)))


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("impatient", "eager")
async def test_random_turns(card, monkeypatch):
    monkeypatch.setattr(engine, "STOP_RUN_S", 4.0)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    life = Turns(card, card.options(silence_s=2.0), SEED, breaks=0.02)
    await life.run(TURNS)
    print(dict(life.counts))  # noqa: T201 - a figure for the record
    assert life.counts["turns"] == TURNS
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
