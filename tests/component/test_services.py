from __future__ import annotations

import asyncio
from typing import Any

import pytest
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError, Unauthorized
from homeassistant.setup import async_setup_component
from probatio import Invalid
from pytest_homeassistant_custom_component.common import MockUser
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.edge_agent import client as wire_client
from custom_components.edge_agent.const import DOMAIN
from custom_components.edge_agent.errors import AgentError
from tests.component.home import disconnect, entry_of, set_up
from tests.component.node import Answer, Node, Request, error, final

DONE = Answer("final", {"object": "edge.admin", "op": "reload", "done": True})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_client, "SETTLE_S", 0.0)


async def call(hass: HomeAssistant, action: str, *, response: bool = False, **data: Any) -> Any:
    return await hass.services.async_call(DOMAIN, action, data, blocking=True, return_response=response)


async def ask(hass: HomeAssistant, **data: Any) -> dict[str, Any]:
    return await call(hass, "ask", response=True, **data)


def only(node: Node) -> Request:
    [request] = [each for each in node.requests if each.op == "chat"]
    return request


async def test_asking_any_node_returns_its_answer(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    answer = await ask(hass, prompt="Say OK.", system_prompt="Be brief.", max_tokens=9, temperature=0.5, timeout=7)
    assert answer["text"] == "OK."
    assert (answer["node"], answer["model"]) == ("attic", "smollm2-135m")
    assert answer["usage"]["prompt_tokens"] == 100
    assert "data" not in answer
    request = only(node)
    assert request.target == "any"
    assert request.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say OK."}]
    assert (request.body["max_tokens"], request.body["temperature"]) == (9, 0.5)
    assert (request.edge["priority"], request.edge["timeout_s"]) == ("normal", 7.0)


async def test_a_node_need_not_name_its_model(hass: HomeAssistant, node: Node) -> None:
    node.online()
    message = {"role": "assistant", "content": "Yes."}
    node.on(lambda _: [Answer("final", {"choices": [{"index": 0, "message": message}]})])
    await set_up(hass)
    assert await ask(hass, prompt="Hi") == {"text": "Yes.", "usage": {}, "node": "attic"}


async def test_a_chosen_node_answers_itself(hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient) -> None:
    node.online()
    cellar = Node(hass, mqtt_mock, "cellar")
    cellar.online()
    await set_up(hass)
    chosen = await set_up(hass, name="cellar")
    answer = await ask(hass, prompt="Hi", config_entry_id=chosen.entry_id, priority="batch")
    assert answer["node"] == "cellar"
    assert only(cellar).target == "cellar"
    assert only(cellar).edge["priority"] == "batch"


async def test_asking_any_means_any_of_the_default_root(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    other = Node(hass, mqtt_mock, "barn", root="other")
    other.online()
    await set_up(hass, name="barn", root="other")
    assert (await ask(hass, prompt="Hi"))["node"] == "barn"  # There is no other.
    node.online()
    await set_up(hass)
    assert (await ask(hass, prompt="Hi"))["node"] == "attic"


async def test_a_template_of_the_agent_is_filled(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass)
    await ask(hass, template="notification", variables={"event": "The washer is done."}, system_prompt="Be kind.")
    request = only(node)
    assert (request.edge["template"], request.edge["vars"]) == ("notification", {"event": "The washer is done."})
    assert request.messages == [{"role": "system", "content": "Be kind."}]
    await ask(hass, template="notification")
    assert "messages" not in node.requests[-1].body


STRUCTURE = {
    "title": {"selector": {"text": None}, "description": "At most five words", "required": True},
    "urgency": {"selector": {"number": {"min": 1, "max": 5}}},
}


async def test_a_structure_is_enforced_and_its_data_returned(hass: HomeAssistant, node: Node) -> None:
    node.online()
    node.on(lambda _: [final('{"title": "Washer done", "urgency": 2}')])
    await set_up(hass)
    answer = await ask(hass, prompt="Describe it.", structure=STRUCTURE)
    assert answer["data"] == {"title": "Washer done", "urgency": 2}
    schema = only(node).body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["title"] == {"type": "string", "description": "At most five words"}
    assert schema["properties"]["urgency"]["maximum"] == 5
    assert schema["required"] == ["title"]


@pytest.mark.parametrize(("reason", "key"), [("stop", "no_structure"), ("length", "too_long")])
async def test_an_answer_without_the_structure_is_an_error(
    hass: HomeAssistant, node: Node, reason: str, key: str
) -> None:
    node.online()
    node.on(lambda _: [final('{"title": "Was', reason=reason)])
    await set_up(hass)
    with pytest.raises(AgentError) as caught:
        await ask(hass, prompt="Describe it.", structure=STRUCTURE)
    assert caught.value.translation_key == key


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({}, "prompt_or_template"),
        ({"prompt": "Hi", "template": "notification"}, "prompt_or_template"),
        ({"prompt": "Hi", "variables": {}}, "variables_without_template"),
    ],
)
async def test_fields_that_do_not_go_together_are_explained(
    hass: HomeAssistant, node: Node, data: dict[str, Any], key: str
) -> None:
    node.online()
    await set_up(hass)
    with pytest.raises(ServiceValidationError) as caught:
        await ask(hass, **data)
    assert caught.value.translation_key == key
    assert not [each for each in node.requests if each.op == "chat"]


@pytest.mark.parametrize(
    "data",
    [
        {"structure": {}},
        {"structure": {"title": {}}},
        {"structure": {"title": {"selector": {"nonsense": None}}}},
        {"max_tokens": 0},
        {"temperature": 3},
        {"timeout": 0},
        {"priority": "now"},
        {"bogus": 1},
    ],
)
async def test_values_that_make_no_sense_are_refused(hass: HomeAssistant, node: Node, data: dict[str, Any]) -> None:
    await set_up(hass)
    with pytest.raises(Invalid):
        await ask(hass, prompt="Hi", **data)


async def test_without_a_loaded_entry_nobody_can_be_asked(hass: HomeAssistant, node: Node) -> None:
    entry = await set_up(hass)
    await hass.config_entries.async_unload(entry.entry_id)
    with pytest.raises(ServiceValidationError) as caught:
        await ask(hass, prompt="Hi")
    assert caught.value.translation_key == "no_node"
    for entry_id in (entry.entry_id, "unknown"):
        with pytest.raises(ServiceValidationError):
            await ask(hass, prompt="Hi", config_entry_id=entry_id)


@pytest.mark.parametrize(("code", "key"), [("busy", "busy"), ("rate_limited", "busy"), ("internal", "request_failed")])
async def test_what_the_node_refuses_is_a_translated_error(
    hass: HomeAssistant, node: Node, code: str, key: str
) -> None:
    node.online()
    node.on(lambda _: [error(code, "its own words")])
    await set_up(hass)
    with pytest.raises(AgentError) as caught:
        await ask(hass, prompt="Hi")
    assert (caught.value.translation_domain, caught.value.translation_key) == (DOMAIN, key)
    assert caught.value.translation_placeholders["message"] == "its own words"


async def test_nobody_ready_and_no_broker_are_told_at_once(hass: HomeAssistant, node: Node) -> None:
    entry = await set_up(hass)
    with pytest.raises(AgentError) as caught:
        await ask(hass, prompt="Hi")
    assert caught.value.code == "unavailable"
    disconnect(hass)
    for action, data in (("ask", {"prompt": "Hi"}), ("reload", {"config_entry_id": entry.entry_id})):
        with pytest.raises(AgentError) as caught:
            await call(hass, action, response=action == "ask", **data)
        assert caught.value.code == "broker_lost", action


async def test_prepare_lets_the_agents_that_are_meant_read_ahead(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"prefill": False})
    assert not node.requests
    await call(hass, "prepare", entity_id="conversation.assistant")
    assert [each.op for each in node.requests] == ["prepare"]
    await call(hass, "prepare", entity_id="all")
    assert [each.op for each in node.requests] == ["prepare", "prepare"]


async def test_prepare_says_when_it_did_not_work(hass: HomeAssistant, node: Node) -> None:
    node.online()
    node.on(lambda _: [error("context_overflow", "too much", prompt_tokens=9000, limit_tokens=8192)])
    await set_up(hass, options={"prefill": False})
    with pytest.raises(AgentError) as caught:
        await call(hass, "prepare", entity_id="conversation.assistant")
    assert caught.value.code == "context_overflow"


async def test_cancelling_everything_ends_every_answer(
    hass: HomeAssistant, node: Node, mqtt_mock: MqttMockHAClient
) -> None:
    barn = Node(hass, mqtt_mock, "barn", root="other")
    heard = asyncio.Event(), asyncio.Event()
    for each, event in zip((node, barn), heard, strict=True):
        each.online()
        each.on(lambda _, event=event: event.set() or ())
    first = await set_up(hass, options={"prefill": False})
    entry_of("attic-2").add_to_hass(hass)
    second = await set_up(hass, name="barn", root="other", options={"prefill": False})
    asked = [
        asyncio.create_task(ask(hass, prompt="Count to a million.", config_entry_id=entry.entry_id))
        for entry in (first, second)
    ]
    for event in heard:
        await event.wait()
    assert await call(hass, "cancel_all", response=True) == {"cancelled": 2}
    for result in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(result, AgentError)
        assert result.code == "cancelled"
    assert [rid for rid, _ in node.cancels] == [node.requests[0].rid]
    assert await call(hass, "cancel_all") is None


async def test_reload_gives_the_order_with_the_boot_it_means(hass: HomeAssistant, node: Node) -> None:
    node.online()
    node.on_order(lambda _: [DONE])
    entry = await set_up(hass)
    await call(hass, "reload", config_entry_id=entry.entry_id)
    [order] = node.orders
    assert (order.target, dict(order.body)) == ("attic", {"op": "reload", "boot": "boot1"})


async def test_a_node_that_takes_no_orders_says_whom_to_name(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.online()
    node.on_order(lambda _: [error("forbidden", "no operator")])
    entry = await set_up(hass)
    with pytest.raises(AgentError) as caught:
        await call(hass, "reload", config_entry_id=entry.entry_id)
    assert caught.value.translation_key == "not_operator"
    assert caught.value.translation_placeholders == {"node": "attic", "client": entry.runtime_data.client.name}


async def test_a_node_that_is_silent_takes_no_orders_either(
    hass: HomeAssistant, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.online()
    entry = await set_up(hass)
    order = entry.runtime_data.client.order
    monkeypatch.setattr(entry.runtime_data.client, "order", lambda *given: order(*given, timeout_s=0.01))
    with pytest.raises(AgentError) as caught:
        await call(hass, "reload", config_entry_id=entry.entry_id)
    assert caught.value.translation_key == "not_operator"
    assert node.orders


async def test_other_refusals_of_an_order_are_what_they_are(hass: HomeAssistant, node: Node) -> None:
    node.online()
    node.on_order(lambda _: [error("internal", "a fault")])
    entry = await set_up(hass)
    with pytest.raises(AgentError) as caught:
        await call(hass, "reload", config_entry_id=entry.entry_id)
    assert caught.value.translation_key == "request_failed"


async def test_only_an_administrator_may_reload_a_node(
    hass: HomeAssistant, node: Node, hass_admin_user: MockUser
) -> None:
    node.online()
    node.on_order(lambda _: [DONE])
    entry = await set_up(hass)

    async def reload(user: MockUser) -> None:
        await hass.services.async_call(
            DOMAIN, "reload", {"config_entry_id": entry.entry_id}, blocking=True, context=Context(user_id=user.id)
        )

    somebody = MockUser(groups=[]).add_to_hass(hass)
    with pytest.raises(Unauthorized):
        await reload(somebody)
    assert not node.orders
    await reload(hass_admin_user)
    assert node.orders


async def test_the_actions_are_there_before_any_entry(hass: HomeAssistant) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    assert await async_setup_component(hass, DOMAIN, {})
    assert set(hass.services.async_services_for_domain(DOMAIN)) == {"ask", "cancel_all", "prepare", "reload"}
    with pytest.raises(HomeAssistantError):
        await ask(hass, prompt="Hi")
