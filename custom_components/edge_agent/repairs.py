"""Repairs: an entry whose node is gone can be removed from where that is said."""

from typing import Any, override

from homeassistant.components.repairs import ConfirmRepairFlow, RepairsFlow
from homeassistant.components.repairs.models import RepairsFlowResult
from homeassistant.core import HomeAssistant


class RemoveNodeFlow(ConfirmRepairFlow):
    """Removes the entry of a node once that is confirmed."""

    def __init__(self, entry_id: str) -> None:
        self._entry_id = entry_id

    @override
    async def async_step_confirm(self, user_input: dict[str, str] | None = None) -> RepairsFlowResult:
        if user_input is not None and self.hass.config_entries.async_get_entry(self._entry_id):
            await self.hass.config_entries.async_remove(self._entry_id)
        return await super().async_step_confirm(user_input)


async def async_create_fix_flow(hass: HomeAssistant, issue_id: str, data: dict[str, Any] | None) -> RepairsFlow:
    """Return the flow of an issue; all that can be fixed here are fixed by removing an entry."""
    return RemoveNodeFlow((data or {}).get("entry_id", ""))
