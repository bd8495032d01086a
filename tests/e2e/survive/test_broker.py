"""The broker dies, hangs, or the line to it breaks: answers go on and arrive."""

import asyncio
import socket

import pytest

from edge_agent.config.settings import Broker
from edge_agent.connection import connect
from edge_agent.errors import BrokerError

SLOW = {"write_tps": 50}


@pytest.fixture
async def client(to_broker):
    async with connect(to_broker, "anna") as made:
        yield made


async def test_a_broker_that_is_killed_and_restarted_in_mid_stream_costs_nothing(
    asking, agent, wire, broker, to_broker
):
    await agent("kitchen", engine=SLOW)
    await (await wire()).phase("kitchen")
    async with connect(to_broker, "anna") as client:
        answer = asking(client)
        await answer.wrote.wait()
        broker.kill()
        broker.start()
        await answer.whole()
    after = await wire(port=broker.port)
    await after.phase("kitchen")
    assert (await after.final(await after.ask("hello"))).kind == "final"


async def test_a_broker_that_is_away_while_the_answer_ends_gets_it_on_its_return(
    asking, agent, broker, *, wire, to_broker, eventually
):
    app = await agent("kitchen", engine={"write_tps": 200})
    await (await wire()).phase("kitchen")
    async with connect(to_broker, "anna") as client:
        answer = asking(client)
        await answer.wrote.wait()
        broker.kill()
        await eventually(lambda: not app.scheduler.running)
        broker.start()
        await answer.whole()


async def test_a_broker_that_hangs_for_a_while_costs_nothing(asking, agent, broker, *, wire, to_broker, eventually):
    app = await agent("kitchen", engine=SLOW, broker={"timeout_s": 1})
    await (await wire()).phase("kitchen")
    async with connect(to_broker, "anna") as client:
        answer = asking(client)
        await answer.wrote.wait()
        broker.freeze()
        try:
            await eventually(lambda: app.door.reconnects)
        finally:
            broker.thaw()
        await answer.whole()


async def test_a_broker_that_accepts_and_never_answers_is_one_warning_and_no_hang(
    agent, wire, mosquitto, caplog, eventually
):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(BrokerError, match="cannot reach"):
            async with asyncio.timeout(10), connect(Broker(port=port, timeout_s=1.0), "anna"):
                pass
        app = await agent("kitchen", broker={"port": port, "timeout_s": 1}, wait=False)
        await eventually(lambda: app.door.reconnects >= 2)
    mosquitto(port=port)
    client = await wire(port=port)
    await client.phase("kitchen")
    assert (await client.final(await client.ask("hello"))).kind == "final"
    warned = [each for each in caplog.records if each.levelname == "WARNING" and "cannot reach" in each.getMessage()]
    assert len(warned) == 1


async def test_a_line_cut_between_agent_and_broker_costs_nothing(asking, proxy, agent, wire, client):
    await agent("kitchen", engine=SLOW, broker={"port": proxy.port})
    watcher = await wire()
    await watcher.phase("kitchen")
    answer = asking(client)
    await answer.wrote.wait()
    proxy.cut()
    await answer.whole()
    await watcher.phase("kitchen")


async def test_a_line_cut_between_client_and_broker_costs_nothing(asking, proxy, agent, wire):
    await agent("kitchen", engine=SLOW)
    await (await wire()).phase("kitchen")
    async with connect(Broker(port=proxy.port, timeout_s=2.0, reconnect_max_s=1.0), "anna") as client:
        answer = asking(client)
        await answer.wrote.wait()
        proxy.cut()
        await answer.whole()


async def test_a_slow_line_only_takes_longer(asking, proxy, agent, wire, client):
    await agent("kitchen", engine=SLOW, broker={"port": proxy.port})
    await (await wire()).phase("kitchen")
    proxy.delay_s = 0.05
    await asking(client).whole()
