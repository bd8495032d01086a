"""What the engine adds to the program's own time. `script/soak` measures at real speed, this four times as fast."""

from __future__ import annotations

import logging
import os
import re
import statistics
import time
from contextlib import aclosing

import pytest

from edge_agent.engines.axera import AxeraEngine
from edge_agent.engines.base import Sampling

SPEED = float(os.environ.get("EDGE_AGENT_TEST_SPEED", "4"))
TOKEN_S = 1 / 14 / SPEED


@pytest.fixture
def sent(monkeypatch):
    """When SIGINT was sent, and when the program was at its prompt again."""
    moments = []
    interrupt, end = AxeraEngine._interrupt, AxeraEngine._end

    def interrupting(self, run, *again_s):
        if not run.over:
            moments.append(time.monotonic())
        interrupt(self, run, *again_s)

    def ending(self, run):
        moments.append(time.monotonic())
        end(self, run)

    monkeypatch.setattr(AxeraEngine, "_interrupt", interrupting)
    monkeypatch.setattr(AxeraEngine, "_end", ending)
    return moments


async def test_an_answer_costs_less_than_20_ms_on_top(card, chat, answer, caplog):
    """On top of what the program says it took."""
    caplog.set_level(logging.DEBUG)
    async with AxeraEngine(card.options(speed=SPEED)) as axera:
        extra = []
        for question in ("one two three four five", "a b c d e f g h", "the quick brown fox jumps"):
            began = time.monotonic()
            last = (await answer(axera, chat(question, system="x"), Sampling(max_tokens=99)))[-1]
            took = time.monotonic() - began
            tokens_per_s = float(re.findall(r"avg (\S+) token/s", caplog.text)[-1])
            extra.append(took - (last.usage.prompt + last.usage.completion) / tokens_per_s)
    print(f"overhead per answer: {[round(each * 1e3, 1) for each in extra]} ms")  # noqa: T201 - for the record
    assert statistics.median(extra) < 0.02


async def test_from_interrupt_to_prompt_mark_it_takes_a_token_and_a_half_at_most(card, chat, sent):
    async with AxeraEngine(card.options(speed=SPEED)) as axera:
        sent.clear()
        took = []
        for writing in (True, False) * 3:
            async with aclosing(axera.generate(chat("word " * 30, system="x"), Sampling(max_tokens=99))) as pieces:
                async for piece in pieces:
                    if piece.tokens if writing else axera._run.asked:
                        break
            took.append((sent[-1] - sent[0]) / TOKEN_S)
            sent.clear()
    print(f"from SIGINT to the mark: {[round(each, 2) for each in took]} tokens")  # noqa: T201 - for the record
    assert statistics.median(took) < 1.5
