from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from homeassistant.components.automation.helpers import async_get_blueprints as automation_blueprints
from homeassistant.components.blueprint.importer import fetch_blueprint_from_url
from homeassistant.components.script.helpers import async_get_blueprints as script_blueprints
from homeassistant.config_entries import ConfigEntry, ConfigFlow
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, ServiceCall
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    MockPlatform,
    async_mock_service,
    mock_config_flow,
    mock_integration,
    mock_platform,
)
from pytest_homeassistant_custom_component.test_util.aiohttp import AiohttpClientMocker

from tests.component.blueprints.stage import ROOT, SITE, Add, Model, Use

RAW = "https://raw.githubusercontent.com/edge-agent/edge-agent/main/blueprints"


@pytest.fixture
def hass_config_dir(hass_tmp_config_dir: str) -> str:
    """Imported blueprints are written to the configuration's folder."""
    return hass_tmp_config_dir


@pytest.fixture
async def use(hass: HomeAssistant, aioclient_mock: AiohttpClientMocker) -> AsyncGenerator[Use]:
    """Import a blueprint as the import dialog does, from its own address, and set up one instance named `it`."""

    async def instantiate(path: str, **inputs: Any) -> None:
        domain, _, name = path.split("/")
        aioclient_mock.get(f"{RAW}/{path}", text=(ROOT / path).read_text(encoding="utf-8"))
        imported = await fetch_blueprint_from_url(hass, f"{SITE}/{path}")
        assert imported.blueprint.validate() is None
        blueprints = automation_blueprints(hass) if domain == "automation" else script_blueprints(hass)
        await blueprints.async_add_blueprint(imported.blueprint, f"edge_agent/{name}")
        # Home Assistant is to read what the import has written, not what it remembers.
        await blueprints.async_reset_cache()
        instance = {"use_blueprint": {"path": f"edge_agent/{name}", "input": inputs}}
        config = {"it": instance} if domain == "script" else [{"id": "it", "alias": "it", **instance}]
        assert await async_setup_component(hass, domain, {domain: config})
        state = hass.states.get(f"{domain}.it")
        assert state is not None
        assert state.state in {"on", "off"}, f"{path} could not be set up: {state}"

    yield instantiate
    if hass.services.has_service("automation", "turn_off"):  # Or its timers outlive the test.
        await hass.services.async_call("automation", "turn_off", {"entity_id": "all"}, blocking=True)


@pytest.fixture
async def add(hass: HomeAssistant) -> Add:
    """Add real entities of a test integration to a platform."""

    async def add_entities(platform: Platform, *entities: Any) -> None:
        async def set_up(
            hass: HomeAssistant, entry: ConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
        ) -> None:
            async_add_entities(entities)

        async def set_up_entry(hass: HomeAssistant, entry: ConfigEntry) -> bool:
            await hass.config_entries.async_forward_entry_setups(entry, [platform])
            return True

        domain = f"test_{platform}"
        mock_integration(hass, MockModule(domain, async_setup_entry=set_up_entry))
        mock_platform(hass, f"{domain}.config_flow", MockPlatform())
        mock_platform(hass, f"{domain}.{platform}", MockPlatform(async_setup_entry=set_up))
        entry = MockConfigEntry(domain=domain)
        entry.add_to_hass(hass)
        with mock_config_flow(domain, ConfigFlow):
            assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()

    return add_entities


@pytest.fixture
async def model(hass: HomeAssistant, add: Add) -> Model:
    """A real AI task entity; it fails until a test gives it answers."""
    assert await async_setup_component(hass, "homeassistant", {})
    entity = Model()
    await add(Platform.AI_TASK, entity)
    return entity


@pytest.fixture
def announced(hass: HomeAssistant) -> list[ServiceCall]:
    """What the satellites were told to say."""
    return async_mock_service(hass, "assist_satellite", "announce")


@pytest.fixture
def spoken(hass: HomeAssistant) -> list[ServiceCall]:
    """What a voice was told to say on media players."""
    return async_mock_service(hass, "tts", "speak")
