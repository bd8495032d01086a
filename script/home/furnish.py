"""What a user clicks together in a new home: floors, areas, what Assist may see, the broker, an assistant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from edge_agent.shipped import shipped
from home.frontend import JSON, Home, Refused

ASSISTANT: Final = "conversation"


def plan() -> JSON:
    """Where things stand in the demonstration home."""
    text = Path(shipped("homeassistant/demo/home.yaml")).read_text(encoding="utf-8")
    planned: JSON = yaml.safe_load(text)
    return planned


def exposed() -> list[str]:
    """The entities of the demonstration home that Assist may see."""
    planned = plan()
    rooms = (room for floor in planned["floors"].values() for room in floor["areas"].values())
    return sorted([entity for room in rooms for entity in room["entities"]] + planned["everywhere"])


async def furnish(home: Home) -> None:
    """Give the demonstration home its floors and areas, and expose what is planned, and only that."""
    areas = {area["name"]: area["area_id"] for area in await home.call("config/area_registry/list")}
    for name, floor in plan()["floors"].items():
        data = {"name": name, "level": floor["level"], "aliases": floor["aliases"]}
        made = await home.call("config/floor_registry/create", **data)
        for area, room in floor["areas"].items():
            await _room(home, areas.get(area), made["floor_id"], area, room)
    await expose(home, exposed())


async def _room(home: Home, known: str | None, floor: str, name: str, room: JSON) -> None:
    data: dict[str, Any] = {"name": name, "floor_id": floor, "aliases": room.get("aliases", [])}
    if known is None:
        known = (await home.call("config/area_registry/create", **data))["area_id"]
    else:
        await home.call("config/area_registry/update", area_id=known, **data)
    for entity in room["entities"]:
        await home.call("config/entity_registry/update", entity_id=entity, area_id=known)


async def expose(home: Home, entities: list[str]) -> None:
    """Let Assist see these entities and no others, new ones neither."""
    await home.call("homeassistant/expose_new_entities/set", assistant=ASSISTANT, expose_new=False)
    hidden = sorted((await home.states()).keys() - set(entities))
    for some, shown in ((hidden, False), (entities, True)):
        await home.call("homeassistant/expose_entity", assistants=[ASSISTANT], entity_ids=some, should_expose=shown)


async def connect_mqtt(home: Home, login: Mapping[str, Any]) -> JSON:
    """Add the broker through MQTT's own config flow; its entry, once loaded."""
    account = {"broker": login["host"], **{key: login[key] for key in ("port", "username", "password")}}
    plain = {"set_ca_cert": "off", "set_client_cert": False}
    step = await home.flow("mqtt", {**account, "other_settings": plain})
    if step["type"] != "create_entry":
        raise Refused(step["type"], str(step["errors"]))
    return await home.entry("mqtt")


async def set_up(home: Home, node: str) -> JSON:
    """Set up the node that Home Assistant has discovered, agreeing to everything; its entry, once loaded."""
    flow = await home.discovered("edge_agent", f"edge_agent/{node}")
    step = await home.answer(flow["flow_id"], {})
    if step["type"] != "create_entry":
        raise Refused(step["type"], str(step.get("errors") or step.get("reason")))
    return await home.entry("edge_agent", entry_id=step["result"]["entry_id"])


async def entities(home: Home, entry: JSON, domain: str) -> list[str]:
    """The entities of one domain that an entry has brought."""
    entries = await home.call("config/entity_registry/list")
    mine = (each["entity_id"] for each in entries if each["config_entry_id"] == entry["entry_id"])
    return [entity for entity in mine if entity.startswith(f"{domain}.")]


async def assistant(home: Home, agent: str, *, preferred: bool = True, local: bool = False) -> str:
    """Make an Assist pipeline around a conversation entity; its id."""
    voices = {"stt_engine": None, "stt_language": None, "tts_engine": None, "tts_language": None, "tts_voice": None}
    made = await home.call(
        "assist_pipeline/pipeline/create",
        name="Edge Agent",
        language="en",
        conversation_engine=agent,
        conversation_language="en",
        prefer_local_intents=local,
        wake_word_entity=None,
        wake_word_id=None,
        **voices,
    )
    if preferred:
        await home.call("assist_pipeline/pipeline/set_preferred", pipeline_id=made["id"])
    identity: str = made["id"]
    return identity
