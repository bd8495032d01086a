"""Presence: who the node is and how it does, said once a second at most, and never untrue for long."""

import asyncio
from dataclasses import replace

import pytest

from edge_agent.broker import Inbound
from edge_agent.doors.mqtt.outbox import Outbox
from edge_agent.doors.mqtt.presence import Presence
from edge_agent.errors import NodeNameTaken
from edge_agent.wire import Address, Info, State, Topics, decode_state, encode_presence

MINE = State(boot="b5", phase="ready", room=3)
CARD = Info("kitchen", "1", "m", "echo", "chatml", 4096, {"a": 1}, {"b": 2})


class Node:
    """A presence, and what it has said so far."""

    def __init__(self) -> None:
        self.state, self.card = MINE, CARD
        self.outbox = Outbox()
        self.presence = Presence("kitchen", Topics(), self.outbox, lambda: (self.state, self.card))
        self.task = None

    def said(self, kind: str) -> list[bytes]:
        return [each.payload for each in self.outbox._waiting if each.topic.endswith(f"kitchen/{kind}")]

    async def connect(self) -> None:
        if self.task:
            self.task.cancel()
        self.task = asyncio.create_task(self.presence.run())
        await asyncio.sleep(0)

    def hears(self, kind: str, payload: bytes | State, *, node: str = "kitchen", retained: bool = False) -> None:
        data = encode_presence(payload) if isinstance(payload, State) else payload
        self.presence.heard(Address(kind, node), Inbound("", data, retained, None))


@pytest.fixture
async def node():
    made = Node()
    await made.connect()
    yield made
    made.task.cancel()


async def test_a_node_says_who_it_is_and_that_it_is_there_retained(node):
    assert [each.topic.rpartition("/")[2] for each in node.outbox._waiting] == ["info", "state", "status"]
    assert all(each.retain for each in node.outbox._waiting)
    assert node.said("status") == [b"online"]


async def test_changes_are_said_once_a_second_at_most_the_latest_last(node):
    for room in range(100):
        node.state = replace(MINE, room=room)
        node.presence.changed()
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    told = [decode_state(each).room for each in node.said("state")]
    assert 5 <= len(told) <= 7
    assert told[-1] == 99


async def test_what_did_not_change_is_not_said_again(node):
    for _ in range(5):
        node.presence.changed()
        await asyncio.sleep(2)
    assert (len(node.said("state")), len(node.said("info"))) == (1, 1)


async def test_the_card_is_said_when_it_is_known_and_again_when_it_changes():
    node = Node()
    node.card = None
    await node.connect()
    assert node.said("info") == []
    for context in (1, 2):
        node.card = replace(CARD, context=context)
        node.presence.changed()
        await asyncio.sleep(2)
    assert len(node.said("info")) == 2
    node.task.cancel()


async def test_every_connection_says_everything_again(node):
    await node.connect()
    assert [len(node.said(kind)) for kind in ("info", "state", "status")] == [2, 2, 2]


async def test_goodbye_is_the_last_word_also_over_a_new_connection(node):
    node.presence.goodbye()
    assert node.said("status")[-1] == b"offline"
    await node.connect()
    assert node.said("status")[-1] == b"offline"


async def test_a_last_will_that_comes_late_is_corrected(node):
    node.hears("state", MINE)
    node.hears("status", b"offline")
    assert node.said("status") == [b"online", b"online"]


async def test_our_own_goodbye_is_not_corrected(node):
    node.hears("state", MINE)
    node.presence.goodbye()
    node.hears("status", b"offline")
    assert node.said("status")[-1] == b"offline"


async def test_what_a_predecessor_left_is_no_other_agent(node):
    for boot in ("a0", "c9"):
        node.hears("state", replace(MINE, boot=boot), retained=True)
    node.hears("state", MINE)


async def test_of_two_agents_with_one_name_the_younger_gives_way(node):
    node.hears("state", MINE)
    with pytest.raises(NodeNameTaken, match="another agent calls itself kitchen"):
        node.hears("state", replace(MINE, boot="b4"))


async def test_a_broker_that_restores_an_old_state_once_is_no_other_agent(node):
    node.hears("state", MINE)
    node.hears("state", replace(MINE, boot="b4"), retained=True)
    await asyncio.sleep(61)
    node.hears("state", replace(MINE, boot="b4"), retained=True)
    await asyncio.sleep(1)
    with pytest.raises(NodeNameTaken):
        node.hears("state", replace(MINE, boot="b4"), retained=True)


async def test_and_the_older_stays(node, caplog):
    node.hears("state", MINE)
    node.hears("state", replace(MINE, boot="b6"), retained=True)
    assert "another agent may use our node name" in caplog.text


async def test_only_a_ready_node_that_is_online_and_has_room_can_take_over(node):
    other = State(boot="x", phase="ready", room=1)
    assert not node.presence.others_have_room
    node.hears("state", other, node="hall")
    assert node.presence.others_have_room
    for worse in (replace(other, room=0), replace(other, phase="draining")):
        node.hears("state", worse, node="hall")
        assert not node.presence.others_have_room
    node.hears("state", other, node="hall")
    node.hears("status", b"offline", node="hall")
    assert not node.presence.others_have_room
    node.hears("status", b"online", node="hall")
    assert node.presence.others_have_room
    node.hears("state", b"", node="hall")
    assert not node.presence.others_have_room


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"boot": 1}'])
async def test_a_state_that_cannot_be_read_hurts_nobody(node, payload):
    for name in ("kitchen", "hall"):
        node.hears("state", payload, node=name)
    assert not node.presence.others_have_room
