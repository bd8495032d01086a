"""Nodes that share their work: each request to one of them, and to the one that has room."""

import asyncio

import pytest

from edge_agent.broker import Link, Outbound
from edge_agent.wire import Topics

TOPICS = Topics()
LONG = "word " * 400


@pytest.fixture
async def anna(wire):
    return await wire("anna")


async def room(client, node: str, wanted: int) -> None:
    await client.until(lambda: (state := client.state(node)) and state.room == wanted)


async def test_two_nodes_share_and_each_request_is_answered_once(agent, anna):
    for node in ("kitchen", "hall"):
        await agent(node)
        await anna.phase(node)
    rids = [await anna.ask(f"number {number}") for number in range(20)]
    finals = [await anna.final(rid) for rid in rids]
    assert {final.node for final in finals} == {"kitchen", "hall"}
    assert len(anna.out) == 20


async def test_a_full_node_leaves_the_pool_while_another_has_room_and_returns(agent, anna):
    one = {"parallel": 1, "write_tps": 20}
    for node in ("kitchen", "hall"):
        await agent(node, engine=one, backlog={"size": 1})
        await anna.phase(node)
    full = [await anna.ask(LONG, to="kitchen", stream=True) for _ in range(2)]
    await room(anna, "kitchen", 0)
    await anna.until(lambda: anna.replies(full[0]))
    served = [await anna.final(await anna.ask("hello")) for _ in range(4)]
    assert {(final.node, final.kind) for final in served} == {("hall", "final")}
    for rid in full:
        await anna.cancel(rid)
        await anna.answer(rid)
    await room(anna, "kitchen", 1)
    async with asyncio.timeout(20):
        while (await anna.final(await anna.ask("hello"))).node != "kitchen":
            pass


async def test_the_last_node_stays_and_says_busy(agent, anna):
    await agent("kitchen", engine={"parallel": 1, "write_tps": 20}, backlog={"size": 1})
    await anna.phase("kitchen")
    full = [await anna.ask(LONG, stream=True) for _ in range(2)]
    await room(anna, "kitchen", 0)
    refused = (await anna.final(await anna.ask("hello"))).error()
    assert (refused.code.name, refused.retry_after_s >= 1) == ("busy", True)
    for rid in full:
        await anna.cancel(rid)
        await anna.answer(rid)


async def test_a_draining_node_leaves_the_pool_to_another(agent, anna):
    kitchen = await agent("kitchen")
    await agent("hall")
    for node in ("kitchen", "hall"):
        await anna.phase(node)
    kitchen.scheduler.refuse()
    await anna.phase("kitchen", "draining")
    finals = [await anna.final(await anna.ask("hello")) for _ in range(6)]
    assert {(final.node, final.kind) for final in finals} == {("hall", "final")}


async def test_whoever_reads_that_a_node_is_ready_may_ask_at_once(agent, broker, anna, monkeypatch, eventually):
    """Also after a reconnect: the node is in the pool before its presence says so, or anything goes out.

    What is under way when a connection is refused something would be taken for the cause.
    """
    done: list[str] = []
    for name in ("subscribe", "publish"):
        method = getattr(Link, name)

        async def recorded(self, what, *, method=method, **how):
            await method(self, what, **how)
            done.append(what if isinstance(what, str) else what.topic)

        monkeypatch.setattr(Link, name, recorded)
    app = await agent("kitchen")
    await anna.phase("kitchen")
    done.clear()
    broker.kill()
    app.door._outbox.put(Outbound("waits", b""))
    broker.start()
    await eventually(lambda: app.door.connected.is_set() and TOPICS.presence("kitchen", "state") in done)
    assert done.index(TOPICS.shared()) < done.index("waits") < done.index(TOPICS.presence("kitchen", "state"))


async def test_a_node_that_does_not_join_serves_only_its_own_name(agent, anna):
    await agent("kitchen", pool={"join": False})
    await anna.phase("kitchen")
    unheard = await anna.ask("hello")
    await anna.answer(await anna.ask("hello", to="kitchen"))
    assert anna.replies(unheard) == []


async def test_two_groups_both_answer_and_a_client_keeps_the_first(agent, anna):
    await agent("kitchen", pool={"group": "one"}, engine={"write_tps": 50})
    await agent("hall", pool={"group": "two"}, engine={"write_tps": 50})
    for node in ("kitchen", "hall"):
        await anna.phase(node)
    rid = await anna.ask(LONG, stream=True, edge={"ack": True})
    await anna.until(lambda: {reply.node for reply in anna.replies(rid)} == {"kitchen", "hall"})
    await anna.cancel(rid, b'{"keep": "hall"}')
    await anna.until(lambda: (state := anna.state("kitchen")) and state.queued + state.running == 0)
    await anna.cancel(rid)
    last = await anna.final(rid)
    assert (last.node, last.error().code.name) == ("hall", "cancelled")


async def test_on_a_broker_that_does_not_share_a_node_is_alone_and_still_serves(agent, anna, monkeypatch):
    """Some brokers take a `$share` filter literally: nothing is ever published there."""
    granted = Link._granted

    async def literally(self, pattern, **how):
        return await granted(self, pattern.replace("$share/", "literally/"), **how)

    monkeypatch.setattr(Link, "_granted", literally)
    monkeypatch.setattr("edge_agent.broker._PROBE_S", 0.2)
    await agent("kitchen")
    assert (await anna.phase("kitchen")).pool == "alone"
    assert (await anna.final(await anna.ask("hello"))).kind == "final"


async def test_on_a_broker_that_refuses_to_share_a_node_is_alone_and_still_serves(agent, anna, monkeypatch):
    granted = Link._granted

    async def refusing(self, pattern, **how):
        return not pattern.startswith("$share/") and await granted(self, pattern, **how)

    monkeypatch.setattr(Link, "_granted", refusing)
    await agent("kitchen")
    assert (await anna.phase("kitchen")).pool == "alone"
    assert (await anna.final(await anna.ask("hello"))).kind == "final"
