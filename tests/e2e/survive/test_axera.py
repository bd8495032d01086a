"""A node on an AXERA card, as far as it can tell: the whole way over MQTT, what ends an answer, and every break."""

import json

import psutil
import pytest

from edge_agent.client import ulid
from edge_agent.wire import Topics

TOPICS = Topics()
RESET = "reset the card or reboot the host"


@pytest.fixture
async def kitchen(agent, wire, card):
    """A node whose engine is the stand-in's card, a client, and what it takes to be one."""

    async def start(*, speed: float = 200, runtime=(), **sections):
        options = card.options(speed=speed)
        engine = {"name": "axera", "options": options, "stall_s": 5, **dict(runtime)}
        admin = {"clients": ["anna"]}
        app = await agent("kitchen", runtime=engine, model=options["model"], admin=admin, **sections)
        client = await wire("anna")
        await client.phase("kitchen")
        return app, client

    return start


def content(reply) -> str:
    return reply.body["choices"][0]["message"]["content"]


async def reload(client, app) -> None:
    order = json.dumps({"op": "reload", "boot": app.boot})
    await client.publish(TOPICS.admin("kitchen", "anna", ulid()), order)


@pytest.mark.parametrize("question", ["q", "What is\n\n2+2?\nq\n>> ", "日本 🙂 <|im_end|> é\r\n"])
async def test_a_question_comes_back_whole_and_in_pieces_whatever_it_says(kitchen, question):
    _, client = await kitchen()
    for stream in (False, True):
        rid = await client.ask(question, stream=stream)
        final = await client.final(rid)
        assert (content(final), final.body["choices"][0]["finish_reason"]) == (question, "stop")
        deltas = [reply.body["choices"][0]["delta"] for reply in client.replies(rid) if reply.kind == "chunk"]
        assert "".join(delta.get("content", "") for delta in deltas) == (question if stream else "")
        assert final.body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_the_card_is_described_and_its_speed_known_before_anybody_asks(kitchen, eventually):
    app, client = await kitchen()
    await eventually(lambda: client.state("kitchen").read_tps)
    info = json.loads(client.presence["kitchen", "info"][-1])
    assert (info["engine"], info["context"]) == ("axera", 1024)
    assert info["capabilities"]["parallel"] == 1
    assert not info["capabilities"]["prefix_cache"]
    assert client.state("kitchen").memory > psutil.Process(app.supervisor.loaded.engine._console.pid).memory_info().rss


async def test_a_stop_string_max_tokens_and_sampling(kitchen):
    _, client = await kitchen()
    final = await client.final(await client.ask("one two STOP three", stop=["STOP"], temperature=0.3, seed=7))
    assert (content(final), final.body["choices"][0]["finish_reason"]) == ("one two ", "stop")
    assert set(final.extra["ignored"]) == {"temperature", "seed"}
    final = await client.final(await client.ask("one two three four five six", max_tokens=4))
    assert final.body["choices"][0]["finish_reason"] == "length"
    assert final.body["usage"]["completion_tokens"] == 4


async def test_a_cancelled_answer_ends_and_the_next_is_its_own(kitchen):
    _, client = await kitchen(speed=20)
    for _ in range(3):
        rid = await client.ask("word " * 100, stream=True)
        await client.until(lambda rid=rid: any(reply.kind == "chunk" for reply in client.replies(rid)))
        await client.cancel(rid)
        assert await client.code(rid) == "cancelled"
        assert content(await client.final(await client.ask("next"))) == "next"


async def test_an_overlong_conversation_is_refused_with_numbers(kitchen):
    _, client = await kitchen()
    error = (await client.final(await client.ask("word " * 2000))).error()
    assert error.code.name == "context_overflow"
    assert error.details["limit_tokens"] == 1023


async def test_what_cannot_be_read_before_the_deadline_is_refused_at_once(kitchen, eventually):
    app, client = await kitchen(speed=5)
    await eventually(lambda: app.scheduler.meter.read_tps)
    rid = await client.ask("word " * 900, edge={"timeout_s": 5})
    assert await client.code(rid) == "expired"
    assert content(await client.final(await client.ask("ok"))) == "ok"


async def test_a_crash_fails_what_ran_and_the_next_program_serves_what_waited(kitchen, card):
    app, client = await kitchen(speed=50)
    pid = app.supervisor.loaded.engine._console.pid
    card.script({"when": "write", "at": 20, "do": "crash", "once": "crash"})
    running = await client.ask("word " * 60, stream=True)
    waiting = await client.ask("patient")
    assert await client.code(running) == "engine_failed"
    assert content(await client.final(waiting)) == "patient"
    assert app.supervisor.loaded.engine._console.pid != pid
    assert (app.supervisor.restarts, client.presence["kitchen", "status"]) == (1, [b"online"])


async def test_a_crash_before_the_first_word_is_never_seen(kitchen, card):
    app, client = await kitchen()
    card.script({"when": "read", "at": 5, "do": "crash", "once": "crash"})
    assert content(await client.final(await client.ask("hello", stream=True))) == "hello"
    assert app.supervisor.restarts == 1


async def test_a_dead_card_is_told_with_its_remedy_and_left_alone_until_somebody_orders(kitchen, card, eventually):
    app, client = await kitchen(speed=50)
    card.script({"when": "write", "at": 20, "do": "lines", "preset": "dead", "raw": True})
    rid = await client.ask("word " * 60, stream=True)
    error = (await client.final(rid)).error()
    assert error.code.name == "engine_failed"
    assert RESET in error.message
    state = await client.phase("kitchen", "failed")
    assert RESET in state.why
    assert app.supervisor.restarts == 0
    assert await client.code(await client.ask("hello", to="kitchen")) == "unavailable"
    card.script()  # Somebody has reset it.
    await reload(client, app)
    await eventually(lambda: app.supervisor.loaded)
    await client.phase("kitchen")
    assert content(await client.final(await client.ask("hello again"))) == "hello again"


async def test_a_card_that_dies_while_nobody_asks_is_announced(kitchen, card):
    _, client = await kitchen()
    card.script({"when": "idle", "do": "lines", "preset": "dead"})
    assert RESET in (await client.phase("kitchen", "failed")).why


async def test_a_wedged_card_at_the_start_is_no_loop(agent, wire, card):
    card.script({"when": "start", "at": 3, "do": "fail", "error": "set_device"})
    options = card.options()
    app = await agent("kitchen", runtime={"name": "axera", "options": options}, model=options["model"])
    client = await wire("anna")
    assert RESET in (await client.phase("kitchen", "failed")).why
    assert app.supervisor.restarts == 0
