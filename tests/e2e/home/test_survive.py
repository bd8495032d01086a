"""A node that dies is missed at once, and is itself again when it is back."""

import asyncio
import time

import pytest_asyncio
from home import agents, furnish


@pytest_asyncio.fixture(loop_scope="session")
async def mortal(home, place, mqtt, set_up):
    """A node that writes for as long as nobody kills it."""
    rules = [{"match": "story", "text": "and so on " * 5000}, {"text": "Here I am."}]
    engine = {"name": "echo", "options": {"rules": rules, "write_tps": 50, "context": 32768}}
    file = agents.configured(place, "mortal", mqtt.login(), engine=engine, limits={"max_tokens": 20000})
    async with set_up(file) as node:
        yield node


async def test_a_killed_node_ends_its_answer_is_unavailable_and_comes_back(home, mortal) -> None:
    pipeline = await furnish.assistant(home, mortal.agent, preferred=False)
    request = {"start_stage": "intent", "end_stage": "intent", "input": {"text": "A story!"}, "pipeline": pipeline}
    async with home.subscription("assist_pipeline/run", **request) as events, asyncio.timeout(30):
        while not (await events.get())["data"].get("chat_log_delta", {}).get("content"):
            pass
        await mortal.process.kill()
        killed = time.monotonic()
        while (event := await events.get())["type"] != "intent-end":
            pass
    assert time.monotonic() - killed < 5
    response = event["data"]["intent_output"]["response"]
    assert response["response_type"] == "error"
    assert "stopped" in response["speech"]["plain"]["speech"]

    await home.until(mortal.agent, lambda state: state["state"] == "unavailable")
    began = time.monotonic()
    *_, end, _ = await home.run_pipeline("Are you there?", pipeline=pipeline)
    assert time.monotonic() - began < 2
    assert end["data"]["intent_output"]["response"]["response_type"] == "error"

    async with agents.serving(mortal.file):
        await home.until(mortal.agent, lambda state: state["state"] != "unavailable")
        *_, end, _ = await home.run_pipeline("Are you there?", pipeline=pipeline)
        assert end["data"]["intent_output"]["response"]["speech"]["plain"]["speech"] == "Here I am."
    await home.until(mortal.agent, lambda state: state["state"] == "unavailable")
