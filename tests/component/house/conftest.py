"""A home with something of every kind that Assist can act on, read through Home Assistant's own registries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.components.intent import async_register_timer_handler
from homeassistant.core import HomeAssistant
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import floor_registry as fr
from homeassistant.helpers import llm
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry

DOMAINS: Final = (
    "assist_satellite",
    "button",
    "calendar",
    "climate",
    "cover",
    "fan",
    "humidifier",
    "input_boolean",
    "lawn_mower",
    "light",
    "lock",
    "media_player",
    "scene",
    "script",
    "sensor",
    "switch",
    "todo",
    "vacuum",
    "valve",
)
"""All that an Assist API of Home Assistant has tools for, and some that it only reads."""


@dataclass(frozen=True)
class Furnished:
    """One thing of the home below, as its registries shall show it."""

    entity_id: str
    name: str
    area: str | None = None
    aliases: tuple[str, ...] = ()
    device_class: str | None = None
    features: int = 0


FURNITURE: Final = (
    Furnished("light.kitchen_ceiling", "Kitchen Ceiling", "Kitchen", ("big light",)),
    Furnished("light.kitchen_counter", "Counter Light", "Kitchen"),
    Furnished("light.bedroom_lamp", "Bedroom Lamp", "Bedroom", ("night lamp",)),
    Furnished("switch.coffee_machine", "Coffee Machine", "Kitchen", device_class="outlet"),
    Furnished("cover.living_room_blind", "Living Room Blind", "Living Room", device_class="blind"),
    Furnished("cover.garage_door", "Garage Door", "Garage", device_class="garage"),
    Furnished("valve.garden_water", "Garden Water", None, device_class="water"),
    Furnished("lock.front_door", "Front Door", "Hallway"),
    Furnished("climate.living_room", "Thermostat", "Living Room", features=1),
    Furnished("fan.bedroom", "Bedroom Fan", "Bedroom", features=1),
    Furnished("humidifier.bedroom", "Humidifier", "Bedroom"),
    Furnished("media_player.tv", "TV", "Living Room", ("telly",), features=(1 << 18) | (1 << 9) | (1 << 22) | 0xFFFF),
    Furnished("vacuum.robby", "Robby", "Living Room", features=0xFFFF),
    Furnished("lawn_mower.shaun", "Shaun", None, features=7),
    Furnished("scene.movie_night", "Movie Night", "Living Room"),
    Furnished("script.good_night", "Good Night"),
    Furnished("button.doorbell", "Doorbell", "Hallway"),
    Furnished("input_boolean.guests", "Guest Mode"),
    Furnished("sensor.kitchen_temperature", "Kitchen Temperature", "Kitchen", device_class="temperature"),
    Furnished("todo.shopping", "Shopping List", aliases=("groceries",)),
    Furnished("calendar.family", "Family"),
    Furnished("assist_satellite.kitchen", "Kitchen Satellite", "Kitchen"),
)
AREAS: Final = {
    "Kitchen": ("Ground Floor", {"cooking corner"}),
    "Living Room": ("Ground Floor", {"lounge"}),
    "Hallway": ("Ground Floor", set[str]()),
    "Bedroom": ("Upstairs", set[str]()),
    "Garage": (None, set[str]()),
    "Attic": ("Upstairs", set[str]()),
}
FLOORS: Final = {"Ground Floor": {"downstairs"}, "Upstairs": {"first floor"}, "Cellar": set[str]()}


@pytest.fixture
def entry(hass: HomeAssistant) -> MockConfigEntry:
    made = MockConfigEntry(domain="demo")
    made.add_to_hass(hass)
    return made


@pytest.fixture
async def home(hass: HomeAssistant, entry: MockConfigEntry) -> HomeAssistant:
    """Home Assistant with the furniture above in its registries, exposed, and every integration that has tools."""
    for domain in ("homeassistant", "conversation", "intent", "llm", *DOMAINS):
        assert await async_setup_component(hass, domain, {"script": {"good_night": {"sequence": []}}}), domain
    await hass.async_block_till_done()
    floors = {name: fr.async_get(hass).async_create(name, aliases=aliases) for name, aliases in FLOORS.items()}
    for name, (floor, aliases) in AREAS.items():
        ar.async_get(hass).async_create(name, aliases=aliases, floor_id=floors[floor].floor_id if floor else None)
    for thing in FURNITURE:
        furnish(hass, entry, thing)
    return hass


def furnish(hass: HomeAssistant, entry: MockConfigEntry, thing: Furnished) -> None:
    """Register, place, show and expose one thing; climate stands in its area through its device alone."""
    registry, areas = er.async_get(hass), ar.async_get(hass)
    domain, object_id = thing.entity_id.split(".")
    area = areas.async_get_area_by_name(thing.area) if thing.area else None
    device = None
    if domain == "climate" and area:
        devices = dr.async_get(hass)
        device = devices.async_get_or_create(config_entry_id=entry.entry_id, identifiers={("demo", thing.entity_id)})
        devices.async_update_device(device.id, area_id=area.id)
    registry.async_get_or_create(
        domain,
        "demo",
        thing.entity_id,
        suggested_object_id=object_id,
        original_name=thing.name,
        original_device_class=thing.device_class,
        supported_features=thing.features,
        device_id=device.id if device else None,
    )
    registry.async_update_entity(
        thing.entity_id,
        name=thing.name,
        area_id=area.id if area and not device else None,
        aliases=[er.COMPUTED_NAME, *thing.aliases],
    )
    attributes = {"friendly_name": thing.name, "supported_features": thing.features}
    if thing.device_class:
        attributes["device_class"] = thing.device_class
    hass.states.async_set(thing.entity_id, "off", attributes)
    async_expose_entity(hass, "conversation", thing.entity_id, should_expose=True)


@pytest.fixture
async def assist(home: HomeAssistant, entry: MockConfigEntry) -> llm.APIInstance:
    """The real Assist API of the home, as a satellite with timers gets it."""
    devices = dr.async_get(home)
    satellite = devices.async_get_or_create(config_entry_id=entry.entry_id, identifiers={("demo", "satellite")})
    async_register_timer_handler(home, satellite.id, lambda *_: None)
    context = llm.LLMContext(
        platform="edge_agent", context=None, language="en", assistant="conversation", device_id=satellite.id
    )
    return await llm.async_get_api(home, "assist", context)
