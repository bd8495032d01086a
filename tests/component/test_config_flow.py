from __future__ import annotations

from typing import Any

import pytest
from homeassistant.components import mqtt
from homeassistant.config_entries import SOURCE_IGNORE, SOURCE_MQTT, SOURCE_USER, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_mqtt_message
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.edge_agent import client, config_flow, exchange
from custom_components.edge_agent.const import CONF_NODE, CONF_ROOT, DOMAIN
from custom_components.edge_agent.subentry_flow import CONVERSATION_DEFAULTS, TASK_DEFAULTS
from custom_components.edge_agent.wire import dumps, encode_presence, loads
from tests.component.home import entry_of, set_up
from tests.component.node import Node, error, final

ATTIC = {CONF_ROOT: "edge_agent", CONF_NODE: "attic"}


def found(node: Node, **changes: Any) -> MqttServiceInfo:
    """What MQTT's discovery passes on of a card; `changes` are of this message."""
    given = {
        "topic": node.topics.presence(node.name, "info"),
        "payload": encode_presence(node.info).decode(),
        "qos": 1,
        "retain": True,
        "subscribed_topic": "edge_agent/v1/node/+/info",
        "timestamp": 0.0,
    }
    return MqttServiceInfo(**{**given, **changes})


async def discover(hass: HomeAssistant, info: MqttServiceInfo) -> dict[str, Any]:
    return await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_MQTT}, data=info)


async def by_hand(hass: HomeAssistant, **named: str) -> dict[str, Any]:
    """Start the user's flow, and name a node at once."""
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    assert result["type"] is FlowResultType.FORM
    return await hass.config_entries.flow.async_configure(result["flow_id"], {**ATTIC, **named})


async def test_a_discovered_node_is_confirmed_asked_for_a_token_and_set_up(hass: HomeAssistant, node: Node) -> None:
    node.online()
    result = await discover(hass, found(node))
    assert (result["type"], result["step_id"]) == (FlowResultType.FORM, "discovery_confirm")
    assert result["description_placeholders"]["model"] == "smollm2-135m"
    flow = hass.config_entries.flow.async_progress()[0]
    assert flow["context"]["title_placeholders"] == {"name": "attic", "model": "smollm2-135m"}

    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})

    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert (result["title"], result["data"]) == ("attic", ATTIC)
    assert result["result"].unique_id == "edge_agent/attic"
    [token] = [request for request in node.requests if request.op == "chat"]
    assert token.body["max_tokens"] == 1
    assert token.target == "attic"
    await hass.async_block_till_done()
    assert result["result"].state is ConfigEntryState.LOADED


async def test_an_entry_comes_with_an_agent_and_a_task_entity(hass: HomeAssistant, node: Node) -> None:
    node.online()
    result = await by_hand(hass)
    entry = result["result"]
    kinds = {each.subentry_type: each for each in entry.subentries.values()}
    assert kinds["conversation"].data == CONVERSATION_DEFAULTS
    assert kinds["ai_task_data"].data == TASK_DEFAULTS
    assert kinds["conversation"].title == "Edge Agent attic"
    await hass.async_block_till_done()
    entities = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    assert {each.domain for each in entities} == {"ai_task", "binary_sensor", "conversation", "sensor"}


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": ""},
        {"payload": "{not json"},
        {"payload": b"\xff"},
        {"payload": '{"node": "attic"}'},
        {"topic": "edge_agent/v1/node/cellar/info"},
        {"topic": "edge_agent/v1/node/any/info"},
        {"topic": "elsewhere"},
    ],
    ids=["cleared", "no json", "no text", "no card", "another's name", "no name", "another topic"],
)
async def test_what_is_no_card_of_a_node_is_no_discovery(
    hass: HomeAssistant, node: Node, changes: dict[str, Any]
) -> None:
    result = await discover(hass, found(node, **changes))
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "invalid_discovery_info")


@pytest.mark.parametrize(
    ("protocols", "reason"),
    [({"min_protocol": 8, "protocol": 9}, "home_old"), ({"min_protocol": 0, "protocol": 0}, "node_old")],
)
async def test_a_card_of_another_protocol_names_the_side_to_update(
    hass: HomeAssistant, node: Node, protocols: dict[str, int], reason: str
) -> None:
    card = dumps({**loads(encode_presence(node.info)), **protocols}).decode()
    result = await discover(hass, found(node, payload=card))
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, reason)
    assert result["description_placeholders"] == {"node": "attic"}


async def test_a_node_is_set_up_once(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    result = await discover(hass, found(node))
    assert result["reason"] == "already_configured"
    assert (await by_hand(hass))["reason"] == "already_configured"


async def test_an_ignored_node_stays_ignored_until_it_is_named(hass: HomeAssistant, node: Node) -> None:
    node.online()
    MockConfigEntry(domain=DOMAIN, unique_id="edge_agent/attic", source=SOURCE_IGNORE).add_to_hass(hass)
    assert (await discover(hass, found(node)))["reason"] == "already_configured"
    assert (await by_hand(hass))["type"] is FlowResultType.CREATE_ENTRY


async def test_the_second_discovery_of_a_node_is_the_first(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await discover(hass, found(node))
    assert (await discover(hass, found(node)))["reason"] == "already_in_progress"


@pytest.mark.usefixtures("discovery", "node")
async def test_mqtt_discovers_a_node_by_its_card(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await hass.async_block_till_done(wait_background_tasks=True)
    [flow] = hass.config_entries.flow.async_progress_by_handler(DOMAIN)
    assert flow["context"]["source"] == SOURCE_MQTT
    assert flow["step_id"] == "discovery_confirm"


async def test_a_discovered_node_that_does_not_answer_can_be_tried_again(hass: HomeAssistant, node: Node) -> None:
    node.online(phase="loading", why="reading the model")
    result = await discover(hass, found(node))
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    assert (result["step_id"], result["errors"]) == ("discovery_confirm", {"base": "node_loading"})
    node.change(phase="ready")
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {})
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_the_form_offers_the_nodes_that_nobody_uses_yet(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    node.online()
    Node(hass, mqtt_mock, "cellar").online()
    entry_of("attic").add_to_hass(hass)
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    [selector] = [select for key, select in result["data_schema"].schema.items() if key == CONF_NODE]
    assert selector.config["options"] == ["cellar"]
    assert selector.config["custom_value"]


@pytest.mark.usefixtures("brief", "node")
async def test_a_root_of_ones_own_is_taken_as_it_is_typed(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> None:
    Node(hass, mqtt_mock, root="home/llm").online()
    result = await by_hand(hass, root=" home/llm/ ", node=" attic ")
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"] == {CONF_ROOT: "home/llm", CONF_NODE: "attic"}
    assert result["result"].unique_id == "home/llm/attic"


@pytest.mark.usefixtures("brief", "node")
@pytest.mark.parametrize(
    ("named", "errors"),
    [
        ({"root": "a//b"}, {"root": "invalid_root"}),
        ({"root": "home/#"}, {"root": "invalid_root"}),
        ({"node": "the attic"}, {"node": "invalid_node"}),
        ({"node": "any"}, {"node": "invalid_node"}),
        ({"root": "+", "node": ""}, {"root": "invalid_root", "node": "invalid_node"}),
        ({"node": "cellar"}, {"base": "node_not_found"}),
    ],
)
async def test_what_cannot_be_a_node_is_said_beside_the_field(
    hass: HomeAssistant, named: dict[str, str], errors: dict[str, str]
) -> None:
    result = await by_hand(hass, **named)
    assert (result["step_id"], result["errors"]) == ("user", errors)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("state", "problem", "words"),
    [
        ({"phase": "loading", "why": "reading the model"}, "node_loading", "reading the model"),
        ({"phase": "draining"}, "node_loading", ""),
        ({"phase": "failed", "why": "no such model"}, "node_failed", "no such model"),
        ({"phase": "dreaming"}, "node_loading", ""),
    ],
)
async def test_a_node_that_is_not_ready_says_why(
    hass: HomeAssistant, node: Node, state: dict[str, str], problem: str, words: str
) -> None:
    node.online(**state)
    result = await by_hand(hass)
    assert result["errors"] == {"base": problem}
    assert result["description_placeholders"] == {"node": "attic", "message": words}
    assert not node.requests
    node.change(phase="ready")
    result = await hass.config_entries.flow.async_configure(result["flow_id"], ATTIC)
    assert result["type"] is FlowResultType.CREATE_ENTRY


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("busy", "node_busy"),
        ("rate_limited", "node_busy"),
        ("draining", "node_loading"),
        ("unavailable", "node_silent"),
        ("expired", "node_silent"),
        ("forbidden", "forbidden"),
        ("engine_failed", "node_failed"),
        ("unsupported", "node_failed"),
    ],
)
async def test_a_node_that_refuses_is_quoted(hass: HomeAssistant, node: Node, code: str, problem: str) -> None:
    node.online()
    node.on(lambda _: [error(code, "its own words")])
    result = await by_hand(hass)
    assert result["errors"] == {"base": problem}
    assert result["description_placeholders"]["message"] == "its own words"
    node.on(lambda _: [final("Hi")])
    result = await hass.config_entries.flow.async_configure(result["flow_id"], ATTIC)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_a_node_that_never_answers_is_silent(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "FIRST_REPLY_S", 0.01)
    monkeypatch.setattr(exchange, "ATTEMPTS", 1)
    node.online()
    node.on(lambda _: ())
    assert (await by_hand(hass))["errors"] == {"base": "node_silent"}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ({"min_protocol": 8, "protocol": 9}, "home_old"),
        ({"min_protocol": 0, "protocol": 0}, "node_old"),
        ({"context": "large"}, "node_failed"),
    ],
)
async def test_a_named_node_with_a_card_of_another_protocol_is_not_asked(
    hass: HomeAssistant, node: Node, card: dict[str, Any], problem: str
) -> None:
    node.online()
    node.card(dumps({**loads(encode_presence(node.info)), **card}))
    assert (await by_hand(hass))["errors"] == {"base": problem}
    assert not node.requests


@pytest.mark.usefixtures("brief")
async def test_a_node_without_a_state_is_starting(hass: HomeAssistant, node: Node) -> None:
    node.online()
    async_fire_mqtt_message(hass, node.topics.presence("attic", "state"), b"")
    node._retained[node.topics.presence("attic", "state")] = b""
    assert (await by_hand(hass))["errors"] == {"base": "node_loading"}


async def test_a_fault_of_ours_leaves_the_form_open(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    node.online()
    with monkeypatch.context() as patch:
        patch.setattr(client.Client, "complete", broken)
        result = await by_hand(hass)
    assert result["errors"] == {"base": "unknown"}
    assert "Asking the node attic for a token failed" in caplog.text
    result = await hass.config_entries.flow.async_configure(result["flow_id"], ATTIC)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_without_the_mqtt_integration_the_flow_links_to_it(hass: HomeAssistant) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "mqtt_missing")
    assert result["description_placeholders"] == {"url": "/config/integrations/dashboard/add?domain=mqtt"}


async def test_a_broker_that_is_not_there_is_an_error_that_can_be_mended(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    node.online()
    [entry] = hass.config_entries.async_entries(mqtt.DOMAIN)
    await hass.config_entries.async_unload(entry.entry_id)
    result = await by_hand(hass)
    assert result["errors"] == {"base": "cannot_connect"}
    await hass.config_entries.async_setup(entry.entry_id)
    result = await hass.config_entries.flow.async_configure(result["flow_id"], ATTIC)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_the_flow_gives_the_connection_back(hass: HomeAssistant, node: Node) -> None:
    node.online(phase="loading")
    result = await by_hand(hass)
    assert result["errors"] == {"base": "node_loading"}
    assert not hass.data["edge_agent_connections"]


async def test_presence_that_is_on_its_way_is_waited_for_and_no_longer(hass: HomeAssistant, node: Node) -> None:
    entry = await set_up(hass)
    asking = entry.runtime_data.client
    settling = hass.async_create_task(config_flow._settle(asking, "attic"), eager_start=True)
    node.online()
    await settling
    assert config_flow._seen(asking.nodes["attic"])
