"""What entities have in common: the node's device or one of their own, and availability."""

import time
from collections.abc import Mapping
from typing import Any, override

from homeassistant.components.conversation import ChatLog
from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from . import issues
from .const import CONF_MAX_TOKENS, CONF_TARGET, CONF_TEMPERATURE, DOMAIN, MANUFACTURER, TARGET_ANY, TARGET_NODE
from .coordinator import NodeCoordinator
from .errors import AgentError, wire_errors
from .prompt import Prefix
from .turn import Turn
from .wire import Reply


class NodeEntity(CoordinatorEntity[NodeCoordinator]):
    """An entity that tells something of the node itself."""

    _attr_has_entity_name = True

    def __init__(self, coordinator: NodeCoordinator, key: str) -> None:
        super().__init__(coordinator)
        self._attr_unique_id = f"{coordinator.config_entry.entry_id}_{key}"
        self._attr_device_info = dr.DeviceInfo(identifiers={coordinator.device})


class ModelEntity(Entity):
    """An entity whose work the node's model does. It is a device of its own, and there while its target serves."""

    _attr_has_entity_name = True
    _attr_name = None
    _attr_should_poll = False

    def __init__(self, coordinator: NodeCoordinator, subentry: ConfigSubentry) -> None:
        self.coordinator = coordinator
        self.options: Mapping[str, Any] = subentry.data
        self._subentry = subentry
        self._target: str = self.options.get(CONF_TARGET, TARGET_NODE)
        self._was_available = False
        self._attr_unique_id = subentry.subentry_id
        self._attr_device_info = dr.DeviceInfo(
            identifiers={(DOMAIN, subentry.subentry_id)},
            name=subentry.title,
            manufacturer=MANUFACTURER,
            entry_type=dr.DeviceEntryType.SERVICE,
            via_device_id=coordinator.device_id,
        )

    @property
    def _address(self) -> str:
        return self.coordinator.address(self._target)

    @property
    def _who(self) -> str:
        return self._subentry.title if self._target == TARGET_ANY else self.coordinator.node

    @property
    @override
    def available(self) -> bool:
        return self.coordinator.serves(self._target)

    @override
    async def async_added_to_hass(self) -> None:
        await super().async_added_to_hass()
        self._was_available = self.available
        self.async_on_remove(self.coordinator.async_add_listener(self._presence))

    @callback
    def _presence(self) -> None:
        if self.available != self._was_available:
            self._was_available = self.available
            self.async_write_ha_state()

    async def complete(self, body: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """One request to this entity's target, and its final message; raises `AgentError`."""
        self.ensure_connected()
        with wire_errors(self._who):
            return await self.coordinator.client.complete(body, target=self._address, timeout_s=timeout_s)

    @callback
    def ensure_connected(self) -> None:
        """Raise `AgentError` at once where a request could only wait for the broker."""
        if not self.coordinator.connected:
            raise AgentError("broker_lost")

    def turn(self, chat_log: ChatLog, prefix: Prefix, *, area: str | None, priority: str, timeout_s: float) -> Turn:
        """A turn of this entity's target, with what the user set; raises `AgentError` without the broker."""
        self.ensure_connected()
        sampling: dict[str, Any] = {}
        if tokens := self.options.get(CONF_MAX_TOKENS):
            sampling["max_tokens"] = int(tokens)
        if (temperature := self.options.get(CONF_TEMPERATURE)) is not None:
            sampling["temperature"] = temperature
        return Turn(
            client=self.coordinator.client,
            target=self._address,
            who=self._who,
            agent_id=self.entity_id,
            chat_log=chat_log,
            prefix=prefix,
            area=area,
            sampling=sampling,
            priority=priority,
            deadline=time.monotonic() + timeout_s,
        )

    @callback
    def note(self, error: AgentError | None) -> None:
        """Raise an issue when what the model must read does not fit its context, and take it back when it does."""
        if error is None:
            issues.clear_issue(self.hass, issues.CONTEXT_TOO_SMALL, self._subentry.subentry_id)
        elif error.code == "context_overflow":
            numbers = error.translation_placeholders or {}
            issues.raise_issue(
                self.hass,
                issues.CONTEXT_TOO_SMALL,
                self._subentry.subentry_id,
                **{**numbers, "agent": self._subentry.title},
            )
