"""What a node says of itself: how it is, how fast it is, and how much it has to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, override

from homeassistant.components.sensor import SensorDeviceClass, SensorEntity, SensorEntityDescription, SensorStateClass
from homeassistant.const import PERCENTAGE, EntityCategory, UnitOfInformation, UnitOfTime
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .client import NodeView
from .coordinator import EdgeAgentConfigEntry, NodeCoordinator
from .entity import NodeEntity
from .wire import PHASES, State

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class NodeSensorDescription(SensorEntityDescription):
    """A sensor and how it reads the view of a node."""

    entity_category: EntityCategory | None = EntityCategory.DIAGNOSTIC
    value_fn: Callable[[NodeView], str | float | None]
    attributes_fn: Callable[[NodeView], Mapping[str, Any] | None] = lambda _: None


def _measured(key: str, value_fn: Callable[[State], float | None], **more: Any) -> NodeSensorDescription:
    """Describe a number out of the state of a node."""
    return NodeSensorDescription(
        key=key,
        translation_key=key,
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda view: value_fn(view.state) if view.state else None,
        **more,
    )


def _phase(view: NodeView) -> str | None:
    """Return the phase; one of a newer protocol is none of the states that this sensor can have."""
    return view.state.phase if view.state and view.state.phase in PHASES else None


# What changes with every request is disabled at first, but for the two numbers that say how fast the home's model is.
# A speed of zero is one that was not measured yet.
SENSORS: Final = (
    NodeSensorDescription(
        key="phase",
        translation_key="phase",
        device_class=SensorDeviceClass.ENUM,
        options=[*PHASES],
        value_fn=_phase,
        attributes_fn=lambda view: {"why": view.state.why} if view.state else None,
    ),
    NodeSensorDescription(
        key="model", translation_key="model", value_fn=lambda view: view.info.model if view.info else None
    ),
    _measured("write_tps", lambda state: state.write_tps or None, suggested_display_precision=1),
    _measured(
        "first_token",
        lambda state: state.first_token_s or None,
        device_class=SensorDeviceClass.DURATION,
        native_unit_of_measurement=UnitOfTime.SECONDS,
        suggested_display_precision=2,
    ),
    _measured(
        "read_tps",
        lambda state: state.read_tps or None,
        suggested_display_precision=0,
        entity_registry_enabled_default=False,
    ),
    _measured("running", lambda state: state.running, entity_registry_enabled_default=False),
    _measured("queued", lambda state: state.queued, entity_registry_enabled_default=False),
    _measured("room", lambda state: state.room, entity_registry_enabled_default=False),
    _measured(
        "cache_hits",
        lambda state: state.cache_hits * 100,
        native_unit_of_measurement=PERCENTAGE,
        suggested_display_precision=0,
        entity_registry_enabled_default=False,
    ),
    _measured(
        "memory",
        lambda state: state.memory or None,
        device_class=SensorDeviceClass.DATA_SIZE,
        native_unit_of_measurement=UnitOfInformation.BYTES,
        suggested_unit_of_measurement=UnitOfInformation.MEBIBYTES,
        suggested_display_precision=0,
        entity_registry_enabled_default=False,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant, entry: EdgeAgentConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Set up the sensors of a node."""
    async_add_entities(NodeSensor(entry.runtime_data, description) for description in SENSORS)


class NodeSensor(NodeEntity, SensorEntity):
    """One value out of a node's presence; unavailable while the node cannot be reached."""

    entity_description: NodeSensorDescription

    def __init__(self, coordinator: NodeCoordinator, description: NodeSensorDescription) -> None:
        super().__init__(coordinator, description.key)
        self.entity_description = description

    @property
    @override
    def available(self) -> bool:
        return self.coordinator.connected and self.coordinator.data.online

    @property
    @override
    def native_value(self) -> str | float | None:
        return self.entity_description.value_fn(self.coordinator.data)

    @property
    @override
    def extra_state_attributes(self) -> Mapping[str, Any] | None:
        return self.entity_description.attributes_fn(self.coordinator.data)
