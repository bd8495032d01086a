"""One node, as Home Assistant sees it: its presence, pushed; its device; what is said when it goes and comes back."""

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Final

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.event import async_call_later
from homeassistant.helpers.typing import UNDEFINED
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator

from . import issues
from .client import Client, NodeView
from .connection import Connection
from .const import CONF_NODE, CONF_ROOT, DOMAIN, GONE_AFTER_S, LOGGER, MANUFACTURER, TARGET_ANY
from .wire import POOL, Info

type EdgeAgentConfigEntry = ConfigEntry[NodeCoordinator]


class NodeCoordinator(DataUpdateCoordinator[NodeView]):
    """The view of one node, kept up to date by what the node publishes; entities listen to it.

    `start` follows the node for as long as its entry is loaded.
    """

    config_entry: EdgeAgentConfigEntry

    def __init__(self, hass: HomeAssistant, entry: EdgeAgentConfigEntry, connection: Connection) -> None:
        self.node: Final[str] = entry.data[CONF_NODE]
        self.root: Final[str] = entry.data[CONF_ROOT]
        super().__init__(hass, LOGGER, config_entry=entry, name=f"node {self.node}")
        self._connection = connection
        self._known = False
        """Whether its card has been seen."""
        self._there: bool | None = None
        self._gone: Callable[[], None] | None = None
        self.data = NodeView(self.node)

    @property
    def client(self) -> Client:
        """Who asks: one client for all nodes of a root."""
        return self._connection.client

    @property
    def connected(self) -> bool:
        """Whether Home Assistant is on the broker."""
        return self.client.connected

    @property
    def device(self) -> tuple[str, str]:
        """The identifier of the node's device."""
        return (DOMAIN, f"{self.root}/{self.node}")

    @cached_property
    def device_id(self) -> str:
        """The node's device in the registry, which is there before the node is."""
        return self._register().id

    def address(self, target: str) -> str:
        """The target of a request as the wire names it: this node, or any."""
        return POOL if target == TARGET_ANY else self.node

    def serves(self, target: str) -> bool:
        """Whether a request to this target would be taken now."""
        return self.connected and self.client.serves(self.address(target))

    @callback
    def start(self) -> None:
        """Follow the node until the entry is unloaded."""
        on_unload = self.config_entry.async_on_unload
        on_unload(self._connection.close)
        on_unload(self.client.listen(lambda _: self._look()))  # Of any node: an entity may stand for the pool.
        on_unload(self._connection.listen(self._reconnected))
        on_unload(self._forget)
        self._reconnected()

    @callback
    def _reconnected(self) -> None:
        issues.check_broker(self.hass)  # Whoever changed the login did it just now.
        self._look()

    @callback
    def _look(self) -> None:
        view = self.client.nodes.get(self.node, NodeView(self.node))
        if view.info is not None and view.info != self.data.info:
            self._describe(view.info)
        if view.info is None and view.refusal is None and self._known and self.connected:
            issues.raise_issue(self.hass, issues.NODE_REMOVED, self.config_entry.entry_id, node=self.node)
        if view.refusal is not self.data.refusal:
            issues.check_protocol(self.hass, self.config_entry.entry_id, self.node, view.refusal)
        self._notice(there=self.connected and view.online)
        self.async_set_updated_data(view)

    @callback
    def _describe(self, info: Info) -> None:
        self._known = True
        issues.clear_issue(self.hass, issues.NODE_REMOVED, self.config_entry.entry_id)
        self._register(info)

    def _register(self, info: Info | None = None) -> dr.DeviceEntry:
        return dr.async_get(self.hass).async_get_or_create(
            config_entry_id=self.config_entry.entry_id,
            identifiers={self.device},
            name=self.node,
            manufacturer=MANUFACTURER,
            model=info.model if info else UNDEFINED,
            model_id=info.engine if info else UNDEFINED,
            sw_version=info.software if info else UNDEFINED,
        )

    @callback
    def _notice(self, *, there: bool) -> None:
        """Say once that the node went, and once that it came back."""
        if there and self._there is False:
            LOGGER.info("Node %s is back", self.node)
        elif self._there and not there:
            where = "is off the broker" if self.connected else "cannot be reached: Home Assistant lost the broker"
            LOGGER.warning("Node %s %s", self.node, where)
        self._there = there
        if there or not self.connected:  # How long it is gone is known only from the broker.
            self._stop_waiting()
        elif self._gone is None:
            self._gone = async_call_later(self.hass, GONE_AFTER_S, self._missed)
        if there:
            issues.clear_issue(self.hass, issues.NODE_GONE, self.config_entry.entry_id)

    @callback
    def _missed(self, _: datetime) -> None:
        entry_id = self.config_entry.entry_id
        issues.raise_issue(self.hass, issues.NODE_GONE, entry_id, node=self.node, hours=GONE_AFTER_S // 3600)

    @callback
    def _stop_waiting(self) -> None:
        if self._gone:
            self._gone()
            self._gone = None

    @callback
    def _forget(self) -> None:
        self._stop_waiting()
        issues.clear_node(self.hass, self.config_entry.entry_id)
        if all(entry is self.config_entry for entry in self.hass.config_entries.async_loaded_entries(DOMAIN)):
            issues.clear_broker(self.hass)
