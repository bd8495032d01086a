"""What a small model got nearly right, made right: the name of a tool, and arguments that name things of the house.

Nothing that was right is changed, and nothing is guessed that could reach more than was asked for.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from . import words
from .fit import Impossible, as_object, fit, is_array, is_blank, resolve
from .model import House
from .target import ROLES, Target

__all__ = ["Impossible", "arguments", "tool_name"]


def tool_name(called: str, known: Collection[str]) -> str | None:
    """The one known tool that a name means: with another prefix or none, in another case, without `Hass`."""
    if called in known:
        return called
    last = called.replace(".", " ").replace(":", " ").replace("/", " ").replace("__", " ").split()[-1:]
    for spelling in (called, *last):
        key = words.squeezed(spelling)
        for form in (words.squeezed, _own_name, lambda name: _own_name(name).removeprefix("hass")):
            found = [name for name in known if key and form(name) == key]
            if found:
                return found[0] if len(found) == 1 else None
    keys = {_own_name(name): name for name in known}
    close = difflib.get_close_matches(words.squeezed("".join(last)), keys, 2, 0.8)
    # Of names as like as on and off, or pause and unpause, none is taken for the other.
    return keys[close[0]] if len(close) == 1 else None


def _own_name(name: str) -> str:
    return words.squeezed(name.rpartition("__")[2])


def arguments(
    parameters: Mapping[str, Any],
    given: Any,
    house: House,
    *,
    defs: Mapping[str, Any] | None = None,
    area: str | None = None,
) -> dict[str, Any]:
    """Arguments for a grounded tool; raises `Impossible`, with words for the model.

    `parameters` and `defs` are as `ground` made them; `area` is where the speaker is, who may have meant what is there.
    """
    defs = {**(defs or {}), **parameters.get("$defs", {})}
    properties: Mapping[str, Any] = parameters.get("properties", {})
    slots = _slots(properties, as_object(given, "the arguments"), parameters)
    roles = {role: slot for slot in properties if (role := _role(properties[slot]))}
    target = {role: slots.pop(slot) for role, slot in roles.items() if slot in slots}
    allowed = {role: _allowed(properties[slot], defs) for role, slot in roles.items()}
    found = Target(house, area, roles, allowed).repaired(target)
    repaired = {slot: fit(value, properties.get(slot, {}), defs, slot) for slot, value in slots.items()}
    repaired |= {roles[role]: value for role, value in found.items()}
    if missing := [slot for slot in parameters.get("required", ()) if slot not in repaired]:
        raise Impossible(f"{' and '.join(missing)} must be given")
    return {slot: repaired[slot] for slot in (*properties, *repaired) if slot in repaired}


# Slots ----------------------------------------------------------------------------------------------------------

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("entity", "entityid", "entityname", "device", "devicename", "target", "friendlyname", "list", "todolist"),
    "area": ("room", "areaname", "areaid", "location", "zone"),
    "floor": ("level", "floorname", "floorid", "storey"),
    "domain": ("domains", "type", "devicetype"),
    "device_class": ("class", "deviceclasses"),
    "player_name": ("name", "entityid", "player"),
    "player_area": ("area", "room"),
    "player_floor": ("floor",),
    "brightness": ("brightnesspct", "brightnesspercent", "level", "dim"),
    "color": ("colour", "colorname", "rgbcolor"),
    "temperature": ("temp", "targettemperature", "settemperature", "colortemp", "colortempkelvin", "kelvin"),
    "percentage": ("speed", "percent", "fanspeed"),
    "position": ("percentage", "percent", "currentposition"),
    "volume_level": ("volume", "level", "percentage", "percent"),
    "volume_step": ("volume", "direction", "step"),
    "humidity": ("targethumidity", "percentage"),
    "item": ("task", "itemname", "todoitem", "product"),
    "message": ("text", "announcement"),
}
"""Slots of Home Assistant by what models call them; a slot by its own name goes first."""


def _slots(properties: Mapping[str, Any], given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """What was given under the names of the schema; what has none, or says nothing, is left out."""
    if not properties and schema.get("additionalProperties") is not False:
        return dict(given)
    slots = {key: value for key, value in given.items() if key in properties}
    rest = {words.squeezed(key): value for key, value in given.items() if key not in properties}
    for slot in properties:
        for key in (words.squeezed(slot), *_SYNONYMS.get(slot, ())):
            if key in rest and is_blank(slots.get(slot)):
                slots[slot] = rest.pop(key)
    required = schema.get("required", ())
    return {slot: value for slot, value in slots.items() if not is_blank(value) or _says_so(slot, value, required)}


def _says_so(slot: str, value: Any, required: Collection[str]) -> bool:
    """Whether an empty value is meant: where one is required, an empty list may be the answer."""
    return slot in required and value in ([], {})


def _role(schema: Mapping[str, Any]) -> str | None:
    """What a slot names, told from the definition that it was grounded in."""
    item = schema.get("items", {}) if is_array(schema) else schema
    name = str(item.get("$ref", "")).removeprefix("#/$defs/")
    return next((role for role in ROLES if name == role or name.startswith(f"{role}_")), None)


def _allowed(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> list[str]:
    found: list[str] = resolve(schema.get("items") if is_array(schema) else schema, defs).get("enum", [])
    return found
