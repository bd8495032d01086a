"""A small house, and tools grounded in it as `ground` would: for tests that need no Home Assistant."""

from __future__ import annotations

from typing import Any, Final

from custom_components.edge_agent.house.model import House, Thing
from custom_components.edge_agent.house.repair import arguments

HOUSE: Final = House(
    things=(
        Thing("light.bedroom_lamp", "Bedroom Lamp", ("night lamp",), "light", "Bedroom", "Upstairs"),
        Thing("light.counter", "Counter Light", (), "light", "Kitchen", "Ground Floor"),
        Thing("light.lamp_1", "Desk Lamp 1", (), "light", "Office", "Upstairs"),
        Thing("light.lamp_2", "Desk Lamp 2", (), "light", "Office", "Upstairs"),
        Thing("cover.garage", "Garage Door", (), "cover", "Garage", None, "garage"),
        Thing("light.kitchen_ceiling", "Kitchen Ceiling", ("big light",), "light", "Kitchen", "Ground Floor"),
        Thing("cover.blind_left", "Left Blind", (), "cover", "Living Room", "Ground Floor", "blind"),
        Thing("light.living", "Living Room Lamp", (), "light", "Living Room", "Ground Floor"),
        Thing("light.reading_bed", "Reading", (), "light", "Bedroom", "Upstairs"),
        Thing("light.reading_living", "Reading", (), "light", "Living Room", "Ground Floor"),
        Thing("cover.blind_right", "Right Blind", (), "cover", "Living Room", "Ground Floor", "blind"),
        Thing("lock.front", "Haustür", ("Front Door",), "lock", "Hallway", "Ground Floor"),
        Thing("light.nursery", "L'étoile", (), "light", "Nursery", "Upstairs"),
        Thing("media_player.tv", "TV", (), "media_player", "Living Room", "Ground Floor", "tv"),
    ),
    areas={
        "Bedroom": (),
        "Garage": (),
        "Hallway": (),
        "Kitchen": ("cooking corner",),
        "Living Room": ("lounge",),
        "Nursery": (),
        "Office": (),
    },
    floors={"Ground Floor": ("downstairs",), "Upstairs": ()},
)


def names(*domains: str) -> dict[str, Any]:
    listed = {name for thing in HOUSE.things if not domains or thing.domain in domains for name in thing.names}
    return {"type": "string", "enum": sorted(listed)}


DEFS: Final = {
    "names": names(),
    "names_light": names("light"),
    "areas": {"type": "string", "enum": sorted([*HOUSE.areas, "cooking corner", "lounge"])},
    "floors": {"type": "string", "enum": ["Ground Floor", "Upstairs", "downstairs"]},
    "domains": {"type": "string", "enum": ["cover", "light", "lock", "media_player"]},
    "device_classes": {"type": "string", "enum": ["blind", "garage", "tv"]},
    "colors": {"type": "string", "enum": ["blue", "darkblue", "red"]},
}  # fmt: skip
PLACED: Final = {"area": {"$ref": "#/$defs/areas"}, "floor": {"$ref": "#/$defs/floors"}}
TURN_ON: Final = {
    "type": "object",
    "properties": {
        "name": {"$ref": "#/$defs/names"},
        **PLACED,
        "domain": {"type": "array", "items": {"$ref": "#/$defs/domains"}},
        "device_class": {"type": "array", "items": {"$ref": "#/$defs/device_classes"}},
    },
}
LIGHT_SET: Final = {
    "type": "object",
    "properties": {
        "name": {"$ref": "#/$defs/names_light"},
        **PLACED,
        "color": {"$ref": "#/$defs/colors"},
        "temperature": {"type": "integer", "minimum": 0},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 100},
    },
}
VOLUME: Final = {
    "type": "object",
    "properties": {
        "volume_step": {"anyOf": [{"type": "string", "enum": ["up", "down"]},
                                  {"type": "integer", "minimum": -100, "maximum": 100}]},
    },
    "required": ["volume_step"],
}  # fmt: skip
TIMER: Final = {
    "type": "object",
    "properties": {
        "minutes": {"type": "integer", "minimum": 0},
        "seconds": {"type": "integer", "minimum": 0},
        "name": {"type": "string"},
    },
}
SCRIPT: Final = {
    "type": "object",
    "properties": {
        "loud": {"type": "boolean"},
        "mode": {"type": "string", "enum": ["eco mode", "Comfort"]},
        "degrees": {"type": "number", "minimum": 5, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "string"}},
        "person": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]},
        "text": {"type": "string"},
    },
    "required": ["tags"],
}
SCHEMAS: Final = {"on": TURN_ON, "light": LIGHT_SET, "volume": VOLUME, "timer": TIMER, "script": SCRIPT}


def repaired(tool: str, given: Any, area: str | None = None) -> dict[str, Any]:
    return arguments(SCHEMAS[tool], given, HOUSE, defs=DEFS, area=area)
