from __future__ import annotations

import json
from typing import Any, Final

import pytest
from homeassistant.helpers import llm

from custom_components.edge_agent.house import survey
from custom_components.edge_agent.house.ground import ground
from custom_components.edge_agent.house.repair import Impossible, arguments, tool_name

from .small import HOUSE, repaired


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
    assert repaired("light", {"brightness": given}) == {"brightness": brightness}


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
