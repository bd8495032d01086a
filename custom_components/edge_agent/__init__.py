"""Edge Agent: the home's own language model, as Home Assistant's assistant."""

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.typing import ConfigType

from .connection import connect
from .const import CONF_ROOT, DOMAIN
from .coordinator import EdgeAgentConfigEntry, NodeCoordinator
from .services import async_setup_services

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)
PLATFORMS = (Platform.AI_TASK, Platform.BINARY_SENSOR, Platform.CONVERSATION, Platform.SENSOR)


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Register the actions, which are there whether or not a node is."""
    async_setup_services(hass)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: EdgeAgentConfigEntry) -> bool:
    """Set up a node. It need not be there: its entities say so, and what any node may answer goes on."""
    coordinator = NodeCoordinator(hass, entry, await connect(hass, entry.data[CONF_ROOT]))
    coordinator.start()
    entry.runtime_data = coordinator
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    entry.async_on_unload(entry.add_update_listener(_reload))
    return True


async def async_unload_entry(hass: HomeAssistant, entry: EdgeAgentConfigEntry) -> bool:
    """Unload a node."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def _reload(hass: HomeAssistant, entry: EdgeAgentConfigEntry) -> None:
    await hass.config_entries.async_reload(entry.entry_id)
