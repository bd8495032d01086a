from __future__ import annotations

from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er

from tests.component.home import disconnect, reconnect, set_up
from tests.component.node import Node

CONNECTIVITY = "binary_sensor.attic_connectivity"


async def test_connectivity_follows_the_node_and_stays_available(hass: HomeAssistant, node: Node) -> None:
    await set_up(hass)
    assert hass.states.get(CONNECTIVITY).state == "off"
    node.online(phase="loading")
    await hass.async_block_till_done()
    assert hass.states.get(CONNECTIVITY).state == "on"
    node.offline()
    await hass.async_block_till_done()
    assert hass.states.get(CONNECTIVITY).state == "off"


async def test_connectivity_is_off_without_the_broker(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    disconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get(CONNECTIVITY).state == "off"
    reconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get(CONNECTIVITY).state == "on"


async def test_connectivity_is_a_diagnostic_of_its_class(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    assert hass.states.get(CONNECTIVITY).attributes["device_class"] == "connectivity"
    assert er.async_get(hass).async_get(CONNECTIVITY).entity_category == "diagnostic"
