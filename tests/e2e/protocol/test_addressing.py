"""Topics and properties: who is asked, where the answer goes and what it carries, on MQTT 5 and on 3.1.1."""

import pytest

from edge_agent.wire import Topics, decode_reply

TOPICS = Topics()
PROTOCOLS = ["5", "3.1.1"]


@pytest.fixture
async def anna(agent, wire):
    await agent("kitchen")
    client = await wire("anna")
    await client.phase("kitchen")
    return client


async def served(client, rid: str) -> str:
    return (await client.final(rid)).body["choices"][0]["message"]["content"]


@pytest.mark.parametrize("ours", PROTOCOLS)
@pytest.mark.parametrize("theirs", PROTOCOLS)
async def test_every_pair_of_protocol_versions_understands_each_other(agent, wire, ours, theirs):
    await agent("kitchen", broker={"protocol": ours})
    client = await wire("anna", protocol=theirs)
    await client.phase("kitchen")
    for target in ("any", "kitchen"):
        rid = await client.ask("hello", to=target, stream=True, edge={"ack": True})
        assert await served(client, rid) == "hello"
        assert client.replies(rid)[0].kind == "accepted"
    cancelled = await client.ask("never", to="hall")
    await client.cancel(cancelled)


async def test_a_request_to_another_node_is_not_ours(anna):
    other = await anna.ask("hello", to="hall")
    await anna.answer(await anna.ask("hello", to="kitchen"))
    assert not anna.replies(other)


async def test_the_answer_carries_what_mqtt_5_can_carry(anna):
    properties = {"CorrelationData": b"\x00corr", "MessageExpiryInterval": 60}
    rid = await anna.ask("hello", stream=True, edge={"ack": True}, properties=properties)
    answer = await anna.answer(rid)
    assert len(anna.out) == len(answer) >= 3
    for message, reply in zip(anna.out, answer, strict=True):
        given = message.properties
        assert given.CorrelationData == b"\x00corr"
        assert given.ContentType == "application/json"
        assert 50 <= given.MessageExpiryInterval <= 60
        assert dict(given.UserProperty) == {
            "kind": reply.kind,
            "seq": str(reply.seq),
            "final": str(reply.final).lower(),
            "node": "kitchen",
        }


async def test_what_is_sent_again_carries_the_same(anna):
    properties = {"CorrelationData": b"corr", "MessageExpiryInterval": 60}
    body = {"messages": [{"role": "user", "content": "hello"}]}
    rid = await anna.send(body, **properties)
    await anna.answer(rid)
    await anna.send(body, rid=rid, **properties)
    await anna.send({"edge": {"op": "resume"}}, rid=rid, **properties)
    await anna.until(lambda: len(anna.out) == 3)
    said = [(dict(each.properties.UserProperty), each.properties.ContentType) for each in anna.out]
    assert said == [({"kind": "final", "seq": "0", "final": "true", "node": "kitchen"}, "application/json")] * 3
    assert all(50 <= each.properties.MessageExpiryInterval <= 60 for each in anna.out)


async def test_a_conflict_is_told_to_who_caused_it(agent, wire):
    await agent("kitchen", engine={"write_tps": 50})
    anna = await wire("anna")
    await anna.phase("kitchen")
    phone, tablet = ({"ResponseTopic": f"edge_agent/v1/out/anna/{name}"} for name in ("phone", "tablet"))
    rid = await anna.ask("word " * 100, stream=True, properties=phone)
    await anna.until(lambda: anna.replies(rid))
    await anna.ask("another", rid=rid, properties=tablet)
    await anna.until(lambda: anna.out[-1].topic.value.endswith("tablet"))
    told = decode_reply(anna.out[-1].payload)
    assert (told.error().code.name, told.seq, told.final) == ("id_conflict", 0, False)
    await anna.cancel(rid)
    answer = [reply for reply in await anna.answer(rid) if reply != told]
    assert [reply.seq for reply in answer] == list(range(len(answer)))


async def test_a_text_answer_says_that_it_is_text(anna):
    await anna.send("hello", CorrelationData=b"1")
    await anna.until(lambda: anna.out)
    assert anna.out[0].properties.ContentType == "text/plain"


async def test_an_answer_goes_to_a_response_topic_below_the_own_one(anna):
    rid = await anna.ask("hello", properties={"ResponseTopic": "edge_agent/v1/out/anna/phone/1"})
    await anna.answer(rid)
    assert anna.out[0].topic.value == "edge_agent/v1/out/anna/phone/1"


@pytest.mark.parametrize(
    "topic",
    [
        "edge_agent/v1/out/ben",
        "edge_agent/v1/out/annabel/x",
        "edge_agent/v1/node/kitchen/status",
        "homeassistant/light/x/set",
        "edge_agent/v1/out",
    ],
)
async def test_an_answer_never_goes_to_a_foreign_topic(anna, wire, topic):
    watcher = await wire("watcher")
    await watcher.watch(topic)
    rid = await anna.ask("hello", properties={"ResponseTopic": topic})
    assert await served(anna, rid) == "hello"
    assert anna.out[0].topic.value == "edge_agent/v1/out/anna"
    assert watcher.out == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_retained_messages_are_never_carried_out(agent, wire, protocol):
    client = await wire("anna")
    stale, order = "stale", '{"op": "shutdown"}'
    for target in ("any", "kitchen"):
        await client.publish(TOPICS.request(target, "anna", stale), "a ghost", retain=True)
    await client.publish(TOPICS.cancel("anna", "next"), retain=True)
    await client.publish(TOPICS.admin("kitchen", "anna", stale), order, retain=True)
    await agent("kitchen", broker={"protocol": protocol}, admin={"clients": ["anna"]})
    await client.phase("kitchen")
    rid = await client.ask("hello", rid="next")
    assert await served(client, rid) == "hello"
    assert len(client.out) == 1


async def test_a_request_sent_retained_while_we_listen_is_ignored_too(anna):
    await anna.send("a ghost", to="kitchen", retain=True)
    await anna.answer(await anna.ask("hello"))
    assert len(anna.out) == 1


@pytest.mark.parametrize("name", ["ann a", "än", "x" * 65, "a$b", ""])
async def test_a_name_that_is_no_topic_segment_is_not_served(anna, name):
    await anna.watch("edge_agent/v1/out/#")
    await anna.publish(f"edge_agent/v1/req/kitchen/{name}/r1", "hello")
    await anna.publish(f"edge_agent/v1/req/kitchen/anna/{name}", "hello")
    rid = await anna.ask("hello")
    await anna.answer(rid)
    assert {reply.rid for reply in anna.replies(rid)} == {rid}
    assert {message.topic.value for message in anna.out} == {"edge_agent/v1/out/anna"}


async def test_another_root_is_another_world(agent, wire):
    await agent("kitchen", broker={"root": "home/llm"})
    await agent("hall")
    client = await wire("anna")
    await client.phase("hall")
    assert not client.online("kitchen")
    await client.watch("home/llm/v1/out/anna")
    await client.publish("home/llm/v1/req/kitchen/anna/r1", "there")
    await client.answer(await client.ask("here", to="hall"))
    await client.until(lambda: len(client.out) == 2)
    there = next(message for message in client.out if message.topic.value == "home/llm/v1/out/anna")
    assert there.payload == b"there"
