from __future__ import annotations

import time

from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.core import HomeAssistant
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import entity_registry as er

from custom_components.edge_agent.house import survey
from custom_components.edge_agent.house.model import House, Thing

from .conftest import FURNITURE, Furnished, furnish


def thing(house: House, entity_id: str) -> Thing:
    return next(thing for thing in house.things if thing.entity_id == entity_id)


def test_all_that_is_exposed_is_found_by_its_names(home: HomeAssistant) -> None:
    house = survey.take(home)
    assert {thing.entity_id for thing in house.things} == {thing.entity_id for thing in FURNITURE}
    assert thing(house, "light.kitchen_ceiling") == Thing(
        "light.kitchen_ceiling", "Kitchen Ceiling", ("big light",), "light", "Kitchen", "Ground Floor"
    )


def test_what_is_not_exposed_is_no_part_of_the_house(home: HomeAssistant) -> None:
    async_expose_entity(home, "conversation", "lock.front_door", should_expose=False)
    async_expose_entity(home, "conversation", "button.doorbell", should_expose=False)
    house = survey.take(home)
    assert not [thing for thing in house.things if thing.domain == "lock"]
    assert "Hallway" not in house.areas


def test_a_thing_stands_where_its_device_does(home: HomeAssistant) -> None:
    assert thing(survey.take(home), "climate.living_room").area == "Living Room"


def test_areas_and_floors_without_things_are_left_out(home: HomeAssistant) -> None:
    house = survey.take(home)
    assert dict(house.areas) == {
        "Bedroom": (),
        "Garage": (),
        "Hallway": (),
        "Kitchen": ("cooking corner",),
        "Living Room": ("lounge",),
    }
    assert dict(house.floors) == {"Ground Floor": ("downstairs",), "Upstairs": ("first floor",)}


def test_an_unchanged_house_compares_equal_and_a_changed_one_does_not(home: HomeAssistant) -> None:
    before = survey.take(home)
    home.states.async_set("light.bedroom_lamp", "on", {"friendly_name": "Bedroom Lamp", "brightness": 3})
    assert survey.take(home) == before
    ar.async_get(home).async_update(thing_area(home, "light.bedroom_lamp"), name="Nursery")
    assert survey.take(home) != before


def thing_area(home: HomeAssistant, entity_id: str) -> str:
    entry = er.async_get(home).async_get(entity_id)
    assert entry
    assert entry.area_id
    return entry.area_id


def test_an_entity_that_no_registry_knows_has_the_name_of_its_state(home: HomeAssistant) -> None:
    home.states.async_set("light.lone", "on", {"friendly_name": "Lone Light"})
    async_expose_entity(home, "conversation", "light.lone", should_expose=True)
    assert thing(survey.take(home), "light.lone") == Thing("light.lone", "Lone Light", (), "light")


def test_a_thing_without_any_name_answers_to_its_id(home: HomeAssistant) -> None:
    er.async_get(home).async_update_entity("vacuum.robby", aliases=[])
    assert thing(survey.take(home), "vacuum.robby").name == "vacuum.robby"


def test_what_the_owner_says_a_device_is_goes_before_what_it_says(home: HomeAssistant) -> None:
    er.async_get(home).async_update_entity("cover.garage_door", device_class="gate")
    assert thing(survey.take(home), "cover.garage_door").device_class == "gate"


async def test_two_hundred_things_are_surveyed_within_five_milliseconds(home: HomeAssistant) -> None:
    entry = home.config_entries.async_entries("demo")[0]
    for number in range(200):
        furnish(home, entry, Furnished(f"light.lamp_{number}", f"Lamp {number}", "Kitchen", (f"light {number}",)))
    survey.take(home)
    assert min(_timed(home) for _ in range(5)) < 0.005


def _timed(home: HomeAssistant) -> float:
    start = time.thread_time()
    survey.take(home)
    return time.thread_time() - start
