"""What an answer looks like: its kinds, its numbers, its one end."""

import asyncio
import json


async def test_text_in_text_out(agent, wire):
    await agent("kitchen")
    client = await wire("anna")
    await client.phase("kitchen")
    await client.send("hello there")
    await client.until(lambda: client.out)
    assert [message.payload for message in client.out] == [b"hello there"]


async def test_without_stream_an_answer_is_exactly_one_message(agent, broker, wire):
    await agent("kitchen")
    await (await wire()).phase("kitchen")
    process = await asyncio.create_subprocess_exec(
        *("mosquitto_rr", "-V", "5", "-p", str(broker.port), "-q", "1", "-W", "10"),
        *("-t", "edge_agent/v1/req/any/anna/r1", "-e", "edge_agent/v1/out/anna"),
        *("-m", json.dumps({"messages": [{"role": "user", "content": "one two three"}]})),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    reply = json.loads(said)
    assert process.returncode == 0
    assert (reply["object"], reply["edge"]["seq"], reply["edge"]["final"]) == ("chat.completion", 0, True)
    assert reply["choices"][0]["message"]["content"] == "one two three"
