from __future__ import annotations

from dataclasses import replace

import pytest
from homeassistant.components.sensor import SensorEntity
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er

from custom_components.edge_agent.const import DOMAIN
from custom_components.edge_agent.sensor import SENSORS
from tests.component.home import disconnect, reconnect, set_up
from tests.component.node import Node

EVERY_DAY = {"phase", "model", "write_tps", "first_token"}


@pytest.fixture
def all_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every sensor were enabled at first."""
    monkeypatch.setattr(SensorEntity, "entity_registry_enabled_default", True)


def entity_id(hass: HomeAssistant, entry_id: str, key: str) -> str:
    found = er.async_get(hass).async_get_entity_id("sensor", DOMAIN, f"{entry_id}_{key}")
    assert found, key
    return found


@pytest.mark.usefixtures("all_enabled")
async def test_every_sensor_reads_what_the_node_says(hass: HomeAssistant, node: Node) -> None:
    node.online(running=2, queued=1, room=5, why="warm")
    entry = await set_up(hass)
    states = {each.key: hass.states.get(entity_id(hass, entry.entry_id, each.key)) for each in SENSORS}
    assert {key: state.state for key, state in states.items()} == {
        "phase": "ready",
        "model": "smollm2-135m",
        "write_tps": "14.5",
        "first_token": "0.25",
        "read_tps": "210.0",
        "running": "2",
        "queued": "1",
        "room": "5",
        "cache_hits": "90.0",
        "memory": "488.28125",
    }
    assert states["phase"].attributes["why"] == "warm"
    assert states["phase"].attributes["options"] == ["loading", "ready", "draining", "failed"]
    assert states["memory"].attributes["unit_of_measurement"] == "MiB"
    assert states["queued"].attributes["unit_of_measurement"] == "requests"
    assert states["write_tps"].attributes["unit_of_measurement"] == "tokens/s"
    assert states["first_token"].attributes["device_class"] == "duration"


async def test_what_changes_with_every_request_is_disabled_at_first(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    registry = er.async_get(hass)
    entities = {each.key: registry.async_get(entity_id(hass, entry.entry_id, each.key)) for each in SENSORS}
    assert {key for key, entity in entities.items() if not entity.disabled} == EVERY_DAY
    assert {entity.entity_category for entity in entities.values()} == {"diagnostic"}


async def test_sensors_belong_to_the_device_of_the_node(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    device = dr.async_get(hass).async_get_device_by_identifier((DOMAIN, "edge_agent/attic"), entry.entry_id)
    assert er.async_get(hass).async_get("sensor.attic_phase").device_id == device.id
    assert (device.name, device.model, device.model_id, device.sw_version) == (
        "attic",
        "smollm2-135m",
        "openvino",
        "0.2.0",
    )


async def test_a_change_is_pushed(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    node.change(phase="draining", why="an operator's order", write_tps=20.0)
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == "draining"
    assert hass.states.get("sensor.attic_phase").attributes["why"] == "an operator's order"
    assert hass.states.get("sensor.attic_writing_speed").state == "20.0"


async def test_another_model_changes_its_sensor_and_the_device(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    node.online(info=replace(node.info, model="qwen2.5-1.5b", software="0.3.0"))
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_model").state == "qwen2.5-1.5b"
    device = dr.async_get(hass).async_get_device_by_identifier((DOMAIN, "edge_agent/attic"), entry.entry_id)
    assert (device.model, device.sw_version) == ("qwen2.5-1.5b", "0.3.0")


async def test_what_is_not_measured_and_phases_of_the_future_are_unknown(hass: HomeAssistant, node: Node) -> None:
    node.online(phase="dreaming", write_tps=0.0, first_token_s=0.0)
    await set_up(hass)
    for name in ("phase", "writing_speed", "time_to_first_word"):
        assert hass.states.get(f"sensor.attic_{name}").state == STATE_UNKNOWN, name


async def test_sensors_are_unavailable_while_the_node_is_away(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    node.offline()
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == STATE_UNAVAILABLE
    node.online()
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == "ready"


async def test_sensors_are_unavailable_without_the_broker(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    disconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == STATE_UNAVAILABLE
    reconnect(hass)
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == "ready"


async def test_a_node_that_never_came_has_nothing_to_say(hass: HomeAssistant, node: Node) -> None:
    await set_up(hass)
    assert hass.states.get("sensor.attic_phase").state == STATE_UNAVAILABLE
    node.online()
    node.remove()
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_phase").state == STATE_UNAVAILABLE


async def test_a_node_online_before_its_state_is_of_an_unknown_phase(hass: HomeAssistant, node: Node) -> None:
    node._retain("status", b"online")
    await set_up(hass)
    state = hass.states.get("sensor.attic_phase")
    assert state.state == STATE_UNKNOWN
    assert "why" not in state.attributes
