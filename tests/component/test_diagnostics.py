from __future__ import annotations

from dataclasses import asdict

import pytest
from homeassistant.components.diagnostics import REDACTED
from homeassistant.core import HomeAssistant

from custom_components.edge_agent.diagnostics import async_get_config_entry_diagnostics
from custom_components.edge_agent.wire import dumps
from tests.component.home import set_up
from tests.component.node import Node

SECRET = "The alarm code is 4711."


async def test_diagnostics_have_the_node_and_the_settings_but_no_prompt(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass, options={"prompt": SECRET, "target": "any"})
    found = await async_get_config_entry_diagnostics(hass, entry)
    assert found["entry"] == {"root": "edge_agent", "node": "attic"}
    assert found["subentries"][0] == {
        "type": "conversation",
        "options": {"llm_hass_api": ["assist"], "prompt": REDACTED, "target": "any"},
    }
    assert found["node"] == {
        "online": True,
        "info": asdict(node.info),
        "state": asdict(node.state),
        "refusal": None,
    }
    assert found["client"]["name"] == entry.runtime_data.client.name
    assert found["client"]["mqtt"] == "5"
    assert (found["counts"]["nodes"], found["counts"]["nodes_ready"]) == (1, 1)
    assert SECRET not in dumps(found).decode()


@pytest.mark.parametrize(
    "mqtt_config_entry_data",
    [{"broker": "mock-broker", "protocol": "3.1.1", "username": "grandma", "password": "s3cret"}],
)
async def test_the_name_of_a_user_and_the_password_stay_home(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    assert entry.runtime_data.client.name == "grandma"
    found = await async_get_config_entry_diagnostics(hass, entry)
    assert found["client"]["name"] == REDACTED
    text = dumps(found).decode()
    assert "grandma" not in text
    assert "s3cret" not in text


async def test_a_node_that_never_came_has_diagnostics_too(hass: HomeAssistant, node: Node) -> None:
    entry = await set_up(hass)
    found = await async_get_config_entry_diagnostics(hass, entry)
    assert found["node"] == {"online": False, "info": None, "state": None, "refusal": None}


async def test_why_a_card_is_refused_is_told(hass: HomeAssistant, node: Node) -> None:
    node.online()
    node.card(b"{}")
    entry = await set_up(hass)
    found = await async_get_config_entry_diagnostics(hass, entry)
    assert found["node"]["refusal"].startswith("bad_json")
