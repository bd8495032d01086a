"""Many at once, and far too much: everything has an end, and the agent stays small."""

import asyncio
import json

from edge_agent.wire import Topics

TOPICS = Topics()
WORDS = [f"w{number}" for number in range(20)]


async def test_two_hundred_clients_at_once_each_get_a_whole_and_ordered_answer(process, wire):
    await process("kitchen", engine={"parallel": 16}, backlog={"size": 300})
    watcher = await wire()
    await watcher.phase("kitchen")
    clients = await asyncio.gather(*(wire(f"client-{number}", presence=False) for number in range(200)))
    texts = [" ".join([client.name, *WORDS]) for client in clients]

    async def ask(client, text: str) -> None:
        answer = await client.answer(await client.ask(text, stream=True, edge={"flush_ms": 0}), patience_s=60)
        assert [reply.seq for reply in answer] == list(range(len(answer)))
        chunks = [reply.body["choices"][0]["delta"]["content"] for reply in answer if reply.kind == "chunk"]
        assert "".join(chunks) == text
        assert (len(client.out), answer[-1].final) == (len(answer), True)

    await asyncio.gather(*map(ask, clients, texts))
    await watcher.until(lambda: not watcher.state("kitchen").running)


async def test_of_far_too_many_requests_each_gets_an_answer_or_a_reason(process, wire):
    limits = {"size": 8, "per_client": 4}
    await process("kitchen", engine={"parallel": 1, "write_tps": 200}, backlog=limits)
    clients = [await wire(f"client-{number}") for number in range(5)]
    await clients[0].phase("kitchen")
    asked = [(client, await client.ask("a b c")) for _ in range(20) for client in clients]
    ends = [await client.final(rid) for client, rid in asked]
    codes = ["final" if end.kind == "final" else end.error().code.name for end in ends]
    assert {"final", "busy"} <= set(codes) <= {"final", "busy", "rate_limited"}
    assert all(end.kind == "final" or end.error().retry_after_s >= 1 for end in ends)
    assert all(len(client.replies(rid)) == 1 for client, rid in asked)
    assert (await clients[0].final(await clients[0].ask("after"))).kind == "final"


async def test_a_flood_leaves_the_agent_small_and_serving(process, wire):
    kitchen = await process("kitchen")
    client = await wire("anna")
    await client.phase("kitchen")
    await client.answer(await client.ask("hello"))
    before = kitchen.memory
    big = json.dumps({"messages": [{"role": "user", "content": "x" * 200_000}], "temperature": "hot"})
    for number in range(400):
        name = f"flood-{number % 40}"
        await client.publish(TOPICS.request("kitchen", name, f"r{number}"), big if number % 4 else "word " * 9000)
        await client.publish(TOPICS.cancel(name, f"unknown-{number}"))
    async with asyncio.timeout(30):
        while not await served(client):  # What comes while too much waits is dropped: clients ask again.
            pass
    assert kitchen.memory - before < 96 << 20


async def served(client) -> bool:
    try:
        return (await client.answer(await client.ask("after"), patience_s=1))[-1].kind == "final"
    except TimeoutError:
        return False
