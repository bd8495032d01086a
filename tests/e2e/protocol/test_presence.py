"""Presence on a real broker: retained, true, sparing; and what an operator may order."""

import asyncio
import json

import pytest

from edge_agent.client import ulid
from edge_agent.errors import NodeNameTaken
from edge_agent.wire import Topics, decode_info, decode_reply

TOPICS = Topics()


async def test_a_node_is_loading_then_ready_and_at_the_end_offline(agent, wire):
    client = await wire()
    app = await agent("kitchen", engine={"load_s": 1})
    assert (await client.phase("kitchen", "loading")).boot == app.boot
    refused = await client.final(await client.ask("too early", to="kitchen"))
    assert (refused.error().code.name, refused.error().retry_after_s) == ("unavailable", 2.0)
    ready = await client.phase("kitchen")
    assert (ready.boot, ready.room, ready.pool) == (app.boot, 32, "shared")
    app.stop()
    await client.until(lambda: not client.online("kitchen"))
    assert client.state("kitchen").phase == "draining"


async def test_who_comes_later_reads_it_all_at_once(agent, wire):
    await agent("kitchen")
    await (await wire()).phase("kitchen")
    late = await wire()
    await late.phase("kitchen")
    await late.until(lambda: ("kitchen", "info") in late.presence)
    card = decode_info(late.presence["kitchen", "info"][0])
    assert (card.node, card.model, card.engine, card.context) == ("kitchen", "echo", "echo", 4096)
    assert card.limits["request_bytes"] == 262144
    assert card.capabilities["scores"] is True


async def test_the_card_is_the_same_bytes_after_a_restart(agent, wire):
    client = await wire()
    boots = []
    for _ in range(2):
        app = await agent("kitchen")
        await client.until(lambda app=app: (state := client.state("kitchen")) and state.boot == app.boot)
        await client.phase("kitchen")
        await client.answer(await client.ask("hello", to="kitchen"))
        boots.append(app.boot)
        app.stop()
        await client.until(lambda: not client.online("kitchen"))
    assert len(set(boots)) == 2
    assert len(client.presence["kitchen", "info"]) >= 2
    assert len(set(client.presence["kitchen", "info"])) == 1


async def test_the_state_is_said_at_most_once_a_second_however_busy_the_node(agent, wire):
    await agent("kitchen")
    client = await wire()
    await client.phase("kitchen")
    before, start = len(client.presence["kitchen", "state"]), asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - start < 2.5:
        await client.answer(await client.ask("hello"))
    assert len(client.presence["kitchen", "state"]) - before <= 3


async def test_measured_speeds_are_announced(agent, wire):
    await agent("kitchen", engine={"write_tps": 200})
    client = await wire()
    await client.phase("kitchen")
    await client.answer(await client.ask("word " * 60))
    await client.until(lambda: client.state("kitchen").write_tps)
    state = client.state("kitchen")
    assert state.write_tps == pytest.approx(200, rel=0.3)
    assert (state.memory > 10 << 20, state.running) == (True, 0)


async def test_a_late_last_will_does_not_leave_a_living_node_offline(agent, wire):
    await agent("kitchen")
    client = await wire()
    await client.phase("kitchen")
    await client.publish(TOPICS.presence("kitchen", "status"), "offline", retain=True)
    await client.until(lambda: client.presence["kitchen", "status"][-2:] == [b"offline", b"online"])


async def test_of_two_agents_with_one_name_the_younger_ends_and_the_older_serves(agent, configured, wire, eventually):
    older = await agent("kitchen")
    client = await wire()
    await client.phase("kitchen")
    younger = type(older)(configured("kitchen"))
    younger.boot = max(younger.boot, older.boot + "0")
    with pytest.raises(NodeNameTaken, match="another agent calls itself kitchen: give one of them another"):
        async with asyncio.timeout(20):
            await younger.run()
    await client.until(lambda: client.online("kitchen") and client.state("kitchen").boot == older.boot)
    await eventually(older.door.connected.is_set)
    assert (await client.final(await client.ask("hello", to="kitchen"))).boot == older.boot


async def order(client, app, op: str, **values):
    rid = ulid()
    payload = json.dumps({"op": op, "boot": app.boot, **values})
    await client.publish(TOPICS.admin("kitchen", client.name, rid), payload)
    return rid


async def test_orders_are_ignored_until_somebody_may_give_them(agent, wire):
    app = await agent("kitchen")
    client = await wire("anna")
    await client.phase("kitchen")
    rid = await order(client, app, "shutdown")
    await client.answer(await client.ask("hello"))
    assert client.replies(rid) == []
    assert client.online("kitchen")


async def test_only_a_named_operator_is_obeyed_and_only_for_this_boot(agent, wire):
    app = await agent("kitchen", admin={"clients": ["olga"]})
    anna, olga = await wire("anna"), await wire("olga")
    await olga.phase("kitchen")
    assert await anna.code(await order(anna, app, "drain")) == "forbidden"
    assert await olga.code(await order(olga, app, "drain", boot="of yesterday")) == "expired"
    assert await olga.code(await order(olga, app, "dance")) == "unsupported"
    assert olga.state("kitchen").phase == "ready"


async def test_the_configuration_is_shown_without_its_secrets(agent, wire):
    login = {"username": "kit", "password": "hush-hush"}
    app = await agent("kitchen", admin={"clients": ["olga"]}, broker=login, engine={"rules": [{"text": "an api key"}]})
    olga = await wire("olga")
    await olga.phase("kitchen")
    shown = (await olga.final(await order(olga, app, "config"))).body["config"]
    assert shown["broker"]["username"] == "kit"
    assert shown["limits"]["request_bytes"] == 262144
    assert b"hush-hush" not in olga.out[-1].payload
    assert b"api key" not in olga.out[-1].payload


async def test_an_operator_reloads_drains_and_stops_the_node(agent, wire, eventually):
    app = await agent("kitchen", admin={"clients": ["olga"]})
    olga = await wire("olga")
    await olga.phase("kitchen")
    for op in ("drain", "reload", "drain", "shutdown"):
        done = decode_reply((await olga.final(await order(olga, app, op))).encode())
        assert (done.body["op"], done.body["done"]) == (op, True)
        if op == "reload":
            await eventually(lambda: app.supervisor.restarts and app.supervisor.loaded)
            await olga.phase("kitchen")
        elif op == "drain":
            await olga.phase("kitchen", "draining")
            assert await olga.code(await olga.ask("hello", to="kitchen")) == "draining"
    await olga.until(lambda: not olga.online("kitchen"))
