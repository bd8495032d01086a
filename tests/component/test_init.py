"""A node set up, watched and let go: its device, its absence, the connection that its entries share."""

import asyncio
import logging
from dataclasses import replace

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_mqtt_message,
    async_fire_time_changed,
)

from custom_components.edge_agent.const import DOMAIN, GONE_AFTER_S
from tests.component.home import AGENT, Live, converse, disconnect, entry_of, reconnect, set_up, spoken, subscribed
from tests.component.node import Node, accepted, chunk, error, final, speak


def chats(node: Node) -> list:
    return [request for request in node.requests if request.op == "chat"]


def node_device(hass: HomeAssistant, entry: MockConfigEntry) -> dr.DeviceEntry:
    return dr.async_get(hass).async_get_device_by_identifier((DOMAIN, "edge_agent/attic"), entry.entry_id)


async def later(hass: HomeAssistant, seconds: float) -> None:
    async_fire_time_changed(hass, dt_util.utcnow() + dt_util.dt.timedelta(seconds=seconds), fire_all=True)
    await hass.async_block_till_done()


async def test_the_device_is_what_the_card_says(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    device = node_device(hass, entry)
    assert (device.name, device.model, device.sw_version) == ("attic", "smollm2-135m", "0.2.0")
    agents = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert {each.name for each in agents if each.via_device_id == device.id} == {"Assistant", "Tasks"}


async def test_a_new_card_updates_the_device(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    node.online(info=replace(node.info, software="0.3.0", model="qwen2.5-1.5b"))
    await hass.async_block_till_done()
    device = node_device(hass, entry)
    assert (device.model, device.sw_version) == ("qwen2.5-1.5b", "0.3.0")


async def test_a_node_need_not_be_there(hass: HomeAssistant, node: Node) -> None:
    await set_up(hass)
    assert hass.states.get(AGENT).state == "unavailable"
    node.online()
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unknown"


async def test_whoever_any_node_may_answer_is_there_while_one_of_them_is(
    hass: HomeAssistant, node: Node, mqtt_mock
) -> None:
    other = Node(hass, mqtt_mock, "cellar")
    node.online()
    other.online()
    await set_up(hass, options={"target": "any", "llm_hass_api": []})
    node.offline()
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unknown"
    assert spoken(await converse(hass, "Hello")) == "OK."
    other.offline()
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unavailable"


async def test_without_mqtt_it_is_tried_again(hass: HomeAssistant) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    entry = entry_of()
    entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state in (ConfigEntryState.SETUP_RETRY, ConfigEntryState.SETUP_ERROR)


async def test_a_broker_that_confirms_nothing_is_tried_again(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    monkeypatch.setattr("custom_components.edge_agent.connection._UP_S", 0.01)
    monkeypatch.setattr(node._paho, "subscribe", lambda *_, **__: (0, 99))
    entry = entry_of()
    entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert subscribed(hass) == set()


async def test_entries_share_one_connection_and_leave_nothing_behind(
    hass: HomeAssistant, node: Node, mqtt_mock
) -> None:
    cellar = Node(hass, mqtt_mock, "cellar")
    node.online()
    cellar.online()
    one = await set_up(hass)
    both = subscribed(hass)
    two = MockConfigEntry(domain=DOMAIN, unique_id="edge_agent/cellar", data={"root": "edge_agent", "node": "cellar"})
    two.add_to_hass(hass)
    await hass.config_entries.async_setup(two.entry_id)
    assert subscribed(hass) == both
    assert len(both) == 2
    await hass.config_entries.async_unload(one.entry_id)
    await hass.async_block_till_done()
    assert subscribed(hass) == both
    await hass.config_entries.async_unload(two.entry_id)
    await hass.async_block_till_done()
    assert subscribed(hass) == set()


async def test_entries_that_start_together_share_one_connection(hass: HomeAssistant, node: Node, mqtt_mock) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    entries = [entry_of(name) for name in ("attic", "cellar")]
    for index, entry in enumerate(entries):
        entry.subentries = {} if index else entry.subentries
        entry.add_to_hass(hass)
    assert await async_setup_component(hass, DOMAIN, {})  # Sets up its entries side by side.
    assert {entry.state for entry in entries} == {ConfigEntryState.LOADED}
    assert entries[0].runtime_data.client is entries[1].runtime_data.client


async def test_a_change_of_a_subentry_reloads_the_entry(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass, options={"llm_hass_api": []})
    subentry = entry.subentries["agent"]
    hass.config_entries.async_update_subentry(entry, subentry, data={"llm_hass_api": [], "max_tokens": 7})
    await hass.async_block_till_done()
    await converse(hass, "Hello")
    assert chats(node)[-1].body["max_tokens"] == 7


async def test_loss_and_return_are_logged_once(
    hass: HomeAssistant, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "custom_components.edge_agent")
    node.online()
    await set_up(hass)
    caplog.clear()
    for _ in range(2):
        node.offline()
    await hass.async_block_till_done()
    lines = [record.message for record in caplog.records if record.name == "custom_components.edge_agent"]
    assert lines == ["Node attic is off the broker"]
    node.online()
    node.change(queued=3)
    await hass.async_block_till_done()
    lines = [record.message for record in caplog.records if record.name == "custom_components.edge_agent"]
    assert lines[1:] == ["Node attic is back"]


async def test_a_node_that_is_gone_for_long_is_worth_a_repair(hass: HomeAssistant, node: Node, issue_registry) -> None:
    node.online()
    entry = await set_up(hass)
    node.offline()
    await hass.async_block_till_done()
    await later(hass, GONE_AFTER_S + 1)
    assert issue_registry.async_get_issue(DOMAIN, f"node_gone_{entry.entry_id}")
    node.online()
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, f"node_gone_{entry.entry_id}") is None


async def test_a_cleared_card_offers_removal(hass: HomeAssistant, node: Node, issue_registry) -> None:
    node.online()
    entry = await set_up(hass)
    node.remove()
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, f"node_removed_{entry.entry_id}").is_fixable
    node.online()
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, f"node_removed_{entry.entry_id}") is None


@pytest.mark.parametrize(("spoken_there", "kind"), [((9, 9), "protocol_home_old"), ((0, 0), "protocol_node_old")])
async def test_another_protocol_says_which_side_to_upgrade(
    hass: HomeAssistant, node: Node, issue_registry, spoken_there, kind
) -> None:
    least, newest = spoken_there
    node.online()
    entry = await set_up(hass)
    node.online(info=replace(node.info, min_protocol=least, protocol=newest))
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, f"{kind}_{entry.entry_id}")
    assert hass.states.get(AGENT).state == "unavailable"
    node.online(info=replace(node.info, min_protocol=1, protocol=1))
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, f"{kind}_{entry.entry_id}") is None


async def test_a_broker_without_users_is_worth_a_repair(hass: HomeAssistant, node: Node, issue_registry) -> None:
    await set_up(hass)
    assert issue_registry.async_get_issue(DOMAIN, "broker_open")
    assert issue_registry.async_get_issue(DOMAIN, "broker_old") is None


@pytest.mark.parametrize("mqtt_config_entry_data", [{"broker": "b", "protocol": "3.1.1", "username": "anna"}])
async def test_a_broker_without_mqtt_5_is_worth_a_repair(hass: HomeAssistant, node: Node, issue_registry) -> None:
    entry = await set_up(hass)
    assert issue_registry.async_get_issue(DOMAIN, "broker_old")
    assert issue_registry.async_get_issue(DOMAIN, "broker_open") is None
    assert entry.runtime_data.client.name == "anna"


# The connection, and what is lost on it


async def test_the_broker_comes_and_goes(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    disconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unavailable"
    reconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unknown"


async def test_a_login_that_was_changed_is_looked_at_at_once(
    hass: HomeAssistant, node: Node, issue_registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(hass)
    assert issue_registry.async_get_issue(DOMAIN, "broker_open")
    login = MockConfigEntry(domain="mqtt", data={"broker": "b", "protocol": "5", "username": "anna"})
    monkeypatch.setattr("custom_components.edge_agent.issues.mqtt_entry", lambda _: login)
    disconnect(hass)
    reconnect(hass)
    await hass.async_block_till_done()
    assert issue_registry.async_get_issue(DOMAIN, "broker_open") is None


async def test_an_answer_survives_a_lost_connection(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"llm_hass_api": []})
    resumed = asyncio.Event()

    def answer(request):
        if request.op == "resume":
            resumed.set()
            return []
        return [accepted(), chunk(content="One ")]

    node.on(answer)
    async with Live(hass) as live:
        result = live.say("Count")
        assert await live.heard() == "One"
        disconnect(hass)
        reconnect(hass)
        await resumed.wait()
        [request] = chats(node)
        node.send(request, chunk(content="two "))
        node.send(request, final("One two three"))
        assert spoken(await result) == "One two three"


async def test_a_node_that_dies_in_mid_answer_is_said(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"llm_hass_api": []})
    node.on(lambda request: [accepted(), chunk(content="One ")] if request.op == "chat" else [])
    async with Live(hass) as live:
        result = live.say("Count")
        assert await live.heard() == "One"
        node.online(boot="boot2")
        assert (await result).response.error_code


async def test_retained_and_foreign_messages_are_let_go(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"llm_hass_api": []})
    topic = node.topics.out(hass.config_entries.async_entries(DOMAIN)[0].runtime_data.client.name)
    for payload in (b"", b"hello", b"\xff\xfe", b"{}"):
        async_fire_mqtt_message(hass, topic, payload, 1, True)
        async_fire_mqtt_message(hass, topic, payload, 1, False)
    await hass.async_block_till_done()
    assert spoken(await converse(hass, "Hello")) == "OK."


async def test_a_request_that_nobody_acknowledged_is_sent_again(hass: HomeAssistant, node: Node, monkeypatch) -> None:
    monkeypatch.setattr("custom_components.edge_agent.exchange.FIRST_REPLY_S", 0.01)
    monkeypatch.setattr("custom_components.edge_agent.exchange.random.uniform", lambda *_: 0.0)
    node.online()
    await set_up(hass, options={"llm_hass_api": []})
    silent = [[], speak("At last.")]
    node.on(lambda _: silent.pop(0))
    assert spoken(await converse(hass, "Hello")) == "At last."
    assert len({request.rid for request in chats(node)}) == 1


async def test_a_refusal_is_not_lost_behind_another_node(hass: HomeAssistant, node: Node, mqtt_mock) -> None:
    cellar = Node(hass, mqtt_mock, "cellar")
    node.online()
    cellar.online()
    await set_up(hass, options={"target": "any", "llm_hass_api": []})
    node.on(lambda _: speak("Here."))
    cellar.on(lambda _: [error("busy")])
    assert spoken(await converse(hass, "Hello")) == "Here."


async def test_another_user_of_the_broker_is_another_client(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.online()
    entry = await set_up(hass, options={"llm_hass_api": []})
    client = entry.runtime_data.client
    assert client.name.startswith("home_assistant-")

    async def anna(_: HomeAssistant) -> str:
        return "anna"

    monkeypatch.setattr("custom_components.edge_agent.connection.client_name", anna)
    disconnect(hass)
    reconnect(hass)
    await hass.async_block_till_done()
    assert client.name == "anna"
    assert "edge_agent/v1/out/anna" in subscribed(hass)
    reconnect(hass)
    await hass.async_block_till_done()
    await converse(hass, "Hello")
    assert chats(node)[-1].client == "anna"


async def test_what_is_still_there_after_the_broker_forgot_is_unknown(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    disconnect(hass)
    node._retained.clear()
    reconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get(AGENT).state == "unavailable"


async def test_issues_go_with_their_entry(hass: HomeAssistant, node: Node, issue_registry) -> None:
    node.on(lambda _: [error("context_overflow", prompt_tokens=4000, limit_tokens=1023)])
    node.online()
    entry = await set_up(hass)
    await converse(hass, "Hello")
    assert {key for _, key in issue_registry.issues} == {"broker_open", "context_too_small_agent"}
    await hass.config_entries.async_remove(entry.entry_id)
    await hass.async_block_till_done()
    assert issue_registry.issues == {}


async def test_time_without_the_broker_is_no_absence_of_the_node(
    hass: HomeAssistant, node: Node, issue_registry
) -> None:
    node.online()
    entry = await set_up(hass)
    disconnect(hass)
    await later(hass, GONE_AFTER_S + 1)
    assert issue_registry.async_get_issue(DOMAIN, f"node_gone_{entry.entry_id}") is None
