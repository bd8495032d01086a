"""A client without a transport: presence, requests and orders over what a test hands it."""

import asyncio
from contextlib import aclosing

import pytest

from edge_agent.client import MAX_PAYLOAD, SETTLE_S, Client, ulid
from edge_agent.wire import Info, Reply, State, Topics, WireError, dumps, encode_presence, loads

TOPICS = Topics()
INFO = Info("kitchen", "1.0", "m", "echo", "chatml", 4096, {}, {})
BODY = {"messages": [{"role": "user", "content": "hello"}]}


class Wire:
    """The far end: what the client published, and how a node answers."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.client = Client("anna", self.publish)

    async def publish(self, topic: str, payload: bytes) -> None:
        self.sent.put_nowait((topic, payload))

    def present(self, node: str = "kitchen", phase: str = "ready", boot: str = "b1", *, online: bool = True) -> None:
        self.client.heard(TOPICS.presence(node, "state"), encode_presence(State(boot, phase)))
        self.client.heard(TOPICS.presence(node, "status"), b"online" if online else b"offline")

    def answer(self, rid: str, seq: int, kind: str, **body) -> None:
        reply = Reply(rid, seq, kind, "kitchen", "b1", kind in ("final", "error"), body)
        self.client.heard(TOPICS.out("anna"), reply.encode())


@pytest.fixture
async def wire():
    return Wire()


def test_ids_sort_by_time_fit_a_topic_and_are_never_the_same():
    ids = [ulid() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(each) == 26 and each.isalnum() for each in ids)
    assert [each[:10] for each in ids] == sorted(each[:10] for each in ids)


async def test_a_request_goes_to_its_target_and_its_answer_comes_back(wire):
    wire.client.up()
    wire.present()
    task = asyncio.create_task(wire.client.complete(BODY, target="kitchen"))
    topic, payload = await wire.sent.get()
    address = TOPICS.parse(topic)
    assert (address.kind, address.node, address.client) == ("req", "kitchen", "anna")
    assert loads(payload)["edge"] == {"ack": True, "timeout_s": 120.0}
    wire.answer(address.rid, 0, "final", done=1)
    assert (await task).body == {"done": 1}


async def test_presence_on_its_way_is_waited_for(wire):
    wire.client.up()
    task = asyncio.create_task(wire.client.complete(BODY))
    await asyncio.sleep(0)
    wire.present()
    topic, _ = await wire.sent.get()
    wire.answer(TOPICS.parse(topic).rid, 0, "final")
    await task


@pytest.mark.parametrize(
    ("phase", "online", "code"),
    [("loading", True, "unavailable"), ("draining", True, "draining"), ("ready", False, "unavailable")],
)
async def test_nothing_is_sent_when_nobody_can_answer(wire, phase, online, code):
    wire.client.up()
    wire.client._since -= SETTLE_S
    wire.present(phase=phase, online=online)
    with pytest.raises(WireError) as failure:
        await wire.client.complete(BODY)
    assert failure.value.code.name == code
    assert wire.sent.empty()


async def test_an_answer_that_nobody_wants_any_more_is_cancelled(wire):
    wire.present()
    async with aclosing(wire.client.ask(BODY)) as answer:
        first = asyncio.create_task(anext(answer))
        topic, _ = await wire.sent.get()
        wire.answer(rid := TOPICS.parse(topic).rid, 0, "accepted")
        await first
    assert await wire.sent.get() == (TOPICS.cancel("anna", rid), b"")


async def test_everything_under_way_is_cancelled_at_once(wire):
    wire.present()
    tasks = [asyncio.create_task(wire.client.complete(BODY)) for _ in range(3)]
    rids = [TOPICS.parse((await wire.sent.get())[0]).rid for _ in tasks]
    assert await wire.client.cancel_all() == 3
    assert [TOPICS.parse((await wire.sent.get())[0]).rid for _ in tasks] == rids
    for rid in rids:
        wire.answer(rid, 0, "error", error={"code": "cancelled", "message": "stopped"})
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each.code.name for each in done] == ["cancelled"] * 3


async def test_an_order_means_the_boot_that_is_there(wire):
    wire.present(phase="failed", boot="b7")
    task = asyncio.create_task(wire.client.order("kitchen", "reload"))
    topic, payload = await wire.sent.get()
    assert loads(payload) == {"op": "reload", "boot": "b7"}
    wire.answer(TOPICS.parse(topic).rid, 0, "final", done=True)
    assert await task == {"done": True}


async def test_listeners_hear_of_each_change_until_they_leave(wire):
    heard = []
    unlisten = wire.client.listen(heard.append)
    wire.present()
    unlisten()
    wire.present("attic")
    assert heard == ["kitchen", "kitchen"]
    assert wire.client.serves("any")
    assert not wire.client.serves("cellar")


async def test_a_card_of_another_protocol_says_which_side_to_upgrade(wire):
    wire.present()
    card = {**loads(encode_presence(INFO)), "protocol": 9, "min_protocol": 9}
    wire.client.heard(TOPICS.presence("kitchen", "info"), dumps(card))
    view = wire.client.nodes["kitchen"]
    assert view.refusal.code.name == "unsupported_version"
    assert not view.ready
    wire.client.heard(TOPICS.presence("kitchen", "info"), encode_presence(INFO))
    assert wire.client.nodes["kitchen"].ready
    wire.client.heard(TOPICS.presence("kitchen", "info"), b"")
    assert wire.client.nodes["kitchen"].info is None


@pytest.mark.parametrize("payload", [b"", b"hello", b"{}", b"[1]", b"\xff"])
async def test_what_is_not_for_us_is_let_go(wire, payload):
    wire.client.heard(TOPICS.out("anna"), payload)
    wire.client.heard(TOPICS.presence("kitchen", "state"), payload)
    wire.client.heard("other/topic", payload)
    assert not wire.client.serves("any")


async def test_what_presence_said_ends_with_the_connection(wire):
    wire.client.up()
    wire.present()
    wire.client.down()
    assert not wire.client.serves("any")
    wire.client.up()
    wire.present()
    assert wire.client.serves("any")


async def test_an_answer_goes_on_over_a_lost_connection(wire):
    """Presence comes again in any order, and is no news of the node."""
    wire.client.up()
    wire.present()
    task = asyncio.create_task(wire.client.complete(BODY))
    topic, _ = await wire.sent.get()
    rid = TOPICS.parse(topic).rid
    wire.answer(rid, 0, "accepted")
    await asyncio.sleep(0)
    wire.client.down()
    wire.client.up()
    wire.present()
    topic, payload = await wire.sent.get()
    assert loads(payload)["edge"]["op"] == "resume"
    wire.answer(rid, 1, "final", done=1)
    assert (await task).body == {"done": 1}


async def test_a_client_that_stops_cancels_what_runs(wire):
    wire.client.up()
    wire.present()
    task = asyncio.create_task(wire.client.complete(BODY))
    topic, _ = await wire.sent.get()
    wire.client.stop()
    with pytest.raises(WireError):
        await task
    assert await wire.sent.get() == (TOPICS.cancel("anna", TOPICS.parse(topic).rid), b"")


async def test_a_node_that_was_removed_is_forgotten(wire):
    for kind, payload in (("info", encode_presence(INFO)), ("status", b"online"), ("status", b""), ("info", b"")):
        wire.client.heard(TOPICS.presence("kitchen", kind), payload)
    assert wire.client.nodes == {}


async def test_the_card_of_another_node_is_none(wire):
    wire.client.heard(TOPICS.presence("attic", "info"), encode_presence(INFO))
    assert wire.client.nodes["attic"].refusal.param == "node"


async def test_what_is_too_large_is_not_read(wire):
    state = dumps({"boot": "b" * MAX_PAYLOAD, "phase": "ready"})
    wire.client.heard(TOPICS.presence("kitchen", "state"), state)
    assert wire.client.nodes == {}


async def test_changes_are_seen_now_and_after_each(wire):
    async with aclosing(wire.client.changes()) as changes:
        assert await anext(changes) == {}
        wire.present()
        assert (await anext(changes))["kitchen"].ready
