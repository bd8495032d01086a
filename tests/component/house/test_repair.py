from __future__ import annotations

import json
from typing import Any, Final

import pytest
from homeassistant.helpers import llm

from custom_components.edge_agent.house import survey
from custom_components.edge_agent.house.ground import ground
from custom_components.edge_agent.house.model import House, Thing
from custom_components.edge_agent.house.repair import Impossible, arguments, tool_name

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


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("on", {}),
        ("on", {"name": "Bedroom Lamp"}),
        ("on", {"name": "night lamp"}),
        ("on", {"name": "Bedroom Lamp", "area": "Bedroom", "floor": "Upstairs", "domain": ["light"]}),
        ("on", {"name": "Reading", "area": "Bedroom"}),
        ("on", {"area": "cooking corner", "domain": ["light", "cover"]}),
        ("on", {"floor": "downstairs", "device_class": ["blind"]}),
        ("on", {"name": "Left Blind", "device_class": ["blind"]}),
        ("light", {"name": "L'étoile", "color": "darkblue", "brightness": 0}),
        ("light", {"area": "Kitchen", "temperature": 2700, "brightness": 100}),
        ("volume", {"volume_step": "up"}),
        ("volume", {"volume_step": -20}),
        ("timer", {"minutes": 5, "seconds": 0, "name": "the  Pasta"}),
        (
            "script",
            {
                "loud": False,
                "mode": "Comfort",
                "degrees": 21.5,
                "tags": ["a, b", "the c"],
                "person": {"age": 3, "of": "x"},
                "text": "50%",
            },
        ),
        ("script", {"tags": []}),
    ],
)
@pytest.mark.parametrize("area", [None, "Kitchen"])
def test_what_was_right_comes_back_as_it_was(tool: str, given: dict[str, Any], area: str | None) -> None:
    assert repaired(tool, given, area) == given
    assert repaired(tool, json.dumps(given), area) == given


@pytest.mark.parametrize("thing", HOUSE.things, ids=lambda thing: thing.entity_id)
def test_every_name_of_every_thing_is_right(thing: Thing) -> None:
    for name in thing.names:
        assert repaired("on", {"name": name, "domain": [thing.domain]}) == {"name": name, "domain": [thing.domain]}


@pytest.mark.parametrize(
    "given",
    [
        "bedroom lamp",
        "  Bedroom   Lamp ",
        "bedroom_lamp",
        "Bedroom-Lamp",
        "bedroomlamp",
        "the bedroom lamp",
        "die Bedroom Lamp",
        "la bedroom lamp",
        "het bedroom lamp",
        "bedroom lamps",
        "light.bedroom_lamp",
        "switch.bedroom_lamp",
        "Bedrom Lamp",
        "Bedroom Lapm",
        "lamp bedroom",
        "lamp in the bedroom",
        "bedroom lamp light",
        "night lamps",
        "Night-Lamp",
        "upstairs bedroom lamp",
        ["Bedroom Lamp"],
    ],
)
def test_a_name_is_read_for_what_it_means(given: Any) -> None:
    assert repaired("on", {"name": given}) == {"name": "Bedroom Lamp"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("haustuer", "Haustür"),
        ("Haustur", "Haustür"),
        ("die Haustür", "Haustür"),
        ("front doors", "Haustür"),
        ("etoile", "L'étoile"),
        ("l'Etoile", "L'étoile"),
        ("desk lamp 2", "Desk Lamp 2"),
        ("desk lamp two", None),
        ("desk lamp 3", None),
        ("dining room lamp", None),
        ("right blinds", "Right Blind"),
        ("back door", None),
    ],
)
def test_a_name_is_never_taken_for_a_neighbours(given: str, name: str | None) -> None:
    if name:
        assert repaired("on", {"name": given}) == {"name": name}
    else:
        with pytest.raises(Impossible):
            repaired("on", {"name": given})


@pytest.mark.parametrize(
    ("tool", "given", "expected"),
    [
        pytest.param("on", {"name": "Kitchen"}, {"area": "Kitchen"}, id="an area as name"),
        pytest.param("on", {"name": "the lounge"}, {"area": "Living Room"}, id="an area's alias as name"),
        pytest.param("on", {"name": "upstairs"}, {"floor": "Upstairs"}, id="a floor as name"),
        pytest.param("on", {"area": "Upstairs"}, {"floor": "Upstairs"}, id="a floor as area"),
        pytest.param("on", {"floor": "kitchen"}, {"area": "Kitchen"}, id="an area as floor"),
        pytest.param("on", {"area": "TV"}, {"name": "TV"}, id="a thing as area"),
        pytest.param("on", {"area": "living_room"}, {"area": "Living Room"}, id="an area's id"),
        pytest.param("on", {"area": "Kichen"}, {"area": "Kitchen"}, id="an area misspelled"),
        pytest.param(
            "on",
            {"name": "Bedroom Lamp", "area": "Kitchen", "floor": "Attic", "domain": ["switch"], "device_class": ["tv"]},
            {"name": "Bedroom Lamp"},
            id="a clear name and invented slots",
        ),
        pytest.param(
            "on", {"name": "tv", "area": "lounge"}, {"name": "TV", "area": "lounge"}, id="an area that agrees"
        ),
        pytest.param("on", {"name": "TV", "domain": "media player"}, {"name": "TV"}, id="an unknown domain"),
        pytest.param(
            "on", {"name": "TV", "domain": "media_player"}, {"name": "TV", "domain": ["media_player"]}, id="list"
        ),
        pytest.param(
            "on", {"area": "Office", "domain": "lights"}, {"area": "Office", "domain": ["light"]}, id="plural"
        ),
        pytest.param(
            "on",
            {"area": "Office", "domain": '["light"]'},
            {"area": "Office", "domain": ["light"]},
            id="a list as text",
        ),
        pytest.param(
            "on",
            {"area": "Office", "domain": "light, cover"},
            {"area": "Office", "domain": ["light", "cover"]},
            id="two",
        ),
        pytest.param(
            "on",
            {"domain": ["blinds"]},
            {"domain": ["cover"], "device_class": ["blind"]},
            id="a kind of cover is no other cover",
        ),
        pytest.param(
            "on",
            {"area": "Kitchen", "domain": ["light"], "device_class": ["light"]},
            {"area": "Kitchen", "domain": ["light"]},
            id="the domain once more",
        ),
        pytest.param("on", {"name": "all lights"}, {"domain": ["light"]}, id="all of a kind"),
        pytest.param(
            "on", {"name": "kitchen lights"}, {"area": "Kitchen", "domain": ["light"]}, id="a kind in an area"
        ),
        pytest.param(
            "on", {"name": "lights in the living room"}, {"area": "Living Room", "domain": ["light"]}, id="in words"
        ),
        pytest.param("on", {"name": "all", "domain": ["light"]}, {"domain": ["light"]}, id="all, with its domain"),
        pytest.param("light", {"name": "all", "brightness": 5}, {"brightness": 5}, id="all, of a tool for one domain"),
        pytest.param(
            "light", {"name": "kitchen lights", "color": "red"}, {"area": "Kitchen", "color": "red"}, id="bound"
        ),
        pytest.param("on", {"entity_id": "cover.garage"}, {"name": "Garage Door"}, id="a slot by another name"),
        pytest.param("on", {"Name": "TV", "room": ""}, {"name": "TV"}, id="a slot in another case"),
        pytest.param(
            "on", {"name": "TV", "state": "on", "area": None, "floor": " "}, {"name": "TV"}, id="needless slots"
        ),
        pytest.param("on", {"name": "", "area": "Office", "domain": []}, {"area": "Office"}, id="empty slots"),
        pytest.param("on", '"{\\"name\\": \\"tv\\"}"', {"name": "TV"}, id="text in text"),
        pytest.param("on", None, {}, id="nothing"),
    ],
)
def test_slots_that_say_where_and_what_are_brought_to_agree(tool: str, given: Any, expected: dict[str, Any]) -> None:
    assert repaired(tool, given) == expected


def test_what_could_be_several_things_is_the_one_that_is_meant_or_here() -> None:
    assert repaired("on", {"name": "lamp", "area": "Bedroom"}) == {"name": "Bedroom Lamp", "area": "Bedroom"}
    assert repaired("on", {"name": "lamp"}, area="Living Room") == {"name": "Living Room Lamp"}
    assert repaired("on", {"name": "left"}) == {"name": "Left Blind"}
    with pytest.raises(Impossible, match="Desk Lamp 1, Desk Lamp 2: say which"):
        repaired("on", {"name": "desk lamp"})


@pytest.mark.parametrize(
    ("names", "given", "name"),
    [
        (("Den Lamp", "Bedroom Lamp"), "den lamp", "Den Lamp"),
        (("Den Lamp", "Bedroom Lamp"), "the den lamp", "Den Lamp"),
        (("Den Lamp", "Bedroom Lamp"), "the lamp", None),
        (("Lamp A", "Lamp B"), "lamp a", "Lamp A"),
        (("Lamp A", "Lamp B"), "lamp", None),
        (("The Lamp",), "lamp", "The Lamp"),
        (("Mi Robot", "Robot"), "robot", "Robot"),
        (("Mi Robot", "Robot"), "mi robot", "Mi Robot"),
        (("Battery",), "batteries", "Battery"),
    ],
)
def test_a_name_may_begin_with_what_is_an_article_elsewhere(
    names: tuple[str, ...], given: str, name: str | None
) -> None:
    house = House(tuple(Thing(f"switch.{n}", each, (), "switch") for n, each in enumerate(names)))
    schema = {"type": "object", "properties": {"name": {"$ref": "#/$defs/names"}}}
    defs = {"names": {"type": "string", "enum": sorted(names)}}
    if name:
        assert arguments(schema, {"name": given}, house, defs=defs) == {"name": name}
    else:
        with pytest.raises(Impossible, match="say which"):
            arguments(schema, {"name": given}, house, defs=defs)


def test_a_kind_alone_is_meant_where_the_speaker_is() -> None:
    assert repaired("on", {"name": "the lights"}, area="Kitchen") == {"area": "Kitchen", "domain": ["light"]}
    assert repaired("on", {"name": "all the lights"}, area="Kitchen") == {"domain": ["light"]}
    assert repaired("on", {"name": "lights", "area": "Office"}, area="Kitchen") == {
        "area": "Office",
        "domain": ["light"],
    }


@pytest.mark.parametrize(
    ("given", "brightness"),
    [
        (50.0, 50),
        ("50", 50),
        ("50%", 50),
        ("50 %", 50),
        (" 50 percent", 50),
        ("50 Prozent", 50),
        ("49,6", 50),
        ("half", 50),
        ("Hälfte", 50),
        ("max", 100),
        ("full", 100),
        ("minimum", 0),
        (0.5, 50),
        ("0.25", 25),
        (100.4, 100),
        (-0.4, 0),
        ([40], 40),
    ],
)
def test_a_number_is_read_from_what_people_say(given: Any, brightness: int) -> None:
    assert repaired("light", {"name": "TV", "brightness": given} | {"name": "Reading"}) == {
        "name": "Reading",
        "brightness": brightness,
    }


@pytest.mark.parametrize(
    ("tool", "given", "expected"),
    [
        ("light", {"color": "Dark Blue"}, {"color": "darkblue"}),
        ("light", {"colour": "RED"}, {"color": "red"}),
        ("light", {"temperature": "2700K"}, {"temperature": 2700}),
        ("light", {"kelvin": "2700 kelvin"}, {"temperature": 2700}),
        ("light", {"brightness_pct": "40"}, {"brightness": 40}),
        ("volume", {"volume_step": "UP"}, {"volume_step": "up"}),
        ("volume", {"volume_step": "20%"}, {"volume_step": 20}),
        ("volume", {"volume": "-20"}, {"volume_step": -20}),
        ("timer", {"minutes": "5 minutes"}, {"minutes": 5}),
        ("timer", {"minutes": "5", "seconds": None}, {"minutes": 5}),
        ("script", {"tags": "a", "loud": "yes"}, {"tags": ["a"], "loud": True}),
        ("script", {"tags": "a, b", "loud": "Off"}, {"tags": ["a", "b"], "loud": False}),
        ("script", {"tags": ["a"], "loud": 1}, {"tags": ["a"], "loud": True}),
        ("script", {"tags": ["a"], "mode": "ECO_MODE"}, {"tags": ["a"], "mode": "eco mode"}),
        ("script", {"tags": ["a"], "mode": "comfrot"}, {"tags": ["a"], "mode": "Comfort"}),
        ("script", {"tags": ["a"], "degrees": "21,5 °C"}, {"tags": ["a"], "degrees": 21.5}),
        ("script", {"tags": ["a"], "degrees": "21 degrees"}, {"tags": ["a"], "degrees": 21}),
        ("script", {"tags": ["a"], "person": '{"age": "3"}'}, {"tags": ["a"], "person": {"age": 3}}),
        ("script", {"tags": ["a"], "text": 5}, {"tags": ["a"], "text": "5"}),
    ],
)
def test_a_value_is_made_what_its_slot_wants(tool: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = repaired(tool, given)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(expected[key]) for key in found] or "degrees" in found


@pytest.mark.parametrize(
    ("tool", "given", "problem"),
    [
        ("on", "turn on the light", "the arguments must be a JSON object"),
        ("on", [1], "the arguments must be a JSON object"),
        ("on", {"name": "Sofa Lamp"}, "nothing is called 'Sofa Lamp'; there is .*Desk Lamp"),
        ("on", {"name": ["TV", "Reading"]}, "only one of the names can be given: call the tool once for each"),
        ("on", {"name": "everything"}, "'everything' is too much"),
        ("on", {"area": "Cellar"}, "there is no area 'Cellar'; there is .*Bedroom"),
        ("on", {"floor": "Third"}, "there is no floor 'Third'; there is Ground Floor, Upstairs, downstairs"),
        ("on", {"area": "Kitchen", "domain": ["vacuum"]}, "no domain is 'vacuum'; there is cover, light"),
        ("on", {"area": "Kitchen", "domain": ["plugs"]}, "no domain is 'plugs'"),
        ("on", {"area": "Kitchen", "device_class": ["oven"]}, "no device class is 'oven'; there is blind, garage, tv"),
        ("on", {"name": "shutters"}, "nothing is called 'shutters'"),
        ("light", {"name": "TV"}, "nothing is called 'TV'"),
        ("light", {"brightness": 101}, "brightness must be at least 0 and at most 100, not 101"),
        ("light", {"brightness": "bright"}, "brightness must be a number, not 'bright'"),
        ("light", {"brightness": True}, "brightness must be a number, not True"),
        ("light", {"brightness": float("nan")}, "brightness must be a number"),
        ("light", {"color": "warm"}, "color cannot be 'warm'; it can be blue, darkblue, red"),
        ("light", {"temperature": -5}, "temperature must be at least 0, not -5"),
        ("volume", {}, "volume_step must be given"),
        (
            "volume",
            {"volume_step": "louder"},
            "volume_step cannot be 'louder'; it can be up, down; or volume_step must",
        ),
        ("timer", {"seconds": "5 minutes"}, "seconds must be a number, not '5 minutes'"),
        ("timer", {"name": {"a": 1}}, "name must be one text"),
        ("script", {"tags": ["a"], "loud": "perhaps"}, "loud must be true or false, not 'perhaps'"),
        ("script", {"tags": ["a"], "person": {"name": "x"}}, "person needs age"),
        ("script", {"tags": ["a"], "person": "x"}, "person must be a JSON object"),
        ("script", {"loud": True}, "tags must be given"),
    ],
)
def test_what_cannot_be_repaired_is_told_in_words(tool: str, given: Any, problem: str) -> None:
    with pytest.raises(Impossible, match=problem) as raised:
        repaired(tool, given)
    assert raised.value.problem == str(raised.value)


def test_a_problem_does_not_list_the_whole_house() -> None:
    house = House(tuple(Thing(f"light.{n}", f"Spot {n}", (), "light") for n in range(300)))
    with pytest.raises(Impossible) as raised:
        arguments(LIGHT_SET, {"name": "Sofa"}, house, defs={"names_light": {"type": "string"}})
    assert len(raised.value.problem) < 120
    assert arguments(LIGHT_SET, {"name": "spot_7"}, house, defs={"names_light": {"type": "string"}}) == {
        "name": "Spot 7"
    }


def test_a_schema_of_any_kind_is_followed() -> None:
    schema = {
        "$defs": {"level": {"type": "integer", "minimum": 0, "maximum": 10}},
        "properties": {
            "level": {"$ref": "#/$defs/level"},
            "free": {},
            "null": {"type": "null"},
            "const": {"const": "x"},
            "either": {"type": ["integer", "string"]},
        },
    }
    given = {"level": "3", "free": [1], "const": "X", "either": "12 apples"}
    assert arguments(schema, given, HOUSE) == {"level": 3, "free": [1], "const": "x", "either": "12 apples"}
    with pytest.raises(Impossible, match="null must be null"):
        arguments(schema, {"null": 1}, HOUSE)
    assert arguments({"type": "object"}, {"any": None}, HOUSE) == {"any": None}


KNOWN: Final = (
    "intent__HassTurnOn",
    "intent__HassTurnOff",
    "light__HassLightSet",
    "media_player__HassMediaPause",
    "media_player__HassMediaUnpause",
    "homeassistant__GetLiveContext",
    "todo__get_items",
    "script__good_night",
)


@pytest.mark.parametrize(
    ("called", "name"),
    [
        *((name, name) for name in KNOWN),
        ("HassTurnOn", "intent__HassTurnOn"),
        ("hassturnon", "intent__HassTurnOn"),
        ("turn_on", "intent__HassTurnOn"),
        ("TurnOff", "intent__HassTurnOff"),
        ("light.HassTurnOn", "intent__HassTurnOn"),
        ("light.turn_on", "intent__HassTurnOn"),
        ("functions.intent__HassTurnOn", "intent__HassTurnOn"),
        ("INTENT__HASSTURNON", "intent__HassTurnOn"),
        ("intent_HassTurnOn", "intent__HassTurnOn"),
        ("light__HassTurnOn", "intent__HassTurnOn"),
        ("HassLightSett", "light__HassLightSet"),
        ("get_live_context", "homeassistant__GetLiveContext"),
        ("good night", "script__good_night"),
        ("getItems", "todo__get_items"),
        ("HassTurnO", None),
        ("HassMediaUnpaus", None),
        ("HassToggle", None),
        ("search", None),
        ("", None),
        ("__", None),
    ],
)
def test_a_tool_is_known_by_the_names_models_give_it(called: str, name: str | None) -> None:
    assert tool_name(called, KNOWN) == name


def test_a_name_of_two_tools_is_none() -> None:
    assert tool_name("play", ["a__play", "b__play"]) is None


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("intent__HassTurnOn", {"name": "bedroom lamp", "domain": "switch", "area": "Garage", "device_class": []}),
        ("light__HassLightSet", {"name": "the night-lamp", "brightness": "50%", "color": ""}),
        ("intent__HassSetPosition", {"name": "garage_door", "position": "half"}),
        ("climate__HassClimateSetTemperature", {"area": "lounge", "temperature": "21 degrees"}),
        ("media_player__HassSetVolumeRelative", {"name": "telly", "volume_step": "Up", "floor": None}),
        ("homeassistant__GetLiveContext", {"domain": "lights", "area": "kitchen"}),
    ],
)
async def test_repaired_arguments_are_what_home_assistant_takes(
    assist: llm.APIInstance, tool: str, given: dict[str, Any]
) -> None:
    house = survey.take(assist.api.hass)
    grounded = ground(assist.tools, assist.custom_serializer, house)
    found = arguments(grounded.parameters(tool), given, house, defs=grounded.defs)
    assert next(each for each in assist.tools if each.name == tool).parameters(found)
