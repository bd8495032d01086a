"""What a report of a fault needs to know; never what anybody said."""

from dataclasses import asdict
from typing import Any

from homeassistant.components.diagnostics import REDACTED, async_redact_data
from homeassistant.const import CONF_PROMPT, CONF_PROTOCOL, CONF_USERNAME
from homeassistant.core import HomeAssistant

from .connection import mqtt_entry
from .coordinator import EdgeAgentConfigEntry
from .wire import MIN_PROTOCOL, PROTOCOL


async def async_get_config_entry_diagnostics(hass: HomeAssistant, entry: EdgeAgentConfigEntry) -> dict[str, Any]:
    """Return the settings of an entry and the presence of its node, without prompts and names of users."""
    coordinator, broker = entry.runtime_data, mqtt_entry(hass)
    client, view = coordinator.client, coordinator.data
    is_user = broker is not None and broker.data.get(CONF_USERNAME) == client.name
    return {
        "entry": dict(entry.data),
        "subentries": [
            {
                "type": subentry.subentry_type,
                "options": async_redact_data(dict(subentry.data), {CONF_PROMPT}),
            }
            for subentry in entry.subentries.values()
        ],
        "client": {
            "name": REDACTED if is_user else client.name,
            "protocol": {"newest": PROTOCOL, "oldest": MIN_PROTOCOL},
            "connected": client.connected,
            "mqtt": broker.data.get(CONF_PROTOCOL) if broker else None,
        },
        "node": {
            "online": view.online,
            "info": asdict(view.info) if view.info else None,
            "state": asdict(view.state) if view.state else None,
            "refusal": str(view.refusal) if view.refusal else None,
        },
        "counts": {
            "nodes": len(client.nodes),
            "nodes_ready": sum(each.ready for each in client.nodes.values()),
            "entities": len(hass.states.async_entity_ids()),
        },
    }
