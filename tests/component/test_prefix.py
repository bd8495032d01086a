"""What a request begins with: the same bytes whoever asks, from wherever, and after a restart."""

import asyncio
import json

import pytest
from homeassistant.components.conversation import async_prepare_agent
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.components.intent.timers import async_register_timer_handler
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import Unauthorized
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import llm
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_time_changed

from tests.component.home import AGENT, converse, furnish, set_up
from tests.component.node import Node, error, final, speak


@pytest.fixture
async def home(hass: HomeAssistant, node: Node) -> Node:
    await furnish(hass)
    node.online()
    return node


def satellite(hass: HomeAssistant, name: str, area: str, *, timers: bool) -> str:
    """A voice satellite in an area; returns its device."""
    owner = MockConfigEntry(domain="wyoming")
    owner.add_to_hass(hass)
    registry = dr.async_get(hass)
    device = registry.async_get_or_create(config_entry_id=owner.entry_id, identifiers={("wyoming", name)}, name=name)
    registry.async_update_device(device.id, area_id=ar.async_get(hass).async_get_area_by_name(area).id)
    er.async_get(hass).async_get_or_create("assist_satellite", "wyoming", name, device_id=device.id)
    if timers:
        async_register_timer_handler(hass, device.id, lambda *_: None)
    return device.id


def begins(request) -> bytes:
    """The part of a request that an engine reads first."""
    return json.dumps([request.messages[0], request.body.get("tools")]).encode()


def chats(node: Node) -> list:
    return [request for request in node.requests if request.op == "chat"]


def prepares(node: Node) -> list:
    return [request for request in node.requests if request.op == "prepare"]


async def settle(hass: HomeAssistant) -> None:
    """Let the home be quiet for long enough."""
    async_fire_time_changed(hass, dt_util.utcnow().replace(year=dt_util.utcnow().year + 1), fire_all=True)
    await hass.async_block_till_done(wait_background_tasks=True)


async def test_the_prefix_is_the_same_for_every_turn_satellite_and_start(hass: HomeAssistant, home: Node) -> None:
    kitchen = satellite(hass, "kitchen", "Kitchen", timers=True)
    bedroom = satellite(hass, "bedroom", "Bedroom", timers=False)
    entry = await set_up(hass)
    first = await converse(hass, "One", device_id=kitchen)
    await converse(hass, "Two", device_id=kitchen, conversation_id=first.conversation_id)
    await converse(hass, "Three", device_id=bedroom)
    await converse(hass, "Four")
    await hass.config_entries.async_reload(entry.entry_id)
    await converse(hass, "Five", device_id=bedroom)
    assert len(chats(home)) == 5
    assert len({begins(request) for request in chats(home)}) == 1


async def test_room_and_time_open_the_users_first_message(hass: HomeAssistant, home: Node) -> None:
    kitchen = satellite(hass, "kitchen", "Kitchen", timers=False)
    await set_up(hass)
    first = await converse(hass, "Light on", device_id=kitchen)
    await converse(hass, "And off", device_id=kitchen, conversation_id=first.conversation_id)
    one, two = chats(home)
    assert "You are in area Kitchen" in one.messages[1]["content"]
    assert one.messages[1]["content"].endswith("Light on")
    assert "Kitchen (floor" not in one.messages[0]["content"]
    assert two.messages[:2] == one.messages  # What the node has read, it need not read again.
    assert two.messages[-1]["content"] == "And off"


async def test_extra_instructions_are_no_part_of_the_prefix(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await converse(hass, "Hello", extra_system_prompt="The doorbell rang.")
    await converse(hass, "Hello")
    one, two = chats(home)
    assert begins(one) == begins(two)
    assert "The doorbell rang." in one.messages[1]["content"]


async def test_a_prompt_that_looks_at_the_clock_is_no_part_of_the_prefix(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass, options={"prompt": "It is {{ now() }}.", "llm_hass_api": []})
    await converse(hass, "Hello")
    [request] = chats(home)
    assert "It is" not in request.messages[0]["content"]
    assert "It is" in request.messages[1]["content"]


async def test_tools_are_sorted_grounded_and_those_of_every_satellite(hass: HomeAssistant, home: Node) -> None:
    satellite(hass, "kitchen", "Kitchen", timers=True)
    await set_up(hass)
    await converse(hass, "Hello")
    [request] = chats(home)
    names = [tool["function"]["name"] for tool in request.body["tools"]]
    assert names == sorted(names)
    assert "intent__HassStartTimer" in names
    assert request.edge["defs"]
    assert "Reading lamp" in json.dumps(request.edge["defs"])


async def test_a_satellite_that_learned_to_ring_brings_its_tools(hass: HomeAssistant, home: Node) -> None:
    kitchen = satellite(hass, "kitchen", "Kitchen", timers=False)
    await set_up(hass)
    await converse(hass, "Hello", device_id=kitchen)
    async_register_timer_handler(hass, kitchen, lambda *_: None)
    await converse(hass, "Set a timer", device_id=kitchen)
    before, after = ({tool["function"]["name"] for tool in each.body["tools"]} for each in chats(home))
    assert "intent__HassStartTimer" in after - before


async def test_the_node_reads_it_at_the_start_and_when_somebody_begins_to_speak(
    hass: HomeAssistant, home: Node
) -> None:
    await set_up(hass)
    await settle(hass)
    [at_start] = prepares(home)
    await async_prepare_agent(hass, AGENT, "en")
    await converse(hass, "Hello")
    _, on_wake = prepares(home)
    [chat] = chats(home)
    assert begins(at_start) == begins(on_wake) == begins(chat)
    assert len(on_wake.messages) == 1


async def test_the_user_may_not_want_that(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass, options={"prefill": False})
    await settle(hass)
    assert prepares(home) == []


async def test_a_change_of_the_home_is_read_once_it_is_quiet(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await settle(hass)
    async_expose_entity(hass, "conversation", "light.night_light", should_expose=False)
    ar.async_get(hass).async_create("Attic")
    await settle(hass)
    one, two = prepares(home)
    assert "Night light" in one.messages[0]["content"]
    assert "Night light" not in two.messages[0]["content"]
    await converse(hass, "Hello")
    assert begins(chats(home)[0]) == begins(two)


async def test_a_change_that_changes_nothing_is_not_read(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await settle(hass)
    er.async_get(hass).async_update_entity("light.night_light", icon="mdi:moon-waning-crescent")
    await settle(hass)
    assert len(prepares(home)) == 1


async def test_a_turn_right_after_a_change_knows_it(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await converse(hass, "Hello")
    async_expose_entity(hass, "conversation", "light.night_light", should_expose=False)
    await converse(hass, "Hello")
    assert "Night light" not in json.dumps(chats(home)[-1].body)


async def test_a_node_that_comes_back_reads_it_again(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await settle(hass)
    home.offline()
    home.online(boot="boot2")
    await hass.async_block_till_done(wait_background_tasks=True)
    assert len(prepares(home)) == 2


async def test_a_home_that_does_not_fit_raises_a_repair_with_the_numbers(
    hass: HomeAssistant, home: Node, issue_registry
) -> None:
    full = [error("context_overflow", "too long", prompt_tokens=4000, limit_tokens=1023, tokens_over=2977)]
    home.on(lambda _: full)
    await set_up(hass)
    await settle(hass)
    issue = issue_registry.async_get_issue("edge_agent", "context_too_small_agent")
    assert issue.translation_placeholders["prompt_tokens"] == "4000"
    assert issue.translation_placeholders["limit_tokens"] == "1023"
    assert (await converse(hass, "Hello")).response.error_code
    home.on(lambda request: speak("Yes.") if request.op == "chat" else [final()])
    await converse(hass, "Hello")
    assert issue_registry.async_get_issue("edge_agent", "context_too_small_agent") is None


class AdminAPI(llm.API):
    """An API that is given to an administrator alone."""

    async def async_get_api_instance(self, llm_context: llm.LLMContext) -> llm.APIInstance:
        if not llm_context.context or not llm_context.context.user_id:
            raise Unauthorized
        return llm.APIInstance(self, "You administer this home.", llm_context, [])


async def test_an_api_for_administrators_is_offered_to_them_alone(
    hass: HomeAssistant, home: Node, hass_admin_user
) -> None:
    llm.async_register_api(hass, AdminAPI(hass=hass, id="admin", name="Admin"))
    await set_up(hass, options={"llm_hass_api": ["admin"]})
    await settle(hass)
    await converse(hass, "Hello", context=Context(user_id=hass_admin_user.id))
    [request] = chats(home)
    assert "You administer this home." in request.messages[0]["content"]
    assert prepares(home) == []


async def test_a_turn_that_is_cancelled_while_it_is_written_spoils_nothing(
    hass: HomeAssistant, home: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(hass)
    await converse(hass, "Hello")
    async_expose_entity(hass, "conversation", "light.night_light", should_expose=False)

    def interrupted(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr("custom_components.edge_agent.prefix.take", interrupted)
        with pytest.raises(asyncio.CancelledError):
            await converse(hass, "Hello")
    await converse(hass, "Hello")
    assert "Night light" not in json.dumps(chats(home)[-1].body)


async def test_the_name_of_a_user_is_no_part_of_the_prefix(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass, options={"prompt": "Be kind.\nYou talk with {{ user_name }}.", "llm_hass_api": []})
    await converse(hass, "Hello")
    [request] = chats(home)
    assert request.messages[0]["content"] == "Be kind."
    assert "You talk with" in request.messages[1]["content"]


async def test_a_satellite_that_can_ring_is_heard_among_many(hass: HomeAssistant, home: Node) -> None:
    for number in range(10):
        satellite(hass, f"s{number}", "Kitchen", timers=False)
    ringing = satellite(hass, "zz", "Bedroom", timers=True)
    await set_up(hass)
    await converse(hass, "Hello")
    await converse(hass, "Set a timer", device_id=ringing)
    await converse(hass, "Hello")
    names = [{tool["function"]["name"] for tool in each.body["tools"]} for each in chats(home)]
    assert "intent__HassStartTimer" in names[1] & names[2]


async def test_a_change_while_it_is_read_is_read_next(hass: HomeAssistant, home: Node) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def slowly():
        asked.set()
        await go.wait()
        yield final()

    home.on(lambda request: slowly() if request.op == "prepare" else speak("Yes."))
    await set_up(hass)
    async_fire_time_changed(hass, dt_util.utcnow() + dt_util.dt.timedelta(seconds=10))
    await asked.wait()
    async_expose_entity(hass, "conversation", "light.night_light", should_expose=False)
    go.set()
    await hass.async_block_till_done(wait_background_tasks=True)
    assert "Night light" in prepares(home)[0].messages[0]["content"]
    assert "Night light" not in prepares(home)[-1].messages[0]["content"]
    assert len(prepares(home)) == 2


async def test_an_entity_that_is_renamed_is_read_by_its_new_name(hass: HomeAssistant, home: Node) -> None:
    await set_up(hass)
    await settle(hass)
    er.async_get(hass).async_update_entity("light.night_light", name="Moon")
    await settle(hass)
    assert "Moon" in prepares(home)[-1].messages[0]["content"]
