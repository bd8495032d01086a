"""Whether a node is on the broker."""

from typing import override

from homeassistant.components.binary_sensor import BinarySensorEntity, BinarySensorEntityDescription
from homeassistant.components.binary_sensor.const import BinarySensorDeviceClass
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import EdgeAgentConfigEntry, NodeCoordinator
from .entity import NodeEntity

PARALLEL_UPDATES = 0

CONNECTIVITY = BinarySensorEntityDescription(
    key="connectivity",
    device_class=BinarySensorDeviceClass.CONNECTIVITY,
    entity_category=EntityCategory.DIAGNOSTIC,
)


async def async_setup_entry(
    hass: HomeAssistant, entry: EdgeAgentConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Set up the connectivity of a node."""
    async_add_entities([NodeConnectivity(entry.runtime_data)])


class NodeConnectivity(NodeEntity, BinarySensorEntity):
    """Off while the node cannot be reached; never unavailable, for that is what it tells."""

    def __init__(self, coordinator: NodeCoordinator) -> None:
        super().__init__(coordinator, CONNECTIVITY.key)
        self.entity_description = CONNECTIVITY

    @property
    @override
    def available(self) -> bool:
        return True

    @property
    @override
    def is_on(self) -> bool:
        return self.coordinator.connected and self.coordinator.data.online
