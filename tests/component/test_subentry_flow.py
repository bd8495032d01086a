from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from homeassistant.config_entries import SOURCE_USER, ConfigEntry, ConfigSubentry
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers import llm

from custom_components.edge_agent import const
from custom_components.edge_agent.subentry_flow import CONVERSATION_DEFAULTS, TASK_DEFAULTS
from tests.component.home import set_up
from tests.component.node import Node

FEW = {"max_tokens": 200, "temperature": 0.5, "timeout": 30}
MUCH = {
    **FEW,
    "confirm": const.CONFIRM_MODEL,
    "continue_conversation": const.CONTINUE_ALWAYS,
    "local_states": False,
    "prefill": False,
}


@pytest.fixture
async def entry(hass: HomeAssistant, node: Node) -> ConfigEntry:
    node.online()
    return await set_up(hass)


def of_kind(entry: ConfigEntry, kind: str) -> ConfigSubentry:
    return next(each for each in entry.subentries.values() if each.subentry_type == kind)


async def add(hass: HomeAssistant, entry: ConfigEntry, kind: str) -> dict[str, Any]:
    return await hass.config_entries.subentries.async_init((entry.entry_id, kind), context={"source": SOURCE_USER})


async def finish(hass: HomeAssistant, result: dict[str, Any], **user_input: Any) -> dict[str, Any]:
    result = await hass.config_entries.subentries.async_configure(result["flow_id"], user_input)
    await hass.async_block_till_done()
    return result


def suggested(result: dict[str, Any]) -> dict[str, Any]:
    """What the form shows when it opens, sections flattened."""
    shown: dict[str, Any] = {}
    for key, value in result["data_schema"].schema.items():
        if key == const.SECTION_ADVANCED:
            fields = value.schema.schema
            shown |= {str(each): (each.description or {}).get("suggested_value") for each in fields}
        else:
            shown[str(key)] = (key.description or {}).get("suggested_value")
    return shown


async def test_an_agent_is_added_with_what_was_put_in_stored_flat(hass: HomeAssistant, entry: ConfigEntry) -> None:
    result = await add(hass, entry, const.CONVERSATION)
    assert (result["type"], result["step_id"]) == (FlowResultType.FORM, "init")
    assert suggested(result) == {
        "name": "Edge Agent attic",
        **CONVERSATION_DEFAULTS,
        "max_tokens": None,
        "temperature": None,
    }
    result = await finish(
        hass, result, name="Jeeves", prompt="Be polite.", llm_hass_api=["assist"], target="any", advanced=MUCH
    )
    assert result["type"] is FlowResultType.CREATE_ENTRY
    [jeeves] = [each for each in entry.subentries.values() if each.title == "Jeeves"]
    assert jeeves.data == {"prompt": "Be polite.", "llm_hass_api": ["assist"], "target": "any", **MUCH}
    assert hass.states.get("conversation.jeeves")


async def test_what_nobody_sets_is_as_the_defaults_say(hass: HomeAssistant, entry: ConfigEntry) -> None:
    result = await add(hass, entry, const.CONVERSATION)
    prompt, apis = CONVERSATION_DEFAULTS["prompt"], CONVERSATION_DEFAULTS["llm_hass_api"]
    await finish(hass, result, name="Plain", prompt=prompt, llm_hass_api=apis, advanced={})
    [plain] = [each for each in entry.subentries.values() if each.title == "Plain"]
    assert plain.data == CONVERSATION_DEFAULTS


async def test_a_task_entity_is_added(hass: HomeAssistant, entry: ConfigEntry) -> None:
    result = await add(hass, entry, const.AI_TASK_DATA)
    assert suggested(result) == {
        "name": "Edge Agent attic AI task",
        **TASK_DEFAULTS,
        "max_tokens": None,
        "temperature": None,
    }
    await finish(hass, result, name="Chores", target="node", advanced=FEW)
    [chores] = [each for each in entry.subentries.values() if each.title == "Chores"]
    assert chores.data == {"target": "node", **FEW}
    assert hass.states.get("ai_task.chores")


async def test_an_agent_is_changed_and_what_was_cleared_is_gone(hass: HomeAssistant, entry: ConfigEntry) -> None:
    agent = of_kind(entry, const.CONVERSATION)
    result = await entry.start_subentry_reconfigure_flow(hass, agent.subentry_id)
    assert "name" not in suggested(result)
    result = await finish(hass, result, prompt="Be brief.", target="any", advanced=MUCH)
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    changed = entry.subentries[agent.subentry_id]
    assert changed.data == {"prompt": "Be brief.", "llm_hass_api": [], "target": "any", **MUCH}
    assert changed.title == agent.title

    result = await entry.start_subentry_reconfigure_flow(hass, agent.subentry_id)
    assert suggested(result) == changed.data
    await finish(hass, result, target="node", advanced={"timeout": 20})
    again = entry.subentries[agent.subentry_id].data
    assert "prompt" not in again
    assert "max_tokens" not in again
    assert (again["timeout"], again["prefill"]) == (20, True)


async def test_a_task_entity_is_changed(hass: HomeAssistant, entry: ConfigEntry) -> None:
    tasks = of_kind(entry, const.AI_TASK_DATA)
    result = await entry.start_subentry_reconfigure_flow(hass, tasks.subentry_id)
    result = await finish(hass, result, target="any", advanced=FEW)
    assert result["reason"] == "reconfigure_successful"
    assert entry.subentries[tasks.subentry_id].data == {"target": "any", **FEW}


async def test_an_api_that_has_gone_is_not_offered_again(hass: HomeAssistant, entry: ConfigEntry) -> None:
    agent = of_kind(entry, const.CONVERSATION)
    hass.config_entries.async_update_subentry(entry, agent, data={"llm_hass_api": ["assist", "gone"]})
    await hass.async_block_till_done()
    result = await entry.start_subentry_reconfigure_flow(hass, agent.subentry_id)
    assert suggested(result)["llm_hass_api"] == ["assist"]


async def test_every_api_of_home_assistant_can_be_chosen(hass: HomeAssistant, entry: ConfigEntry) -> None:
    class Weather(llm.API):
        async def async_get_api_instance(self, llm_context: llm.LLMContext) -> llm.APIInstance:
            return llm.APIInstance(self, "", llm_context, [])

    llm.async_register_api(hass, Weather(hass=hass, id="weather", name="Weather"))
    result = await add(hass, entry, const.CONVERSATION)
    selector = result["data_schema"].schema["llm_hass_api"]
    assert {"value": "weather", "label": "Weather"} in selector.config["options"]
    result = await finish(hass, result, name="Rain", llm_hass_api=["weather"], advanced={})
    assert result["type"] is FlowResultType.CREATE_ENTRY


@pytest.mark.parametrize(
    "advanced",
    [{"max_tokens": 0}, {"temperature": 3}, {"timeout": 1}, {"confirm": "loudly"}, {"continue_conversation": "maybe"}],
)
async def test_what_makes_no_sense_is_refused(
    hass: HomeAssistant, entry: ConfigEntry, advanced: dict[str, Any]
) -> None:
    result = await add(hass, entry, const.CONVERSATION)
    with pytest.raises(InvalidData):
        await finish(hass, result, name="Odd", advanced=advanced)


@pytest.mark.parametrize("kind", [const.CONVERSATION, const.AI_TASK_DATA])
async def test_nothing_is_added_to_or_changed_in_what_is_not_loaded(
    hass: HomeAssistant, entry: ConfigEntry, kind: str
) -> None:
    await hass.config_entries.async_unload(entry.entry_id)
    assert (await add(hass, entry, kind))["reason"] == "entry_not_loaded"
    result = await entry.start_subentry_reconfigure_flow(hass, of_kind(entry, kind).subentry_id)
    assert result["reason"] == "entry_not_loaded"


async def test_removing_an_agent_removes_its_entity(hass: HomeAssistant, entry: ConfigEntry) -> None:
    agent = of_kind(entry, const.CONVERSATION)
    assert hass.states.get("conversation.assistant")
    hass.config_entries.async_remove_subentry(entry, agent.subentry_id)
    await hass.async_block_till_done()
    assert hass.states.get("conversation.assistant") is None
    assert hass.states.get("ai_task.tasks")


def test_the_defaults_cannot_be_changed_by_accident() -> None:
    assert isinstance(CONVERSATION_DEFAULTS, MappingProxyType)
    assert isinstance(TASK_DEFAULTS, MappingProxyType)
