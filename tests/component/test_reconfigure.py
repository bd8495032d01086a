from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry as dr
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.edge_agent.const import CONF_NODE, CONF_ROOT, DOMAIN
from tests.component.home import entry_of, set_up
from tests.component.node import Node

ATTIC = {CONF_ROOT: "edge_agent", CONF_NODE: "attic"}


@pytest.mark.usefixtures("brief")
async def test_an_entry_moves_to_another_node_with_all_that_hangs_on_it(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    node.online()
    cellar = Node(hass, mqtt_mock, "cellar")
    cellar.online(info=replace(cellar.info, model="qwen2.5-1.5b"))
    entry = await set_up(hass)
    devices = dr.async_get(hass)
    before = devices.async_get_device_by_identifier((DOMAIN, "edge_agent/attic"), entry.entry_id)

    result = await entry.start_reconfigure_flow(hass)
    assert (result["type"], result["step_id"]) == (FlowResultType.FORM, "reconfigure")
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {**ATTIC, CONF_NODE: "cellar"})
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    await hass.async_block_till_done()

    assert (entry.title, entry.unique_id, entry.data[CONF_NODE]) == ("cellar", "edge_agent/cellar", "cellar")
    assert entry.state is ConfigEntryState.LOADED
    after = devices.async_get_device_by_identifier((DOMAIN, "edge_agent/cellar"), entry.entry_id)
    assert after.id == before.id
    assert (after.name, after.model) == ("cellar", "qwen2.5-1.5b")
    assert hass.states.get("sensor.attic_model").state == "qwen2.5-1.5b"


@pytest.mark.usefixtures("brief")
async def test_a_title_that_a_person_gave_survives_the_move(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    node.online()
    Node(hass, mqtt_mock, "cellar").online()
    entry = await set_up(hass)
    hass.config_entries.async_update_entry(entry, title="The big one")
    await hass.async_block_till_done()
    result = await entry.start_reconfigure_flow(hass)
    await hass.config_entries.flow.async_configure(result["flow_id"], {**ATTIC, CONF_NODE: "cellar"})
    await hass.async_block_till_done()
    assert entry.title == "The big one"


@pytest.mark.usefixtures("brief", "node")
async def test_an_entry_that_was_never_loaded_moves_too(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> None:
    entry = entry_of("attic")
    entry.add_to_hass(hass)
    Node(hass, mqtt_mock, "cellar").online()
    result = await entry.start_reconfigure_flow(hass)
    result = await hass.config_entries.flow.async_configure(result["flow_id"], {**ATTIC, CONF_NODE: "cellar"})
    assert result["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert entry.title == "cellar"


@pytest.mark.usefixtures("brief")
async def test_an_entry_is_not_moved_to_what_is_taken_wrong_or_absent(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    node.online()
    entry = await set_up(hass)
    entry_of("cellar").add_to_hass(hass)

    async def move(**named: str) -> dict[str, Any]:
        result = await entry.start_reconfigure_flow(hass)
        return await hass.config_entries.flow.async_configure(result["flow_id"], {**ATTIC, **named})

    assert (await move(node="cellar"))["reason"] == "already_configured"
    assert (await move(root="#"))["errors"] == {"root": "invalid_root"}
    absent = await move(node="roof")
    assert absent["errors"] == {"base": "node_not_found"}
    result = await hass.config_entries.flow.async_configure(absent["flow_id"], ATTIC)
    assert result["reason"] == "reconfigure_successful"
    assert entry.data == ATTIC
    await hass.async_block_till_done()
