from __future__ import annotations

import pytest
from homeassistant.components.mqtt import client as mqtt_client
from homeassistant.components.mqtt import discovery as mqtt_discovery
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.edge_agent import client, config_flow
from tests.component.node import Node


@pytest.fixture(autouse=True)
def _integrations(enable_custom_integrations: None) -> None:
    """Let Home Assistant find the component."""


@pytest.fixture(autouse=True)
def _prompt_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Home Assistant gathers subscriptions for a while; no test has to wait for that."""
    monkeypatch.setattr(mqtt_client, "INITIAL_SUBSCRIBE_COOLDOWN", 0.0)
    monkeypatch.setattr(mqtt_client, "SUBSCRIBE_COOLDOWN", 0.0)
    monkeypatch.setattr(mqtt_client, "UNSUBSCRIBE_COOLDOWN", 0.0)
    monkeypatch.setattr(mqtt_client.MQTT, "_async_start_misc_periodic", lambda _: None)  # It would outlive the test.


@pytest.fixture
def discovery() -> None:
    """Let MQTT discover nodes, which starts a flow for every node that comes online."""


@pytest.fixture(autouse=True)
def _no_discovery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: HomeAssistant) -> dict[str, list[str]]:
        return {}

    if "discovery" not in request.fixturenames:
        monkeypatch.setattr(mqtt_discovery, "async_get_mqtt", nothing)


@pytest.fixture
async def node(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> Node:
    """A node named `attic` that is not online yet; Home Assistant runs what it always runs."""
    assert await async_setup_component(hass, "homeassistant", {})
    return Node(hass, mqtt_mock)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not come, does not come: no flow has to wait for it."""
    monkeypatch.setattr(config_flow, "SETTLE_S", 0.05)
    monkeypatch.setattr(client, "SETTLE_S", 0.0)
