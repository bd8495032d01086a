"""Bad input over the real broker: each with its documented error, and the agent serves on."""

import json

import pytest

from edge_agent.wire import WireError

USER = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}


def body(**fields) -> bytes:
    return json.dumps({"messages": USER, **fields}).encode()


def edge(**fields) -> bytes:
    return body(edge=fields)


def tool(parameters) -> bytes:
    return body(tools=[{"type": "function", "function": {"name": "t", "parameters": parameters}}])


def schema(wanted) -> bytes:
    return body(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": wanted}})


TABLE = {
    "broken JSON": (b'{"messages": [', "bad_json", None),
    "JSON not UTF-8": (b'{"messages": "\xff"}', "bad_json", None),
    "nested 10,000 deep": (b'{"a":' * 10000 + b"1" + b"}" * 10000, "bad_json", None),
    "arrays 10,000 deep": (b'{"a":' + b"[" * 10000 + b"]" * 10000 + b"}", "bad_json", None),
    "NaN": (b'{"messages": [], "temperature": NaN}', "bad_json", None),
    "infinity": (b'{"messages": [], "temperature": 1e999}', "bad_json", None),
    "a huge integer": (b'{"messages": [], "seed": ' + b"9" * 10000 + b"}", "bad_json", None),
    "half a surrogate pair": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "bad_json", None),
    "10 MB": (b'{"messages": "' + b"x" * 10_000_000 + b'"}', "too_large", None),
    "nothing": (b"{}", "invalid_request", "messages"),
    "no messages": (body(messages=[]), "invalid_request", "messages"),
    "100,000 messages": (body(messages=USER * 100_000), "too_large", None),
    "messages no list": (body(messages="hello"), "invalid_request", "messages"),
    "a message no object": (body(messages=["hello"]), "invalid_request", "messages[0]"),
    "an unknown role": (body(messages=[{"role": "cat", "content": "x"}]), "invalid_request", "messages[0].role"),
    "content a number": (body(messages=[{"role": "user", "content": 5}]), "invalid_request", "messages[0].content"),
    "stream a word": (body(stream="yes"), "invalid_request", "stream"),
    "max_tokens zero": (body(max_tokens=0), "invalid_request", "max_tokens"),
    "max_tokens a word": (body(max_tokens="many"), "invalid_request", "max_tokens"),
    "temperature a word": (body(temperature="hot"), "invalid_request", "temperature"),
    "temperature negative": (body(temperature=-1), "invalid_request", "temperature"),
    "top_p above one": (body(top_p=2), "invalid_request", "top_p"),
    "seed a list": (body(seed=[1]), "invalid_request", "seed"),
    "stop a number": (body(stop=1), "invalid_request", "stop"),
    "tools no list": (body(tools={}), "invalid_request", "tools"),
    "a tool without a name": (body(tools=[{"type": "function", "function": {}}]), "invalid_request", None),
    "tool_choice unknown": (body(tools=[TOOL], tool_choice="perhaps"), "invalid_request", "tool_choice"),
    "a tool schema that is none": (tool({"type": "objekt"}), "invalid_request", None),
    "a tool schema no object": (tool([1]), "invalid_request", None),
    "a tool schema's lost reference": (tool({"$ref": "#/$defs/none"}), "invalid_request", None),
    "an answer schema that is none": (schema({"type": 5}), "invalid_request", None),
    "a format unknown": (body(response_format={"type": "xml"}), None, "response_format"),
    "several answers": (body(n=2), "unsupported", "n"),
    "an unknown model": (body(model="gpt-9"), "model_not_found", "model"),
    "edge a word": (body(edge="please"), "invalid_request", "edge"),
    "an unknown version": (edge(v=2), "unsupported_version", "edge.v"),
    "an unknown operation": (edge(op="dance"), "unsupported", "edge.op"),
    "an unknown template": (edge(template="none"), "invalid_request", "edge.template"),
    "priority unknown": (edge(priority="mine"), "invalid_request", "edge.priority"),
    "timeout_s zero": (edge(timeout_s=0), "invalid_request", "edge.timeout_s"),
    "timeout_s a word": (edge(timeout_s="soon"), "invalid_request", "edge.timeout_s"),
    "flush_ms negative": (edge(flush_ms=-1), "invalid_request", "edge.flush_ms"),
    "ack a number": (edge(ack=1), "invalid_request", "edge.ack"),
    "choices empty": (edge(op="score", choices=[]), "invalid_request", "edge.choices"),
    "choices absent": (edge(op="score"), "invalid_request", "edge.choices"),
    "defs a list": (edge(defs=[]), "invalid_request", "edge.defs"),
    "vars a list": (edge(vars=[1]), "invalid_request", "edge.vars"),
    "seq a word": (edge(op="resume", seq="all"), "invalid_request", "edge.seq"),
}
TEXTS = {
    "text not UTF-8": (b"\xff\xfe", "bad_json"),
    "empty": (b"", "invalid_request"),
    "blank": (b" \n", "invalid_request"),
    "NUL": (b"a\0b", "invalid_request"),
    "a megabyte of text": (b"word " * 200_000, "too_large"),
}


@pytest.fixture
async def anna(agent, wire):
    await agent("kitchen")
    client = await wire("anna")
    await client.phase("kitchen")
    return client


async def test_every_bad_request_gets_its_documented_error(anna):
    wrong = {}
    for case, (payload, code, param) in TABLE.items():
        error: WireError = (await anna.final(await anna.send(payload))).error()
        if error.code.name != (code or error.code.name) or (param and error.param != param):
            wrong[case] = f"{error.code.name}, param {error.param}: {error.message}"
    assert not wrong
    assert (await anna.final(await anna.ask("still there?"))).kind == "final"


@pytest.mark.parametrize("case", TEXTS)
async def test_every_bad_text_gets_one_line(anna, case):
    payload, code = TEXTS[case]
    await anna.send(payload)
    await anna.until(lambda: anna.out)
    assert anna.out[0].payload.startswith(f"error: {code}: ".encode())
    assert b"\n" not in anna.out[0].payload


async def test_100_000_messages_within_the_limit_of_bytes_are_refused_by_number(agent, wire):
    await agent("kitchen", limits={"request_bytes": 16 << 20})
    client = await wire("anna")
    await client.phase("kitchen")
    error = (await client.final(await client.send(body(messages=USER * 100_000)))).error()
    assert (error.code.name, error.param) == ("invalid_request", "messages")


async def test_a_prompt_that_does_not_fit_says_by_how_much(anna):
    error = (await anna.final(await anna.ask("word " * 5000))).error()
    assert error.code.name == "context_overflow"
    assert error.details["tokens_over"] > 800


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"keep": 5}', b'{"keep": "a b"}', b"\xff"])
async def test_a_cancel_that_cannot_be_read_stops_nothing(anna, payload):
    rid = await anna.ask("hello", rid="r1")
    await anna.cancel(rid, payload)
    assert (await anna.final(rid)).kind == "final"


async def test_what_had_expired_on_arrival_is_not_run(agent, wire):
    await agent("kitchen", engine={"parallel": 1, "write_tps": 20})
    client = await wire("anna")
    await client.phase("kitchen")
    await client.answer(await client.ask("a " * 40))
    running = await client.ask("word " * 100, stream=True)
    waiting = await client.ask("b " * 40)
    late = await client.ask("too late", edge={"timeout_s": 0.5, "ack": True})
    assert await client.code(late) == "expired"
    assert [reply.kind for reply in client.replies(late)] == ["error"]
    for rid in (running, waiting):
        await client.cancel(rid)
        await client.answer(rid)


async def test_every_error_carries_its_type_and_code(anna):
    reply = await anna.final(await anna.send(b"{"))
    assert reply.body["error"] == {
        "message": reply.body["error"]["message"],
        "type": "invalid_request_error",
        "code": "bad_json",
        "param": None,
    }
    assert (reply.kind, reply.final, reply.seq) == ("error", True, 0)
