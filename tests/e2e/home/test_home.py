"""The stage: Home Assistant starts by itself with the demonstration home, and nothing but its plan is exposed."""

from home import furnish


async def test_every_entity_of_the_plan_is_there_and_says_something(home) -> None:
    states = await home.states()
    assert 20 <= len(furnish.exposed()) <= 25
    said = {entity: states[entity]["state"] for entity in furnish.exposed()}
    assert {entity for entity, state in said.items() if state in ("unavailable", "unknown")} == {"scene.movie_night"}


async def test_assist_sees_what_is_planned_and_nothing_else(home) -> None:
    shown = (await home.call("homeassistant/expose_entity/list"))["exposed_entities"]
    assert sorted(entity for entity, where in shown.items() if where.get("conversation")) == furnish.exposed()


async def test_rooms_lie_on_their_floors_and_entities_in_their_rooms(home) -> None:
    floors = {floor["floor_id"]: floor["name"] for floor in await home.call("config/floor_registry/list")}
    areas = {area["area_id"]: area for area in await home.call("config/area_registry/list")}
    places = {entry["entity_id"]: entry["area_id"] for entry in await home.call("config/entity_registry/list")}
    for floor, planned in furnish.plan()["floors"].items():
        for name, room in planned["areas"].items():
            for entity in room["entities"]:
                area = areas[places[entity]]
                assert (area["name"], floors[area["floor_id"]]) == (name, floor)


async def test_mqtt_is_connected_and_nothing_needs_repair(home) -> None:
    assert (await home.entry("mqtt"))["title"] == "127.0.0.1"
    assert await home.call("repairs/list_issues") == {"issues": []}


async def test_things_really_move(home) -> None:
    await home.service("cover.set_cover_position", {"position": 40}, target={"entity_id": "cover.living_room_blind"})
    await home.until("cover.living_room_blind", lambda state: state["attributes"]["current_position"] == 40)
    await home.service("light.turn_on", {"brightness_pct": 20}, target={"entity_id": "light.desk_lamp"})
    await home.until("light.desk_lamp", lambda state: state["attributes"]["brightness"] == 51)
    await home.service("script.good_night")
    await home.until("light.desk_lamp", lambda state: state["state"] == "off")
    await home.until("cover.living_room_blind", lambda state: state["state"] == "closed")
    assert (await home.state("lock.front_door"))["state"] == "locked"
