"""The agent itself is stopped, killed or doubled; its clients go away or stop reading."""

import asyncio
import signal

import pytest

from edge_agent import exchange
from edge_agent.config.settings import Broker
from edge_agent.connection import connect
from edge_agent.wire import WireError

LONG = "word " * 1000
SLOW = {"write_tps": 50, "parallel": 1}


@pytest.fixture
async def anna(wire):
    return await wire("anna")


async def writing(client, rid: str) -> None:
    await client.until(lambda: any(reply.kind == "chunk" for reply in client.replies(rid)))


async def test_terminated_it_finishes_what_runs_and_sends_away_what_waits(process, anna):
    kitchen = await process("kitchen", engine=SLOW)
    await anna.phase("kitchen")
    running = await anna.ask("word " * 50, stream=True)
    waiting = await anna.ask("never", edge={"ack": True})
    await anna.until(lambda: anna.replies(waiting))
    await writing(anna, running)
    kitchen.send(signal.SIGTERM)
    assert await anna.code(waiting) == "draining"
    assert await anna.code(await anna.ask("too late", to="kitchen")) == "draining"
    assert (await anna.final(running)).body["usage"]["completion_tokens"] == 51
    assert await kitchen.ended() == 0
    await anna.until(lambda: not anna.online("kitchen"))
    assert "Traceback" not in kitchen.said


async def test_terminated_it_does_not_wait_for_ever(process, anna):
    kitchen = await process("kitchen", engine=SLOW, limits={"drain_s": 0.2})
    await anna.phase("kitchen")
    running = await anna.ask(LONG, stream=True)
    await writing(anna, running)
    kitchen.send(signal.SIGTERM)
    assert await anna.code(running) == "draining"
    assert await kitchen.ended() == 0


async def test_told_twice_it_stops_what_runs_at_once(process, anna):
    kitchen = await process("kitchen", engine=SLOW, limits={"drain_s": 600})
    await anna.phase("kitchen")
    running = await anna.ask(LONG, stream=True)
    await writing(anna, running)
    kitchen.send(signal.SIGTERM)
    await anna.phase("kitchen", "draining")
    kitchen.send(signal.SIGTERM)
    assert await anna.code(running) == "draining"
    assert await kitchen.ended() == 0


async def test_terminated_while_the_broker_is_away_it_ends_too(process, anna, broker):
    kitchen = await process("kitchen")
    await anna.phase("kitchen")
    broker.kill()
    kitchen.send(signal.SIGTERM)
    assert await kitchen.ended() == 0


async def test_killed_in_mid_answer_the_client_library_ends_the_request(process, asking, to_broker, wire, monkeypatch):
    monkeypatch.setattr(exchange, "RETURN_S", 0.5)
    watcher = await wire()
    kitchen = await process("kitchen", engine=SLOW)
    await watcher.phase("kitchen")
    async with connect(to_broker, "anna") as client:
        answer = asking(client)
        await answer.wrote.wait()
        kitchen.send(signal.SIGKILL)
        with pytest.raises(WireError, match="engine_failed: the node kitchen went away in mid-answer"):
            await answer.whole()
    await watcher.until(lambda: not watcher.online("kitchen"))


async def test_killed_before_a_word_was_written_another_node_answers(process, asking, to_broker, wire):
    watcher = await wire()
    nodes = {"kitchen": await process("kitchen", engine={"read_tps": 20, "parallel": 1})}
    await watcher.phase("kitchen")
    async with connect(to_broker, "anna") as client:
        answer = asking(client, {"messages": [{"role": "user", "content": "hello " * 200}], "stream": True})
        await watcher.until(lambda: watcher.state("kitchen").running)
        nodes["hall"] = await process("hall")
        await watcher.phase("hall")
        nodes["kitchen"].send(signal.SIGKILL)
        await answer.whole("hello " * 200)
    assert {reply.node for reply in answer.replies if reply.kind == "chunk"} == {"hall"}


async def test_killed_and_started_again_it_is_back_by_itself(process, anna):
    for _ in range(2):
        kitchen = await process("kitchen")
        await anna.until(lambda: anna.online("kitchen"))
        await anna.phase("kitchen")
        assert (await anna.final(await anna.ask("hello", to="kitchen"))).kind == "final"
        kitchen.send(signal.SIGKILL)
        await anna.until(lambda: not anna.online("kitchen"))


async def test_of_two_with_one_name_exactly_one_stays(process, anna):
    first = await process("kitchen")
    await anna.phase("kitchen")
    boot = anna.state("kitchen").boot
    second = await process("kitchen")
    assert await second.ended() == 73
    last = second.said.strip().splitlines()[-1]
    assert last == "edge-agent: another agent calls itself kitchen: give one of them another `node` name"
    assert "Traceback" not in second.said
    assert anna.online("kitchen")
    assert anna.state("kitchen").boot == boot
    assert await answered(anna, await anna.ask("hello", to="kitchen"))
    first.send(signal.SIGTERM)
    assert await first.ended() == 0
    assert "lost" not in first.said  # The newcomer asked before it took the name.


async def answered(client, rid: str) -> bool:
    try:
        return bool(await client.answer(rid, patience_s=1))
    except TimeoutError:
        return False


async def test_of_two_started_at_once_exactly_one_stays(process, anna):
    both = [await process("kitchen") for _ in range(2)]
    ends = [asyncio.create_task(each.ended()) for each in both]
    done, running = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert [end.result() for end in done] == [73]
    await anna.phase("kitchen")
    async with asyncio.timeout(20):
        while not await answered(anna, await anna.ask("hello", to="kitchen")):
            pass
    both[ends.index(running.pop())].send(signal.SIGTERM)
    assert sorted(await asyncio.gather(*ends)) == [0, 73]


async def test_a_client_that_is_gone_holds_up_nobody(process, anna, broker):
    await process("kitchen", engine=SLOW)
    await anna.phase("kitchen")
    async with connect(Broker(port=broker.port), "ghost") as ghost:
        asked = ghost.ask({"messages": [{"role": "user", "content": "word " * 25}], "stream": True})
        await anext(asked)
    assert (await anna.final(await anna.ask("hello"))).kind == "final"
    await anna.until(lambda: not anna.state("kitchen").running + anna.state("kitchen").queued)


async def test_closing_an_answer_half_read_cancels_it(process, anna, to_broker):
    await process("kitchen", engine=SLOW)
    await anna.phase("kitchen")
    async with connect(to_broker, "ben") as ben:
        asked = ben.ask({"messages": [{"role": "user", "content": LONG}], "stream": True})
        await anext(asked)
        await anna.until(lambda: anna.state("kitchen").running)
        await asked.aclose()
        await anna.until(lambda: not anna.state("kitchen").running)


async def test_a_client_that_stops_reading_costs_nobody_else_and_finds_its_answer_later(process, anna, proxy, wire):
    kitchen = await process("kitchen", engine={"context": 8000})
    await anna.phase("kitchen")
    stalled = await wire("stalled", port=proxy.port, presence=False)
    text = "word " * 1500
    await stalled.answer(await stalled.ask("ready?"))
    rid = await stalled.ask(text, stream=True, max_tokens=4000, edge={"flush_ms": 0})
    await stalled.until(lambda: stalled.replies(rid))
    proxy.stall()
    before = kitchen.memory
    for _ in range(20):
        assert (await anna.final(await anna.ask("hello"))).kind == "final"
    await anna.until(lambda: not anna.state("kitchen").running)
    assert kitchen.memory - before < 64 << 20
    proxy.flow()
    while not await answered(stalled, rid):
        await stalled.send({"edge": {"op": "resume", "seq": -1}}, rid=rid, to="kitchen")
    assert (await stalled.final(rid)).body["choices"][0]["message"]["content"] == text
