"""A small home with lamps that really switch, and an Edge Agent set up in it."""

import asyncio
from contextlib import ExitStack
from typing import Any, Self

from homeassistant.components import conversation
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.components.mqtt.const import MQTT_CONNECTION_STATE, MQTT_PROCESSED_SUBSCRIPTIONS
from homeassistant.config_entries import ConfigEntryState, ConfigSubentryDataWithId
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import chat_session
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import floor_registry as fr
from homeassistant.helpers.dispatcher import async_dispatcher_send
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.edge_agent.const import AI_TASK_DATA, CONVERSATION, DOMAIN
from tests.component.node import NODES

AGENT = "conversation.assistant"
TASKS = "ai_task.tasks"
LAMPS = {"Ceiling lamp": "Kitchen", "Reading lamp": "Bedroom", "Night light": "Bedroom"}
FLOORS = {"Kitchen": "Ground floor", "Bedroom": "Upstairs"}


def entry_of(
    name: str = "attic", *, options: dict[str, Any] | None = None, root: str = "edge_agent"
) -> MockConfigEntry:
    """An entry for a node, with an agent and a task entity; `options` are the agent's."""
    agent = {"llm_hass_api": ["assist"], **(options or {})}
    return MockConfigEntry(
        domain=DOMAIN,
        title=name,
        unique_id=f"{root}/{name}",
        data={"root": root, "node": name},
        subentries_data=[
            ConfigSubentryDataWithId(
                data=agent, subentry_type=CONVERSATION, title="Assistant", unique_id=None, subentry_id="agent"
            ),
            ConfigSubentryDataWithId(
                data={}, subentry_type=AI_TASK_DATA, title="Tasks", unique_id=None, subentry_id="tasks"
            ),
        ],
    )


async def set_up(hass: HomeAssistant, **kwargs: Any) -> MockConfigEntry:
    """Set up the entry of a node."""
    assert await async_setup_component(hass, "homeassistant", {})
    entry = entry_of(**kwargs)
    entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert entry.state is ConfigEntryState.LOADED
    return entry


async def furnish(hass: HomeAssistant) -> None:
    """Put three exposed lamps into two rooms on two floors."""
    assert await async_setup_component(hass, "homeassistant", {})
    assert await async_setup_component(hass, "input_boolean", {"input_boolean": {slug(each): None for each in LAMPS}})
    lights = [
        {
            "name": lamp,
            "unique_id": slug(lamp),
            "state": f"{{{{ states('input_boolean.{slug(lamp)}') }}}}",
            "turn_on": {"action": "input_boolean.turn_on", "target": {"entity_id": f"input_boolean.{slug(lamp)}"}},
            "turn_off": {"action": "input_boolean.turn_off", "target": {"entity_id": f"input_boolean.{slug(lamp)}"}},
        }
        for lamp in LAMPS
    ]
    assert await async_setup_component(hass, "template", {"template": [{"light": lights}]})
    assert await async_setup_component(hass, "intent", {})
    await hass.async_block_till_done()
    areas, floors = ar.async_get(hass), fr.async_get(hass)
    for lamp, room in LAMPS.items():
        floor = floors.async_get_floor_by_name(FLOORS[room]) or floors.async_create(FLOORS[room])
        area = areas.async_get_area_by_name(room) or areas.async_create(room, floor_id=floor.floor_id)
        er.async_get(hass).async_update_entity(f"light.{slug(lamp)}", area_id=area.id)
    for state in hass.states.async_all():
        async_expose_entity(hass, "conversation", state.entity_id, state.domain == "light")
    await hass.async_block_till_done()


def slug(name: str) -> str:
    return name.lower().replace(" ", "_")


async def converse(hass: HomeAssistant, text: str, **kwargs: Any) -> conversation.ConversationResult:
    """Say something to the agent, as a pipeline does."""
    kwargs = {"conversation_id": None, "context": Context(), "agent_id": AGENT, "language": "en", **kwargs}
    return await conversation.async_converse(hass, text, **kwargs)


class Live:
    """Somebody who speaks to the agent and watches the chat log meanwhile."""

    def __init__(self, hass: HomeAssistant) -> None:
        self._hass = hass
        self._deltas: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        session = self._stack.enter_context(chat_session.async_get_chat_session(self._hass))
        listener = lambda _, delta: self._deltas.put_nowait(delta)  # noqa: E731 - a callback of two arguments
        self._stack.enter_context(
            conversation.async_get_chat_log(self._hass, session, chat_log_delta_listener=listener)
        )
        self.conversation_id = session.conversation_id
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stack.close()

    def say(self, text: str) -> asyncio.Task[conversation.ConversationResult]:
        return self._hass.async_create_task(converse(self._hass, text, conversation_id=self.conversation_id))

    async def heard(self) -> str:
        """The next words, as they come."""
        while not (words := (await self._deltas.get()).get("content")):
            pass
        return words


def spoken(result: conversation.ConversationResult) -> str:
    return result.response.speech["plain"]["speech"]


def disconnect(hass: HomeAssistant) -> None:
    """Take the broker away."""
    hass.data["mqtt"].client.connected = False
    async_dispatcher_send(hass, MQTT_CONNECTION_STATE, False)


def reconnect(hass: HomeAssistant) -> None:
    """Bring the broker back: Home Assistant subscribes everything again, and the broker confirms it."""
    hass.data["mqtt"].client.connected = True
    hass.data["mqtt"].client._mock_wraps._retained_topics.clear()
    async_dispatcher_send(hass, MQTT_CONNECTION_STATE, True)
    async_dispatcher_send(hass, MQTT_PROCESSED_SUBSCRIPTIONS, [(topic, 0) for topic in subscribed(hass)])
    for node in hass.data.get(NODES, ()):
        node.present_again()


def subscribed(hass: HomeAssistant) -> set[str]:
    """What the component is subscribed to."""
    subscriptions = hass.data["mqtt"].client._mock_wraps.subscriptions
    return {each.topic for each in subscriptions if each.topic.startswith("edge_agent/")}
