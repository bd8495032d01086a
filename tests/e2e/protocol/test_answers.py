"""What an answer looks like: its kinds, its numbers, its one end."""

import asyncio
import json

import pytest

TEN = "a b c d e f g h i j"


@pytest.fixture
async def anna(agent, wire):
    """A client of a ready agent that writes fifty tokens a second."""
    await agent("kitchen", engine={"write_tps": 50})
    client = await wire("anna")
    await client.phase("kitchen")
    return client


async def test_text_in_text_out(anna):
    await anna.send("hello there")
    await anna.until(lambda: anna.out)
    assert [message.payload for message in anna.out] == [b"hello there"]


async def test_text_that_cannot_be_served_is_refused_in_one_line(anna):
    await anna.send(b"word " * 60000)
    await anna.until(lambda: anna.out)
    assert anna.out[0].payload.startswith(b"error: too_large: ")


async def test_without_stream_an_answer_is_exactly_one_message(anna, broker):
    process = await asyncio.create_subprocess_exec(
        *("mosquitto_rr", "-V", "5", "-p", str(broker.port), "-q", "1", "-W", "10"),
        *("-t", "edge_agent/v1/req/any/ben/r1", "-e", "edge_agent/v1/out/ben"),
        *("-m", json.dumps({"messages": [{"role": "user", "content": "one two three"}]})),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    reply = json.loads(said)
    assert process.returncode == 0
    assert (reply["object"], reply["edge"]["seq"], reply["edge"]["final"]) == ("chat.completion", 0, True)
    assert reply["choices"][0]["message"]["content"] == "one two three"
    rid = await anna.ask("one two three")
    await anna.answer(rid)
    await anna.ask("", to="kitchen", edge={"op": "prepare"})
    assert len(anna.replies(rid)) == 1


async def test_a_stream_is_numbered_without_gaps_and_ends_with_the_whole_text(anna):
    answer = await anna.answer(await anna.ask(TEN, stream=True, edge={"ack": True, "flush_ms": 0}))
    assert [reply.seq for reply in answer] == list(range(len(answer)))
    assert [reply.kind for reply in answer if reply.kind != "progress"] == ["accepted", *["chunk"] * 10, "final"]
    assert [reply.final for reply in answer] == [False] * (len(answer) - 1) + [True]
    assert {(reply.node, reply.boot) for reply in answer} == {("kitchen", answer[0].boot)}
    chunks = [reply.body["choices"][0]["delta"]["content"] for reply in answer if reply.kind == "chunk"]
    last = answer[-1].body
    assert "".join(chunks) == last["choices"][0]["message"]["content"] == TEN
    assert (last["object"], last["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
    assert last["usage"]["completion_tokens"] == 10
    assert answer[-1].extra["timings"]["tokens_per_s"] == pytest.approx(50, rel=0.3)


async def test_chunks_come_while_the_answer_is_being_written(anna):
    rid = await anna.ask("word " * 100, stream=True)
    await anna.until(lambda: any(reply.kind == "chunk" for reply in anna.replies(rid)))
    assert not any(reply.final for reply in anna.replies(rid))
    await anna.cancel(rid)
    await anna.answer(rid)


async def test_statuses_come_with_ack_also_without_stream(anna):
    answer = await anna.answer(await anna.ask("hello", edge={"ack": True}))
    assert (answer[0].kind, answer[0].body["position"], answer[-1].kind) == ("accepted", 0, "final")


async def test_prepare_answers_with_usage_and_makes_the_prompt_resident(anna):
    system = {"role": "system", "content": "You keep a house. " * 30}
    said = [system, {"role": "user", "content": "hello"}]
    prepared = await anna.final(await anna.send({"messages": said, "edge": {"op": "prepare"}}))
    assert prepared.body["usage"]["completion_tokens"] == 0
    final = await anna.final(await anna.send({"messages": said}))
    assert final.body["usage"]["prompt_tokens_details"]["cached_tokens"] > 100


async def test_score_answers_with_the_probability_of_each_choice(anna):
    final = await anna.final(await anna.ask("lights on", edge={"op": "score", "choices": ["on", "off"]}))
    assert [score["choice"] for score in final.extra["scores"]] == ["on", "off"]
    assert sum(score["probability"] for score in final.extra["scores"]) == pytest.approx(1)


async def test_what_was_ignored_is_listed(anna):
    final = await anna.final(await anna.ask("hello", seed=7, temperature=0.1))
    assert set(final.extra["ignored"]) == {"seed", "temperature"}


async def test_definitions_shape_the_answer_and_never_enter_the_prompt(anna):
    schema = {"type": "object", "properties": {"room": {"$ref": "#/$defs/room"}}, "required": ["room"]}
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}}
    sizes = []
    for names in (["hall"], [f"room number {number}" for number in range(200)]):
        edge = {"defs": {"room": {"enum": names}}}
        final = await anna.final(await anna.ask("where?", **body, edge=edge))
        assert json.loads(final.body["choices"][0]["message"]["content"])["room"] in names
        sizes.append(final.body["usage"]["prompt_tokens"])
    assert sizes[0] == sizes[1]


async def test_a_named_template_is_filled_with_data(agent, wire):
    template = {"messages": [{"role": "user", "content": "Say {{ what }}."}]}
    await agent("kitchen", templates={"say": template})
    client = await wire("anna")
    await client.phase("kitchen")
    final = await client.final(await client.send({"edge": {"template": "say", "vars": {"what": "{{ 7 * 7 }}"}}}))
    assert final.body["choices"][0]["message"]["content"] == "Say {{ 7 * 7 }}."
    assert await client.code(await client.send({"edge": {"template": "sing"}})) in (
        "invalid_request",
        "model_not_found",
    )


async def test_limits_of_the_node_bind_every_message(agent, wire):
    await agent("kitchen", limits={"chunk_bytes": 700, "final_bytes": 1500})
    client = await wire("anna")
    await client.phase("kitchen")
    text = "wörter " * 800
    answer = await client.answer(await client.ask(text, stream=True, max_tokens=2000))
    assert max(len(reply.encode()) for reply in answer[:-1]) <= 700
    assert len(answer[-1].encode()) <= 1500
    assert answer[-1].extra["text_omitted"] is True
    cut = await client.final(await client.ask(text, max_tokens=2000))
    assert (cut.extra["truncated"], len(cut.encode()) <= 1500) == (True, True)
