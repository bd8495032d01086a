from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import probatio
import pytest
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers import llm, selector

from custom_components.edge_agent.house import survey
from custom_components.edge_agent.house.ground import Grounded, ground
from custom_components.edge_agent.house.model import House, Thing

from .conftest import Furnished, furnish
from .rules import refusal


class Foreign(llm.Tool):
    """A tool of no intent, as MCP servers and custom integrations bring them."""

    def __init__(self, name: str, schema: dict[Any, Any] | None = None, integration: str = "mcp") -> None:
        self.name = name
        self.parameters = probatio.Schema(schema or {})
        self.integration = integration


@pytest.fixture
def house(home: HomeAssistant) -> House:
    return survey.take(home)


@pytest.fixture
def grounded(assist: llm.APIInstance, house: House) -> Grounded:
    return ground(assist.tools, assist.custom_serializer, house)


def test_every_tool_of_assist_is_one_that_a_constrained_engine_takes(grounded: Grounded) -> None:
    assert len(grounded.tools) > 35
    for tool in grounded.tools:
        function = tool["function"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", function["name"])
        assert function["parameters"]["type"] == "object"
        assert refusal(function["parameters"], grounded.defs) is None, function["name"]


def test_a_slot_holds_what_is_in_the_house_and_nothing_else(grounded: Grounded) -> None:
    slots = grounded.parameters("light__HassLightSet")["properties"]
    assert slots["name"] == {"$ref": "#/$defs/names_light"}
    assert slots["area"] == {"$ref": "#/$defs/areas"}
    assert grounded.defs["names_light"]["enum"] == [
        "Bedroom Lamp",
        "Counter Light",
        "Kitchen Ceiling",
        "big light",
        "night lamp",
    ]
    assert grounded.defs["floors"]["enum"] == ["Ground Floor", "Upstairs", "downstairs", "first floor"]
    assert "red" in grounded.defs["colors"]["enum"]


def test_only_what_can_be_switched_is_named_by_the_tools_that_switch(grounded: Grounded) -> None:
    assert grounded.parameters("intent__HassTurnOn")["properties"]["name"] == {"$ref": "#/$defs/names_switchable"}
    assert "Kitchen Temperature" not in grounded.defs["names_switchable"]["enum"]
    assert "Kitchen Temperature" in grounded.defs["names"]["enum"]
    assert "sensor" not in grounded.defs["domains_switchable"]["enum"]
    assert grounded.defs["names_movable"]["enum"] == ["Garage Door", "Garden Water", "Living Room Blind"]


def test_a_tool_for_one_domain_does_not_ask_for_it(grounded: Grounded) -> None:
    assert "domain" not in grounded.parameters("fan__HassFanSetSpeed")["properties"]
    assert "domain" in grounded.parameters("intent__HassTurnOff")["properties"]


def test_device_classes_are_those_that_something_has(grounded: Grounded) -> None:
    assert grounded.defs["device_classes_switchable"]["enum"] == ["blind", "garage", "outlet", "water"]
    assert "device_class" not in grounded.parameters("media_player__HassMediaPause")["properties"]


def test_the_name_of_a_timer_and_the_area_to_clean_are_free(grounded: Grounded) -> None:
    assert grounded.parameters("intent__HassStartTimer")["properties"]["name"] == {"type": "string"}
    assert grounded.parameters("vacuum__HassVacuumCleanArea")["properties"]["area"] == {"type": "string"}


def test_a_house_without_floors_and_areas_has_no_slots_for_them(assist: llm.APIInstance) -> None:
    house = House((Thing("light.a", "A", (), "light"),))
    slots = ground(assist.tools, assist.custom_serializer, house).parameters("intent__HassTurnOn")["properties"]
    assert slots.keys() == {"name", "domain"}


def test_an_empty_house_leaves_tools_that_hold_nothing(assist: llm.APIInstance) -> None:
    grounded = ground(assist.tools, assist.custom_serializer, House())
    assert grounded.parameters("intent__HassTurnOn") == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert grounded.parameters("humidifier__HassHumidifierMode")["properties"]["name"] == {"type": "string"}
    for tool in grounded.tools:
        assert refusal(tool["function"]["parameters"], grounded.defs) is None


def test_the_same_house_and_tools_in_any_order_give_the_same_bytes(
    assist: llm.APIInstance, house: House, grounded: Grounded
) -> None:
    tools = list(assist.tools)
    for seed in range(5):
        random.Random(seed).shuffle(tools)
        again = ground(tools, assist.custom_serializer, house)
        assert again == grounded
        assert json.dumps([again.tools, again.defs]) == json.dumps([grounded.tools, grounded.defs])


def test_a_name_that_is_new_changes_the_definitions_alone(home: HomeAssistant, assist: llm.APIInstance) -> None:
    before = ground(assist.tools, assist.custom_serializer, survey.take(home))
    entry = home.config_entries.async_entries("demo")[0]
    furnish(home, entry, Furnished("light.new", "New Light", "Kitchen"))
    after = ground(assist.tools, assist.custom_serializer, survey.take(home))
    assert after.tools == before.tools
    assert "New Light" in after.defs["names_light"]["enum"]


def test_names_no_model_can_call_become_safe_and_stay_different() -> None:
    tools = [Foreign(name) for name in ("a tool", "a_tool", "a.tool", "auto", "größe", "x" * 80, "ok-1", "日本")]
    grounded = ground(tools, None, House())
    assert grounded.names["a_tool"] == "a_tool"
    assert grounded.names["ok-1"] == "ok-1"
    assert sorted(grounded.names.values()) == sorted(tool.name for tool in tools)
    assert [tool["function"]["name"] for tool in grounded.tools] == sorted(grounded.names)
    for name in grounded.names:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
        assert name not in ("none", "auto", "required")


def test_foreign_tools_are_slimmed_and_not_grounded(house: House) -> None:
    schema = {
        probatio.Required("name", description="Of a person"): cv.string,
        probatio.Optional("tags"): selector.SelectSelector({"options": ["a", "b"], "multiple": True}),
        probatio.Optional("seconds"): selector.NumberSelector({"min": 1, "max": 86400, "mode": "box"}),
        probatio.Optional("when"): selector.DateTimeSelector(),
        probatio.Optional("place"): selector.LocationSelector(),
        probatio.Optional("colour"): selector.ColorRGBSelector(),
        probatio.Optional("data"): selector.ObjectSelector(),
        probatio.Optional("for"): selector.DurationSelector(),
        probatio.Optional("where"): selector.TargetSelector(),
        probatio.Optional("anything"): object,
    }
    grounded = ground([Foreign("tell", schema)], llm.selector_serializer, house)
    parameters = grounded.parameters("tell")
    assert parameters["properties"]["name"] == {"type": "string", "description": "Of a person"}
    assert refusal(parameters, {}) is None
    assert grounded.defs == {}


def test_a_tool_of_a_merged_api_is_grounded_like_itself(assist: llm.APIInstance, house: House) -> None:
    inner = next(tool for tool in assist.tools if tool.name == "light__HassLightSet")
    grounded = ground([llm.NamespacedTool("assist", inner)], assist.custom_serializer, house)
    slots = grounded.parameters("assist__light__HassLightSet")["properties"]
    assert slots["name"] == {"$ref": "#/$defs/names_light"}


def test_a_list_too_long_for_a_grammar_becomes_any_text(assist: llm.APIInstance) -> None:
    lamps = tuple(Thing(f"light.{n}", f"Light number {n:05}", (), "light") for n in range(1000))
    house = House((*lamps, Thing("fan.a", "Fan", (), "fan")))
    grounded = ground(assist.tools, assist.custom_serializer, house)
    assert grounded.defs["names_light"] == {"type": "string"}
    assert grounded.defs["names_fan"] == {"type": "string", "enum": ["Fan"]}
    assert grounded.parameters("light__HassLightSet")["properties"]["name"] == {"$ref": "#/$defs/names_light"}


def test_the_prompt_is_shorter_for_it(assist: llm.APIInstance, grounded: Grounded) -> None:
    plain = [
        {"name": tool.name, "description": tool.description}
        | {"parameters": probatio.to_openapi(tool.parameters, custom_serializer=assist.custom_serializer)}
        for tool in assist.tools
    ]
    assert len(json.dumps([tool["function"] for tool in grounded.tools])) < 0.82 * len(json.dumps(plain))


def test_fifty_things_are_grounded_within_some_milliseconds(home: HomeAssistant, assist: llm.APIInstance) -> None:
    entry = home.config_entries.async_entries("demo")[0]
    for number in range(30):
        furnish(home, entry, Furnished(f"light.lamp_{number}", f"Lamp {number}", "Kitchen", (f"light {number}",)))
    house = survey.take(home)
    taken = []
    for _ in range(5):
        start = time.thread_time()
        ground(assist.tools, assist.custom_serializer, house)
        taken.append(time.thread_time() - start)
    assert min(taken) < 0.01
