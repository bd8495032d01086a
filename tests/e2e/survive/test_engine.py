"""The engine's process dies or hangs in mid-answer: the agent lives on and starts another."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from edge_agent.engines import process as process_engine

LONG = "word " * 400


@pytest.fixture
async def kitchen(agent, wire, monkeypatch):
    """An agent in this process with one slot, its engine in a child: the child's pid, and a client."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(process_engine, "CANCEL_S", 0.5)
    monkeypatch.setattr(process_engine, "STOP_S", 0.5)
    app = await agent(
        "kitchen", engine={"parallel": 1, "write_tps": 50}, runtime={"name": "caged:CagedEcho", "stall_s": 1}
    )
    client = await wire("anna")
    await client.phase("kitchen")
    return app, client


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
async def test_what_ran_has_failed_what_waited_is_served_by_the_next_engine(kitchen, number):
    app, client = kitchen
    pid = app.supervisor.loaded.engine.pid
    running = await client.ask(LONG, stream=True)
    waiting = await client.ask("patient", edge={"ack": True})
    await client.until(lambda: any(reply.kind == "chunk" for reply in client.replies(running)))
    os.kill(pid, number)
    assert await client.code(running) == "engine_failed"
    assert (await client.final(waiting)).body["choices"][0]["message"]["content"] == "patient"
    await client.phase("kitchen")
    assert app.supervisor.loaded.engine.pid != pid
    assert not psutil.pid_exists(pid)
    assert (client.presence["kitchen", "status"], app.supervisor.restarts) == ([b"online"], 1)


async def test_a_turn_that_had_written_nothing_is_run_again(agent, wire, monkeypatch, eventually):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    app = await agent("kitchen", engine={"read_tps": 50, "block": 10}, runtime={"name": "caged:CagedEcho"})
    client = await wire("anna")
    await client.phase("kitchen")
    text = " ".join(["word"] * 100)
    rid = await client.ask(text, stream=True, edge={"ack": True})
    await eventually(lambda: app.scheduler.running)
    os.kill(app.supervisor.loaded.engine.pid, signal.SIGKILL)
    assert (await client.final(rid)).body["choices"][0]["message"]["content"] == text
    assert app.supervisor.restarts == 1


async def test_an_engine_that_dies_while_nobody_asks_is_replaced(kitchen):
    app, client = kitchen
    pid = app.supervisor.loaded.engine.pid
    os.kill(pid, signal.SIGKILL)
    rid = await client.ask("is anybody there?")
    assert (await client.final(rid)).kind == "final"
    assert app.supervisor.loaded.engine.pid != pid


async def test_an_engine_that_crashes_on_every_answer_is_given_up_and_the_node_says_so(agent, wire, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    crash = {"rules": [{"match": "boom", "crash_after": 0}]}
    await agent("kitchen", engine=crash, runtime={"name": "caged:CagedEcho", "restarts": 1})
    client = await wire("anna")
    await client.phase("kitchen")
    assert await client.code(await client.ask("boom", to="kitchen")) in ("engine_failed", "unavailable")
    state = await client.phase("kitchen", "failed")
    assert "ended with exit code 3" in state.why
    refused = (await client.final(await client.ask("hello", to="kitchen"))).error()
    assert (refused.code.name, refused.retry_after_s) == ("unavailable", None)
