from __future__ import annotations

from typing import Any

import pytest

from custom_components.edge_agent.house.model import House, Thing
from custom_components.edge_agent.house.repair import Impossible, arguments

from .small import HOUSE, LIGHT_SET, repaired


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


def test_a_problem_does_not_list_the_whole_house() -> None:
    house = House(tuple(Thing(f"light.{n}", f"Spot {n}", (), "light") for n in range(300)))
    with pytest.raises(Impossible) as raised:
        arguments(LIGHT_SET, {"name": "Sofa"}, house, defs={"names_light": {"type": "string"}})
    assert len(raised.value.problem) < 120
    assert arguments(LIGHT_SET, {"name": "spot_7"}, house, defs={"names_light": {"type": "string"}}) == {
        "name": "Spot 7"
    }
