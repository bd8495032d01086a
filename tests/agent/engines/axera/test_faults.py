"""Every fault of the card and its program: recognised, told with its remedy, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from edge_agent.engines.axera import AxeraEngine, engine, faults
from edge_agent.engines.base import Sampling
from edge_agent.errors import DeviceLost, EngineFailed, EngineStalled, ModelError

SAMPLING = Sampling(max_tokens=60)
RESET = "reset the card or reboot the host"

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        ("set_device", DeviceLost, RESET),
        ("engine_init", DeviceLost, RESET),
        ("create_handle", DeviceLost, RESET),
        ("get_device", EngineFailed, "no card was found"),
        ("tokenizer", EngineFailed, "could not reach our tokenizer"),
        ("layer", ModelError, "fetch the model again"),
        ("post", ModelError, "fetch the model again"),
        ("embed", ModelError, "fetch the model again"),
    ],
)
async def test_a_start_that_fails_says_what_to_do(card, error, kind, says):
    card.script({"when": "start", "at": 3, "do": "fail", "error": error})
    with pytest.raises(kind, match=says) as caught:
        async with AxeraEngine(card.options()):
            pass
    assert type(caught.value) is kind


async def test_flags_that_the_program_does_not_know_are_the_operator_s(card):
    with pytest.raises(ModelError, match=r"engine\.options"):
        async with AxeraEngine(card.options(flags={"teapot": 1})):
            pass


async def test_a_device_that_dies_in_a_run_fails_it_and_asks_for_a_reset(card, chat, answer):
    card.script({"when": "write", "at": 4, "do": "lines", "preset": "dead", "raw": True})
    async with AxeraEngine(card.options()) as axera:
        with pytest.raises(DeviceLost, match=RESET):
            await answer(axera, chat("one two three four five six"), SAMPLING)
        health = await axera.health()
        assert (health.ok, health.lost) == (False, True)
        assert "device 1 is dead" in health.detail
        with pytest.raises(DeviceLost):
            await answer(axera, chat("again"), SAMPLING)


@pytest.mark.parametrize("to", ["stdout", "stderr"])
async def test_a_device_that_dies_while_nothing_runs_is_seen_in_the_health(card, until, to):
    async with AxeraEngine(card.options()) as axera:
        card.script({"when": "idle", "do": "lines", "preset": "dead", "to": to})
        await until(lambda: axera._failure)
        health = await axera.health()
        assert (health.ok, health.lost) == (False, True)


async def test_a_flood_of_engine_errors_is_no_answer(card, chat, answer):
    card.script({"when": "write", "at": 3, "do": "errors"})
    async with AxeraEngine(card.options()) as axera:
        with pytest.raises(EngineFailed, match="computes nothing"):
            await answer(axera, chat("one two three four five six"), SAMPLING)


@pytest.mark.parametrize(
    ("fault", "doing"),
    [
        ({"when": "encode"}, "starting"),
        ({"when": "read", "at": 5}, "reading"),
        ({"when": "write", "at": 4}, "writing"),
        ({"when": "end", "at": 1}, "writing"),
    ],
)
@pytest.mark.usefixtures("eager")
async def test_a_silent_run_has_stalled(card, chat, answer, fault, doing):
    async with AxeraEngine(card.options(silence_s=0.5)) as axera:
        card.script({**fault, "do": "silence"})
        with pytest.raises(EngineStalled, match=f"silent while {doing}"):
            await answer(axera, chat("one two three four five six"), SAMPLING)


CRASHES = [({"signal": "SEGV"}, "SIGSEGV, as it is when"), ({"exit": 3}, "exit code 3")]


@pytest.mark.parametrize(("how", "says"), CRASHES)
async def test_a_crash_of_the_start_is_told_by_its_signal_or_code(card, how, says):
    card.script({"when": "start", "at": 3, "do": "crash", **how})
    with pytest.raises(EngineFailed, match=says):
        async with AxeraEngine(card.options()):
            pass


@pytest.mark.parametrize(("how", "says"), CRASHES)
async def test_a_crash_while_nothing_runs_is_seen_in_the_health(card, until, how, says):
    async with AxeraEngine(card.options()) as axera:
        card.script({"when": "idle", "do": "crash", **how})
        await until(lambda: axera._failure)
        assert says in (await axera.health()).detail


@pytest.mark.parametrize("moment", [("encode", 0), ("read", 3), ("write", 3), ("end", 0), ("end", 1), ("end", 2)])
async def test_a_crash_in_a_run_fails_it_at_any_moment(card, chat, answer, moment):
    async with AxeraEngine(card.options()) as axera:
        card.script({"when": moment[0], "at": moment[1], "do": "crash"})
        with pytest.raises(EngineFailed, match="SIGSEGV"):
            await answer(axera, chat("one two three four five six"), SAMPLING)
        assert "SIGSEGV" in (await axera.health()).detail


async def test_an_endless_run_ends_at_max_tokens(card, chat, answer):
    card.script({"when": "write", "do": "endless"})
    async with AxeraEngine(card.options()) as axera:
        last = (await answer(axera, chat("one two three"), SAMPLING))[-1]
        assert (last.finish, last.usage.completion) == ("length", 60)


@pytest.mark.parametrize("cut", [True, False])
async def test_a_run_that_does_not_stop_ends_the_program(card, chat, answer, monkeypatch, cut):
    monkeypatch.setattr(engine, "STOP_RUN_S", 0.3)
    async with AxeraEngine(card.options()) as axera:
        card.script({"when": "write", "do": "endless"}, {"when": "write", "at": 2, "do": "deaf", "signals": ["INT"]})
        if cut:
            async with aclosing(axera.generate(chat("one two three"), SAMPLING)) as pieces:
                async for piece in pieces:
                    if piece.tokens:
                        break
        else:
            await answer(axera, chat("one two three"), Sampling(max_tokens=5))
        assert "did not stop" in (await axera.health()).detail
        with pytest.raises(EngineStalled, match="did not stop"):
            await answer(axera, chat("next"), SAMPLING)


async def test_a_program_whose_input_has_ended_is_not_left_spinning(card, until):
    async with AxeraEngine(card.options()) as axera:
        axera._console._transport.get_pipe_transport(0).close()
        await until(lambda: axera._failure)
        assert "no longer waits" in (await axera.health()).detail


async def test_a_turn_that_waits_fails_with_the_one_that_runs(card, chat, answer):
    card.script({"when": "write", "at": 4, "do": "crash"})
    async with AxeraEngine(card.options()) as axera:
        both = (answer(axera, chat(word * 9), SAMPLING) for word in ("one ", "two "))
        results = await asyncio.gather(*both, return_exceptions=True)
        assert [type(result) for result in results] == [EngineFailed, EngineFailed]


def test_every_fault_says_what_to_do():
    for fault in faults.FAULTS:
        assert fault.remedy
        assert len(str(fault.raised("x" * 500))) <= 256


def test_faults_are_counted_by_run():
    watch = faults.Watch()
    for _ in range(10):
        watch.run()
        assert watch.line("[E][ inference][ 529]: AX_ENGINE_Execute") is None
        assert watch.line("[E][ inference][ 529]: AX_ENGINE_Execute") is None
    assert isinstance(watch.line("[E][ inference][ 529]: AX_ENGINE_Execute"), EngineFailed)
