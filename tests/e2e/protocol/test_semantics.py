"""Idempotence, resume, cancel, deadlines, admission: what a request may count on."""

import asyncio

import pytest

from edge_agent.client import ulid

TEN = "a b c d e f g h i j"
LONG = "word " * 400


@pytest.fixture
async def node(agent):
    return await agent("kitchen", engine={"write_tps": 50, "parallel": 1}, backlog={"size": 2, "per_client": 1})


@pytest.fixture
async def anna(node, wire):
    client = await wire("anna")
    await client.phase(node.config.node)
    return client


async def chunked(client, rid: str, count: int = 1) -> None:
    await client.until(lambda: sum(reply.kind == "chunk" for reply in client.replies(rid)) >= count)


async def test_a_finished_duplicate_gets_the_same_bytes_again(anna):
    rid = await anna.ask(TEN, stream=True)
    await anna.answer(rid)
    before = len(anna.out)
    await anna.ask(TEN, rid=rid, stream=True)
    await anna.until(lambda: len(anna.out) > before)
    assert anna.out[-1].payload == anna.out[before - 1].payload
    assert len(anna.out) == before + 1


async def test_a_running_duplicate_gets_the_latest_status_and_is_not_run_twice(anna):
    rid = await anna.ask(TEN, stream=True, edge={"ack": True})
    await chunked(anna, rid)
    await anna.ask(TEN, rid=rid, stream=True, edge={"ack": True})
    answer = await anna.answer(rid)
    assert [reply.seq for reply in answer if reply.kind == "accepted"] == [0, 0]
    assert sum(reply.final for reply in answer) == 1


async def test_a_running_duplicate_that_asked_for_one_message_gets_nothing_more(anna):
    rid = await anna.ask(TEN)
    await anna.ask(TEN, rid=rid)
    await anna.answer(rid)
    marker = await anna.ask("done")
    await anna.answer(marker)
    assert len(anna.replies(rid)) == 1


async def test_the_same_id_with_another_payload_is_a_conflict_and_the_first_goes_on(anna):
    rid = await anna.ask(TEN, stream=True)
    await chunked(anna, rid)
    await anna.ask("something else", rid=rid)
    await anna.send(b"{broken", rid=rid)
    answer = await anna.answer(rid)
    conflicts = [reply for reply in answer if reply.kind == "error"]
    assert [reply.error().code.name for reply in conflicts] == ["id_conflict"] * 2
    assert not any(reply.final for reply in conflicts)
    assert answer[-1].body["choices"][0]["message"]["content"] == TEN
    assert [reply.seq for reply in answer] == list(range(len(answer)))


async def test_a_refusal_that_may_be_tried_again_is_not_stored(anna, wire):
    running = await anna.ask(LONG, stream=True)
    await chunked(anna, running)
    await anna.ask("waits")
    rid = await anna.ask("one too many")
    assert await anna.code(rid) == "rate_limited"
    assert (await anna.final(rid)).error().retry_after_s >= 1.0
    ben, cleo = await wire("ben"), await wire("cleo")
    await ben.ask("waits too")
    await ben.ask("is refused")
    refused = await cleo.ask("busy")
    assert await cleo.code(refused) == "busy"
    await anna.cancel(running)
    await cleo.until(lambda: (state := cleo.state("kitchen")) and not state.running)
    await cleo.ask("busy", rid=refused)
    await cleo.until(lambda: any(reply.kind == "final" for reply in cleo.replies(refused)))


async def test_a_running_answer_is_resumed_from_the_number_seen(anna):
    rid = await anna.ask(LONG, stream=True, edge={"flush_ms": 0})
    await chunked(anna, rid, 5)
    boot = anna.replies(rid)[0].boot
    anna.out.clear()
    await anna.send({"edge": {"op": "resume", "boot": boot, "seq": 2}}, rid=rid, to="kitchen")
    await anna.until(lambda: any(reply.seq == 3 for reply in anna.replies(rid)))
    await anna.cancel(rid)
    answer = await anna.answer(rid)
    assert {reply.seq for reply in answer} >= set(range(3, answer[-1].seq + 1))
    assert not {reply.seq for reply in answer} & {0, 1, 2}


async def test_a_finished_answer_is_resumed_by_its_final(anna):
    rid = await anna.ask(TEN, stream=True)
    final = await anna.final(rid)
    before = anna.out[-1].payload
    for edge in ({"op": "resume", "boot": final.boot, "seq": -1}, {"op": "resume", "seq": 99}):
        count = len(anna.out)
        await anna.send({"edge": edge}, rid=rid, to="kitchen")
        await anna.until(lambda count=count: len(anna.out) > count)
        assert anna.out[-1].payload == before


async def test_what_is_unknown_or_of_another_boot_has_expired(anna):
    rid = await anna.send({"edge": {"op": "resume"}}, to="kitchen")
    assert await anna.code(rid) == "expired"
    rid = await anna.ask(TEN)
    await anna.answer(rid)
    anna.out.clear()
    await anna.send({"edge": {"op": "resume", "boot": "another"}}, rid=rid, to="kitchen")
    assert await anna.code(rid) == "expired"


async def test_cancelling_a_running_answer_stops_the_engine(anna, node):
    rid = await anna.ask(LONG, stream=True)
    await chunked(anna, rid)
    await anna.cancel(rid)
    assert await anna.code(rid) == "cancelled"
    assert node.scheduler.running == 0
    before = len(anna.out)
    await anna.cancel(rid)
    await anna.answer(await anna.ask("after"))
    assert len(anna.out) == before + 1


async def test_cancelling_what_waits_ends_it(anna):
    running = await anna.ask(LONG, stream=True)
    await chunked(anna, running)
    waiting = await anna.ask("never")
    await anna.cancel(waiting)
    assert await anna.code(waiting) == "cancelled"
    await anna.cancel(running)
    await anna.answer(running)


async def test_a_cancel_may_come_before_its_request(anna):
    rid = ulid()
    await anna.cancel(rid)
    await anna.ask(TEN, rid=rid)
    assert await anna.code(rid) == "cancelled"
    first = anna.out[-1].payload
    await anna.ask(TEN, rid=rid)
    await anna.until(lambda: len(anna.out) == 2)
    assert anna.out[-1].payload == first


async def test_a_cancel_that_keeps_another_node_silences_this_one(anna, node):
    rid = await anna.ask(LONG, stream=True)
    await chunked(anna, rid)
    await anna.cancel(rid, b'{"keep": "hall"}')
    await anna.until(lambda: (state := anna.state("kitchen")) and not state.running)
    marker = await anna.ask("after")
    await anna.answer(marker)
    assert not any(reply.final for reply in anna.replies(rid))
    assert node.scheduler.running == 0


async def test_a_cancel_that_keeps_this_node_changes_nothing(anna):
    rid = await anna.ask(TEN, stream=True)
    await anna.cancel(rid, b'{"keep": "kitchen"}')
    assert (await anna.final(rid)).body["choices"][0]["message"]["content"] == TEN


async def test_a_request_whose_node_was_not_kept_before_it_came_is_met_with_silence(anna):
    rid = ulid()
    await anna.cancel(rid, b'{"keep": "hall"}')
    await anna.ask(TEN, rid=rid)
    await anna.answer(await anna.ask("after"))
    assert anna.replies(rid) == []


async def test_nobody_can_cancel_for_another(anna, wire):
    ben = await wire("ben")
    rid = await anna.ask(TEN, stream=True)
    await ben.cancel(rid)
    assert (await anna.final(rid)).kind == "final"


@pytest.mark.parametrize("by", ["timeout_s", "message expiry", "the node's limit"])
async def test_the_soonest_deadline_ends_an_answer(agent, wire, by):
    await agent("kitchen", engine={"write_tps": 20}, limits={"timeout_s": 1 if "node" in by else 60})
    client = await wire("anna")
    await client.phase("kitchen")
    body = {"edge": {"timeout_s": 1 if by == "timeout_s" else None}}
    expiry = {"MessageExpiryInterval": 1} if by == "message expiry" else None
    rid = await client.ask(LONG, stream=True, properties=expiry, **body)  # It would take 20 s, the next deadline is 60.
    assert await client.code(rid) == "expired"
    assert any(reply.kind == "chunk" for reply in client.replies(rid))


async def test_voice_goes_before_what_waits(anna, wire):
    running = await anna.ask(LONG, stream=True)
    await chunked(anna, running)
    ben, cleo = await wire("ben"), await wire("cleo")
    normal = await ben.ask("normal", edge={"ack": True})
    await ben.until(lambda: ben.replies(normal))
    voice = await cleo.ask("voice", edge={"priority": "voice", "ack": True})
    await cleo.until(lambda: cleo.replies(voice))
    assert (ben.replies(normal)[0].body["position"], cleo.replies(voice)[0].body["position"]) == (1, 1)
    await ben.until(lambda: any(reply.kind == "queued" for reply in ben.replies(normal)))
    assert ben.replies(normal)[1].body["position"] == 2
    await anna.cancel(running)
    await asyncio.gather(anna.answer(running), ben.answer(normal), cleo.answer(voice))


async def test_prepare_yields_to_a_chat(agent, wire):
    await agent("kitchen", engine={"parallel": 1, "read_tps": 100, "block": 20})
    client = await wire("anna")
    await client.phase("kitchen")
    prepared = await client.ask("word " * 150, edge={"op": "prepare"})
    await client.until(lambda: client.state("kitchen").running)
    chat = await client.ask("quick")
    await client.answer(chat)
    assert not client.replies(prepared)
    assert (await client.final(prepared)).body["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
