"""Tools of an LLM API as a small model should see them, and the house as the engine must respect it.

A slot that names something of the house becomes a `$ref` to a definition that lists all such names. The definitions
travel beside the tools, for the constraint alone: the model never reads them, and cannot write what they do not hold.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import probatio
from homeassistant.helpers import llm
from homeassistant.util.color import COLORS

from .model import House, Thing
from .slim import slim

PREFIX: Final = "#/$defs/"
_LARGEST: Final = 16_384
"""Characters of all definitions together: the agent takes a grammar of four times as many, tools included."""
_READABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RESERVED: Final = frozenset({"none", "auto", "required"})
"""Choices of a request's `tool_choice`, so no names of tools."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """Tools in OpenAI's form, sorted by name: the same house and the same tools give the same bytes."""

    tools: tuple[dict[str, Any], ...] = ()
    defs: dict[str, Any] = field(default_factory=dict)
    """What `edge.defs` of a request must hold."""
    names: dict[str, str] = field(default_factory=dict)
    """The name a model calls → the name Home Assistant knows."""

    def parameters(self, name: str) -> dict[str, Any]:
        """The schema of one tool's arguments, by the name a model calls."""
        schema: dict[str, Any] = next(
            tool["function"]["parameters"] for tool in self.tools if tool["function"]["name"] == name
        )
        return schema


def ground(tools: Sequence[llm.Tool], serializer: Callable[[Any], Any] | None, house: House) -> Grounded:
    """Convert, slim and ground tools; `serializer` is the one of their API."""
    ordered = sorted(tools, key=lambda tool: tool.name)
    names = _names([tool.name for tool in ordered])
    defs: dict[str, Any] = {}
    functions = []
    for tool in ordered:
        schema = probatio.to_openapi(tool.parameters, custom_serializer=serializer, openapi_version="3.1.0")
        parameters = slim({"type": "object", **schema})
        if reach := _reach(_own(tool)):
            parameters = _grounded(parameters, _Ground(house, reach, defs))
        description = _SHORTER.get(_own(tool).name) or " ".join((tool.description or "").split())
        function = {"name": names[tool.name], "description": description, "parameters": parameters}
        functions.append({key: value for key, value in function.items() if value or key != "description"})
    functions = [{"type": "function", "function": function} for function in functions]
    return Grounded(
        tools=tuple(sorted(functions, key=lambda tool: tool["function"]["name"])),
        defs=_bounded(defs),
        names={names[tool.name]: tool.name for tool in ordered},
    )


def _names(real: Sequence[str]) -> dict[str, str]:
    """A name the agent accepts for every real one; whoever has one already keeps it."""
    names = {name: name for name in real if _READABLE.fullmatch(name) and name not in _RESERVED}
    for name in real:
        if name in names:
            continue
        safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:60] or "tool"
        count, taken = 1, _RESERVED.union(names.values())
        while (candidate := safe if count == 1 else f"{safe}_{count}") in taken:
            count += 1
        names[name] = candidate
    return names


# What a tool can reach ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reach:
    """The things a tool can name; `suffix` tells its definitions from those of other tools."""

    suffix: str
    domains: Collection[str] = ()
    """Empty: all of them."""
    except_domains: Collection[str] = ()
    free: Collection[str] = ()
    """Slots that may name what is not exposed."""

    def __contains__(self, thing: Thing) -> bool:
        return thing.domain not in self.except_domains and (not self.domains or thing.domain in self.domains)


_LISTENING: Final = frozenset(
    {
        "air_quality",
        "assist_satellite",
        "binary_sensor",
        "calendar",
        "conversation",
        "date",
        "datetime",
        "device_tracker",
    }
    | {"event", "geo_location", "image", "input_datetime", "input_number", "input_select", "input_text", "notify"}
    | {"number", "person", "select", "sensor", "stt", "sun", "text", "time", "todo", "tts", "wake_word", "weather"}
    | {"zone"}
)
"""Domains with nothing to turn on or off."""
_EVERYTHING: Final = _Reach("", except_domains=frozenset({"calendar", "script"}))
"""What the live context tells of: the other two have tools of their own."""
_SWITCHABLE: Final = _Reach("_switchable", except_domains=_LISTENING)
_MOVABLE: Final = _Reach("_movable", domains=frozenset({"cover", "valve"}))
_REACHES: Final[Mapping[str, _Reach]] = {
    "homeassistant__GetLiveContext": _EVERYTHING,
    "intent__HassTurnOn": _SWITCHABLE,
    "intent__HassTurnOff": _SWITCHABLE,
    "intent__HassSetPosition": _MOVABLE,
    "intent__HassStopMoving": _MOVABLE,
    "vacuum__HassVacuumCleanArea": _Reach("_vacuum", domains=frozenset({"vacuum"}), free=frozenset({"area"})),
    **{
        f"{domain}__": _Reach(f"_{domain}", domains=frozenset({domain}))
        for domain in ("climate", "fan", "humidifier", "lawn_mower", "light", "media_player", "todo", "vacuum")
    },
}
"""Tools of Home Assistant, by name or by the domain they are bound to. A timer's name is no name of a thing."""
_SHORTER: Final[Mapping[str, str]] = {
    "homeassistant__GetLiveContext": "Get the current state, value or mode of devices, sensors and areas."
    " Filter by name, domain or area.",
}
"""Descriptions that take more of a small model's attention than they give."""


def _own(tool: llm.Tool) -> llm.Tool:
    """The tool as its integration made it."""
    while isinstance(tool, llm.NamespacedTool):
        tool = tool.tool
    return tool


def _reach(tool: llm.Tool) -> _Reach | None:
    if tool.integration is None or not tool.name.startswith(f"{tool.integration}__"):
        return None
    return _REACHES.get(tool.name) or _REACHES.get(f"{tool.integration}__")


# Slots and their definitions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ground:
    """The house as one tool sees it, and where the definitions are gathered."""

    house: House
    reach: _Reach
    defs: dict[str, Any]

    @property
    def things(self) -> Iterator[Thing]:
        return (thing for thing in self.house.things if thing in self.reach)

    def names(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._defined(f"names{self.reach.suffix}", {name for thing in self.things for name in thing.names})

    def areas(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._defined("areas", _called(self.house.areas))

    def floors(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._defined("floors", _called(self.house.floors))

    def colors(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._defined("colors", set(COLORS))

    def domains(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        if len(self.reach.domains) == 1:
            return None  # The tool knows its own domain.
        return _listed(self._defined(f"domains{self.reach.suffix}", {thing.domain for thing in self.things}))

    def device_classes(self, schema: Mapping[str, Any]) -> dict[str, Any] | None:
        taken = set(schema.get("items", {}).get("enum", ()))
        classes = {thing.device_class for thing in self.things if thing.device_class in taken}
        return _listed(self._defined(f"device_classes{self.reach.suffix}", classes))

    def nothing(self, _: Mapping[str, Any]) -> None:
        """A slot that the tool fills itself."""

    def _defined(self, name: str, values: Collection[str | None]) -> dict[str, Any] | None:
        listed = sorted(value for value in values if value)
        if not listed:
            return None
        self.defs[name] = {"type": "string", "enum": listed}
        return {"$ref": f"{PREFIX}{name}"}


_NOTHING: Final = {"type": "object", "properties": {}, "additionalProperties": False}
_SLOTS: Final[Mapping[str, Callable[[_Ground, Mapping[str, Any]], dict[str, Any] | None]]] = {
    "name": _Ground.names,
    "area": _Ground.areas,
    "floor": _Ground.floors,
    "domain": _Ground.domains,
    "device_class": _Ground.device_classes,
    "color": _Ground.colors,
    "player_name": _Ground.names,
    "player_area": _Ground.areas,
    "player_floor": _Ground.floors,
    "is_volume_muted": _Ground.nothing,
}


def _grounded(parameters: Mapping[str, Any], ground: _Ground) -> dict[str, Any]:
    """The schema with its slots grounded; a slot that the house has nothing for falls away, if it may."""
    required = parameters.get("required", ())
    properties = {}
    for slot, schema in parameters.get("properties", {}).items():
        known = slot in _SLOTS and slot not in ground.reach.free
        grounded = _SLOTS[slot](ground, schema) if known else schema
        if grounded is not None or slot in required:
            properties[slot] = schema if grounded is None else grounded
    return {**parameters, "properties": properties} if properties else _NOTHING


def _bounded(defs: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions, sorted; in a house with too many names, the longest lists give way to any text."""
    sizes = {name: sum(map(len, schema["enum"])) for name, schema in sorted(defs.items())}
    free = set[str]()
    while sum(size for name, size in sizes.items() if name not in free) > _LARGEST:
        free.add(max(sizes.keys() - free, key=lambda name: (sizes[name], name)))
    return {name: {"type": "string"} if name in free else defs[name] for name in sizes}


def _called(places: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {name for place, aliases in places.items() for name in (place, *aliases)}


def _listed(item: dict[str, Any] | None) -> dict[str, Any] | None:
    return item and {"type": "array", "items": item}
