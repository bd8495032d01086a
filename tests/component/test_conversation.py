"""The agent: answers stream into the chat log, tools are called, and whatever fails is said."""

import asyncio
import json

import pytest
from homeassistant.components import conversation
from homeassistant.components.conversation.trace import async_get_traces
from homeassistant.core import HomeAssistant
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import chat_session, intent
from homeassistant.helpers import device_registry as dr
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_mqtt_message

from custom_components.edge_agent.const import MAX_ROUNDS
from custom_components.edge_agent.conversation import area_of
from custom_components.edge_agent.wire import Reply
from tests.component.home import AGENT, LAMPS, Live, converse, disconnect, furnish, set_up, spoken
from tests.component.node import Answer, Node, accepted, act, chunk, error, final, speak, tool_call


@pytest.fixture
async def agent(hass: HomeAssistant, node: Node) -> Node:
    """A furnished home whose agent is there."""
    await furnish(hass)
    node.online()
    await set_up(hass)
    node.requests.clear()
    return node


def chats(node: Node) -> list:
    return [request for request in node.requests if request.op == "chat"]


async def test_the_agent_is_there_while_its_node_is_ready(hass: HomeAssistant, agent: Node) -> None:
    assert hass.states.get(AGENT).state == "unknown"
    for change, state in (
        (agent.offline, "unavailable"),
        (agent.online, "unknown"),
        (lambda: agent.change(phase="loading"), "unavailable"),
        (lambda: agent.change(phase="ready"), "unknown"),
    ):
        change()
        await hass.async_block_till_done()
        assert hass.states.get(AGENT).state == state


async def test_an_answer_is_spoken(hass: HomeAssistant, agent: Node) -> None:
    agent.say(speak("It is ", "sunny."))
    result = await converse(hass, "How is the weather?")
    assert spoken(result) == "It is sunny."
    assert result.response.response_type is intent.IntentResponseType.ACTION_DONE
    [request] = chats(agent)
    assert request.target == "attic"
    assert request.edge["priority"] == "voice"
    assert request.edge["trim"]
    assert request.body["stream"]
    assert request.messages[-1]["content"].endswith("How is the weather?")


async def test_it_is_heard_while_it_is_written(hass: HomeAssistant, agent: Node) -> None:
    go = asyncio.Event()

    async def slowly():
        yield accepted()
        yield chunk(content="First words, ")
        await go.wait()
        yield chunk(content="then more.")
        yield final("First words, then more.")

    agent.on(lambda request: slowly() if request.op == "chat" else [final()])
    async with Live(hass) as live:
        answer = live.say("Talk")
        assert await live.heard() == "First words,"
        go.set()
        assert spoken(await answer) == "First words, then more."


async def test_the_model_acts_and_a_sentence_confirms_it_without_asking_again(hass: HomeAssistant, agent: Node) -> None:
    agent.say(act(tool_call("intent__HassTurnOn", {"name": "Ceiling lamp", "domain": ["light"]})))
    result = await converse(hass, "Turn on the ceiling lamp")
    await hass.async_block_till_done()
    assert hass.states.get("light.ceiling_lamp").state == "on"
    assert spoken(result) == "Turned on the ceiling lamp."
    assert len(chats(agent)) == 1


async def test_several_calls_at_once(hass: HomeAssistant, agent: Node) -> None:
    calls = [
        tool_call("intent__HassTurnOn", {"name": lamp}, id_=f"call-{index}", index=index)
        for index, lamp in enumerate(LAMPS)
    ]
    agent.say(act(*calls))
    result = await converse(hass, "All lamps on")
    await hass.async_block_till_done()
    assert {hass.states.get(each).state for each in hass.states.async_entity_ids("light")} == {"on"}
    assert spoken(result)
    assert len(chats(agent)) == 1


async def test_the_model_confirms_itself_if_the_user_wants_that(hass: HomeAssistant, node: Node) -> None:
    await furnish(hass)
    node.online()
    await set_up(hass, options={"confirm": "model"})
    node.say(act(tool_call("intent__HassTurnOn", {"name": "Ceiling lamp"})), speak("There you are."))
    assert spoken(await converse(hass, "Turn on the ceiling lamp")) == "There you are."
    _, second = chats(node)
    roles = [message["role"] for message in second.messages]
    assert roles == ["system", "user", "assistant", "tool"]
    assert second.messages[-1]["tool_call_id"] == "call-1"
    assert json.loads(second.messages[-1]["content"])["response_type"] == "action_done"


async def test_nearly_right_arguments_are_put_right(hass: HomeAssistant, agent: Node) -> None:
    given = {"name": "the ceiling lamps", "area": "Bathroom", "domain": "light", "floor": ""}
    agent.say(act(tool_call("HassTurnOn", given)))
    await converse(hass, "Turn on the ceiling lamp")
    await hass.async_block_till_done()
    assert hass.states.get("light.ceiling_lamp").state == "on"


async def test_what_does_not_exist_is_told_to_the_model_once_and_then_to_the_user(
    hass: HomeAssistant, agent: Node
) -> None:
    agent.say(act(tool_call("intent__HassTurnOn", {"name": "Disco ball"})))
    result = await converse(hass, "Turn on the disco ball")
    first, second = chats(agent)
    told = json.loads(second.messages[-1]["content"])
    assert told["error"] == "impossible"
    assert "Disco ball" in told["error_text"]
    assert "Disco ball" in spoken(result)
    assert first.messages == second.messages[:2]


async def test_an_unknown_tool_is_told_to_the_model(hass: HomeAssistant, agent: Node) -> None:
    agent.say(act(tool_call("launch_rocket")), speak("I cannot do that."))
    assert spoken(await converse(hass, "Launch")) == "I cannot do that."
    assert "launch_rocket" in chats(agent)[1].messages[-1]["content"]


async def test_an_error_of_a_tool_goes_back_to_the_model(hass: HomeAssistant, agent: Node) -> None:
    calls = act(tool_call("intent__HassSetPosition", {"name": "Ceiling lamp", "position": 40}))
    agent.say(calls, speak("A lamp has no position."))
    assert spoken(await converse(hass, "Open the ceiling lamp")) == "A lamp has no position."
    assert json.loads(chats(agent)[1].messages[-1]["content"])["error"]


async def test_broken_arguments_are_no_end(hass: HomeAssistant, agent: Node) -> None:
    agent.say(act(tool_call("intent__HassTurnOn", '{"name": ')), speak("Once more, please."))
    assert spoken(await converse(hass, "Turn on")) == "Once more, please."


async def test_a_model_that_only_calls_is_stopped(hass: HomeAssistant, agent: Node) -> None:
    agent.say(act(tool_call("homeassistant__GetLiveContext")))
    result = await converse(hass, "Is it on?")
    assert len(chats(agent)) == MAX_ROUNDS
    assert spoken(result)
    assert result.response.response_type is intent.IntentResponseType.ACTION_DONE


async def test_thoughts_are_shown_and_never_spoken(hass: HomeAssistant, agent: Node) -> None:
    agent.say([chunk(reasoning_content="Let me see."), chunk(content="Yes."), final("Yes.", thought="Let me see.")])
    with chat_session.async_get_chat_session(hass) as session:
        result = await converse(hass, "Well?", conversation_id=session.conversation_id)
        with conversation.async_get_chat_log(hass, session) as chat_log:
            assert chat_log.content[-1].thinking_content == "Let me see."
    assert spoken(result) == "Yes."


async def test_markdown_and_emoji_are_not_spoken(hass: HomeAssistant, agent: Node) -> None:
    agent.say(speak("**It", "** is _warm_ 😀", " today."))
    assert spoken(await converse(hass, "Well?")) == "It is warm today."


@pytest.mark.parametrize(
    ("code", "language", "words"),
    [
        ("busy", "en", "too much to do"),
        ("rate_limited", "en", "too much to do"),
        ("draining", "en", ""),
        ("engine_failed", "en", "stopped"),
        ("internal", "en", "no"),
        ("expired", "de", ""),
    ],
)
async def test_what_the_node_refuses_is_said(
    hass: HomeAssistant, agent: Node, code: str, language: str, words: str
) -> None:
    agent.say([error(code)])
    result = await converse(hass, "Hello", language=language)
    assert result.response.response_type is intent.IntentResponseType.ERROR
    assert words in spoken(result)
    assert "{" not in spoken(result)
    assert spoken(result) != code


async def test_the_user_hears_it_in_their_language(hass: HomeAssistant, agent: Node) -> None:
    agent.say([error("busy")])
    said = {language: spoken(await converse(hass, "Hello", language=language)) for language in ("en", "de", "fr", "xx")}
    assert said["en"] == said["xx"]
    assert len(set(said.values())) == 3


@pytest.mark.parametrize("trouble", ["offline", "loading", "draining", "failed", "disconnected"])
async def test_nobody_there_is_said_at_once(hass: HomeAssistant, agent: Node, trouble: str) -> None:
    if trouble == "offline":
        agent.offline()
    elif trouble == "disconnected":
        disconnect(hass)
    else:
        agent.change(phase=trouble)
    await hass.async_block_till_done()
    agent.requests.clear()
    result = await converse(hass, "Hello")
    assert result.response.response_type is intent.IntentResponseType.ERROR
    assert ("switched off" in spoken(result)) is (trouble == "offline")
    assert agent.requests == []


async def test_a_turn_that_is_cancelled_is_cancelled_at_the_node(hass: HomeAssistant, agent: Node) -> None:
    asked = asyncio.Event()

    def silent(request):
        if request.op == "chat":
            asked.set()
            return [accepted()]
        return [final()]

    agent.on(silent)
    task = hass.async_create_task(converse(hass, "Tell me a story"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await hass.async_block_till_done()
    assert [rid for rid, _ in agent.cancels] == [chats(agent)[0].rid]


async def test_two_conversations_at_once_do_not_mix(hass: HomeAssistant, agent: Node) -> None:
    agent.on(lambda request: speak(request.messages[-1]["content"][-1], "!") if request.op == "chat" else [final()])
    results = await asyncio.gather(*(converse(hass, f"Say {letter}") for letter in "ABCDE"))
    assert [spoken(each) for each in results] == ["A!", "B!", "C!", "D!", "E!"]


async def test_a_question_of_the_model_keeps_the_conversation_open(hass: HomeAssistant, agent: Node) -> None:
    agent.say(speak("Which lamp?"), speak("Done."))
    assert (await converse(hass, "Turn on the lamp")).continue_conversation
    assert not (await converse(hass, "Turn on the lamp")).continue_conversation


@pytest.mark.parametrize(("choice", "text", "goes_on"), [("never", "Which?", False), ("always", "Done.", True)])
async def test_the_user_decides_whether_it_stays_open(
    hass: HomeAssistant, node: Node, choice: str, text: str, goes_on: bool
) -> None:
    node.online()
    await set_up(hass, options={"continue_conversation": choice})
    node.say(speak(text))
    assert (await converse(hass, "Hello")).continue_conversation is goes_on


async def test_options_reach_the_node(hass: HomeAssistant, node: Node) -> None:
    node.online()
    options = {"max_tokens": 50, "temperature": 0.2, "timeout": 9, "target": "any", "llm_hass_api": []}
    await set_up(hass, options={**options, "prompt": "Speak like a pirate."})
    await converse(hass, "Hello")
    [request] = chats(node)
    assert (request.target, request.body["max_tokens"], request.body["temperature"]) == ("any", 50, 0.2)
    assert 8 < request.edge["timeout_s"] <= 9
    assert "tools" not in request.body
    assert request.messages[0] == {"role": "system", "content": "Speak like a pirate."}


async def test_an_api_that_is_gone_is_said(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"llm_hass_api": ["gone"]})
    result = await converse(hass, "Hello")
    assert result.response.error_code is intent.IntentResponseErrorCode.UNKNOWN
    assert chats(node) == []


async def test_a_prompt_that_cannot_be_rendered_is_said(hass: HomeAssistant, node: Node) -> None:
    node.online()
    await set_up(hass, options={"prompt": "{{ nothing.here.at.all }}"})
    result = await converse(hass, "Hello")
    assert result.response.error_code is intent.IntentResponseErrorCode.UNKNOWN


async def test_the_trace_tells_what_a_turn_cost(hass: HomeAssistant, agent: Node) -> None:
    agent.say([accepted(), chunk(content="Hi"), final("Hi", timings={"first_token_s": 0.2})])
    await converse(hass, "Hello")
    stats = [
        event["data"]["stats"]
        for event in async_get_traces()[-1].as_dict()["events"]
        if "stats" in (event["data"] or {})
    ]
    assert stats == [
        {"input_tokens": 100, "output_tokens": 5, "cached_input_tokens": 90, "first_token_s": 0.2},
    ]


async def test_lost_repeated_and_late_messages_do_not_harm(hass: HomeAssistant, agent: Node) -> None:
    first, second, third = (chunk(content=word) for word in ("One ", "two ", "three"))

    def answer(request):
        if request.op != "chat":
            return [final()]
        late = [
            type(first)(first.kind, first.body, seq=1),
            type(first)(first.kind, first.body, seq=1),
            type(third)(third.kind, third.body, seq=3),
            type(second)(second.kind, second.body, seq=2),
        ]
        whole = final("One two three")
        return [accepted(), *late, type(whole)(whole.kind, whole.body, seq=4)]

    agent.on(answer)
    assert spoken(await converse(hass, "Count")) == "One two three"


@pytest.mark.parametrize("answer", [speak(""), speak("👍"), [chunk(reasoning_content="Hm."), final("", thought="Hm.")]])
async def test_an_answer_without_words_is_said(hass: HomeAssistant, agent: Node, answer: list) -> None:
    agent.say(answer)
    result = await converse(hass, "Hello", language="de")
    assert result.response.response_type is intent.IntentResponseType.ERROR
    assert "Sprachmodell" in spoken(result)


BROKEN = [
    {"choices": None},
    {"choices": [None]},
    {"choices": [{"delta": None, "message": None}]},
    {"choices": [{"delta": {"content": 5}, "message": {"content": 5}}]},
    {"choices": [{"delta": {"tool_calls": [{}]}, "message": {"tool_calls": [{}]}}]},
    {"choices": [{"message": {"content": "Hi"}}], "usage": [1]},
]


@pytest.mark.parametrize("kind", ["chunk", "final"])
@pytest.mark.parametrize("body", BROKEN)
async def test_whatever_a_stranger_sends_is_an_error_that_is_said(
    hass: HomeAssistant, agent: Node, kind: str, body: dict
) -> None:
    agent.say([Answer(kind, body), error("busy")])
    result = await converse(hass, "Hello")
    assert result.response.response_type is intent.IntentResponseType.ERROR
    assert "{" not in spoken(result)


async def test_absurd_numbers_are_impossible(hass: HomeAssistant, agent: Node) -> None:
    call = tool_call("light__HassLightSet", f'{{"name": "Ceiling lamp", "brightness": 1{"0" * 400}}}')
    agent.say(act(call), speak("That is too bright."))
    assert spoken(await converse(hass, "Brighter")) == "That is too bright."


async def test_a_turn_ends_with_its_entry(hass: HomeAssistant, agent: Node) -> None:
    agent.on(lambda request: [accepted(), chunk(content="Once ")] if request.op == "chat" else [final()])
    entry = hass.config_entries.async_entries("edge_agent")[0]
    async with Live(hass) as live:
        answer = live.say("A story")
        assert await live.heard() == "Once"
        assert await hass.config_entries.async_unload(entry.entry_id)
        assert (await answer).response.response_type is intent.IntentResponseType.ERROR
    await hass.async_block_till_done()
    assert [rid for rid, _ in agent.cancels] == [chats(agent)[0].rid]


async def test_a_retained_answer_is_none(hass: HomeAssistant, agent: Node) -> None:
    def answer(request):
        if request.op != "chat":
            return [final()]
        forged = Reply(request.rid, 1, "final", "attic", "boot1", True, final("Forged.").body).encode()
        async_fire_mqtt_message(hass, agent.topics.out(request.client), forged, 1, True)
        return speak("Real.")

    agent.on(answer)
    assert spoken(await converse(hass, "Hello")) == "Real."


async def test_the_room_of_whoever_speaks_is_known(hass: HomeAssistant, agent: Node) -> None:
    owner = MockConfigEntry(domain="wyoming")
    owner.add_to_hass(hass)
    kitchen = ar.async_get(hass).async_get_area_by_name("Kitchen")
    device = dr.async_get(hass).async_get_or_create(config_entry_id=owner.entry_id, identifiers={("wyoming", "k")})
    dr.async_get(hass).async_update_device(device.id, area_id=kitchen.id)
    assert area_of(hass, device.id) == "Kitchen"
    assert area_of(hass, None) is None
