"""Set up by the bench, without a question."""

from typing import Any

from homeassistant.config_entries import ConfigFlow, ConfigFlowResult


class WatchFlow(ConfigFlow, domain="watch"):
    """The one step."""

    async def async_step_user(self, _: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Create the entry."""
        return self.async_create_entry(title="Watch", data={})
