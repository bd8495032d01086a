"""AI tasks: text, data in a structure that the engine keeps to, and judgements with probabilities."""

import json
from dataclasses import dataclass
from typing import Any

import probatio
import pytest
from homeassistant.components import ai_task
from homeassistant.components.ai_task import AITaskEntityFeature
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import selector

from custom_components.edge_agent import evaluation
from tests.component.home import TASKS, furnish, set_up
from tests.component.node import Node, accepted, act, chunk, error, final, speak, tool_call

ROOMS = {
    probatio.Required("room", description="Which room"): selector.selector(
        {"select": {"options": ["Kitchen", "Hall"]}}
    ),
    probatio.Optional("count"): selector.selector({"number": {"min": 0, "max": 9}}),
}


@pytest.fixture
async def tasks(hass: HomeAssistant, node: Node) -> Node:
    node.online()
    await set_up(hass)
    return node


async def generate(hass: HomeAssistant, **kwargs: Any) -> Any:
    kwargs = {"task_name": "Task", "entity_id": TASKS, "instructions": "Do it", **kwargs}
    return (await ai_task.async_generate_data(hass, **kwargs)).data


async def test_it_offers_what_this_home_assistant_knows(hass: HomeAssistant, tasks: Node) -> None:
    features = hass.states.get(TASKS).attributes["supported_features"]
    assert features & AITaskEntityFeature.GENERATE_DATA
    assert not features & AITaskEntityFeature.SUPPORT_ATTACHMENTS
    assert bool(features & 8) is hasattr(AITaskEntityFeature, "EVALUATE")


async def test_text_comes_back_as_it_was_written(hass: HomeAssistant, tasks: Node) -> None:
    tasks.say(speak("A **bold** ", "word 😀"))
    assert await generate(hass) == "A **bold** word 😀"
    [request] = tasks.requests
    assert request.edge["priority"] == "normal"
    assert "response_format" not in request.body
    assert request.messages[-1]["content"].endswith("Do it")


async def test_the_time_is_no_part_of_what_every_task_begins_with(hass: HomeAssistant, tasks: Node) -> None:
    await generate(hass)
    [request] = tasks.requests
    assert "time" not in request.messages[0]["content"]
    assert "time" in request.messages[1]["content"]


async def test_the_structure_is_given_to_the_engine(hass: HomeAssistant, tasks: Node) -> None:
    tasks.say([accepted(), chunk(content='{"room":'), final('{"room":"Hall"}')])
    assert await generate(hass, structure=probatio.Schema(ROOMS)) == {"room": "Hall"}
    [request] = tasks.requests
    wanted = request.body["response_format"]
    assert wanted["type"] == "json_schema"
    schema = wanted["json_schema"]["schema"]
    assert schema["properties"]["room"]["enum"] == ["Kitchen", "Hall"]
    assert schema["required"] == ["room"]


@pytest.mark.parametrize(("reason", "key"), [("stop", "no_structure"), ("length", "too_long")])
async def test_what_is_no_data_says_why(hass: HomeAssistant, tasks: Node, reason: str, key: str) -> None:
    tasks.say([final('{"room": "Ha', reason=reason)])
    with pytest.raises(HomeAssistantError) as failure:
        await generate(hass, structure=probatio.Schema(ROOMS))
    assert failure.value.translation_key == key


async def test_an_empty_answer_is_an_error(hass: HomeAssistant, tasks: Node) -> None:
    tasks.say([final("")])
    with pytest.raises(HomeAssistantError) as failure:
        await generate(hass)
    assert failure.value.translation_key == "no_answer"


async def test_tools_are_used_on_the_way(hass: HomeAssistant, tasks: Node) -> None:
    await furnish(hass)
    async_expose_entity(hass, "ai_task", "light.ceiling_lamp", should_expose=True)
    tasks.say(act(tool_call("intent__HassTurnOn", {"name": "Ceiling lamp"})), speak("It is on."))
    assert await generate(hass, llm_api=hass.data["llm_apis"]["assist"]) == "It is on."
    await hass.async_block_till_done()
    assert hass.states.get("light.ceiling_lamp").state == "on"


async def test_a_model_that_only_calls_is_an_error(hass: HomeAssistant, tasks: Node) -> None:
    await furnish(hass)
    tasks.say(act(tool_call("homeassistant__GetLiveContext")))
    with pytest.raises(HomeAssistantError) as failure:
        await generate(hass, llm_api=hass.data["llm_apis"]["assist"])
    assert failure.value.translation_key == "too_many_rounds"


async def test_what_the_node_refuses_is_an_error(hass: HomeAssistant, tasks: Node, issue_registry) -> None:
    tasks.say([error("context_overflow", prompt_tokens=9000, limit_tokens=8191)])
    with pytest.raises(HomeAssistantError) as failure:
        await generate(hass)
    assert failure.value.translation_key == "context_overflow"
    assert issue_registry.async_get_issue("edge_agent", "context_too_small_tasks") is None


async def test_attachments_are_refused_clearly(hass: HomeAssistant, tasks: Node) -> None:
    entity = hass.data["ai_task"].get_entity(TASKS)
    task = ai_task.GenDataTask("Task", "Look", attachments=[object()])
    with pytest.raises(HomeAssistantError) as failure:
        await entity._async_generate_data(task, None)
    assert failure.value.translation_key == "attachments"
    with pytest.raises(HomeAssistantError):
        await entity._async_evaluate(Task({}, attachments=[object()]))


# Judgements: the types are those of Home Assistant 2026.11, spelled out for the version before.


@dataclass
class Task:
    questions: dict[str, Any]
    state: Any = None
    name: str = "Judge"
    attachments: Any = None


@dataclass
class Noul:
    noul: float


@dataclass
class Choice:
    choice: str
    probabilities: dict[str, float]


@dataclass
class Score:
    score: float
    probabilities: list[float]


@dataclass
class Result:
    answers: dict[str, Any]


@pytest.fixture
def judge(hass: HomeAssistant, tasks: Node, monkeypatch: pytest.MonkeyPatch):
    kinds = {"NoulAnswer": Noul, "ChoiceAnswer": Choice, "ScoreAnswer": Score, "EvaluationTaskResult": Result}
    for name, kind in kinds.items():
        monkeypatch.setattr(ai_task, name, kind, raising=False)
    entity = hass.data["ai_task"].get_entity(TASKS)

    async def evaluate(weights: list[float], question: dict[str, Any], state: Any = None) -> Any:
        def weigh(request):
            scores = [
                {"choice": choice, "probability": weight}
                for choice, weight in zip(request.edge["choices"], weights, strict=False)
            ]
            return [final("", scores=scores)]

        tasks.on(weigh)
        return (await entity._async_evaluate(Task({"q": question}, state))).answers["q"]

    return evaluate


async def test_yes_has_a_probability(tasks: Node, judge) -> None:
    answer = await judge([0.75, 0.25], {"type": "noul", "instructions": "Is it dark?"}, {"sun": "below_horizon"})
    assert answer == Noul(0.75)
    [request] = tasks.requests
    assert request.op == "score"
    assert request.edge["choices"] == ["Yes", "No"]
    assert "below_horizon" in request.messages[0]["content"]
    assert "Is it dark?" in request.messages[-1]["content"]


async def test_the_likeliest_choice_wins(tasks: Node, judge) -> None:
    criteria = {"parcel": "a parcel is delivered", "guest": "somebody visits"}
    answer = await judge([0.2, 0.8], {"type": "choice", "instructions": "Who?", "criteria": criteria}, "A knock")
    assert answer == Choice("guest", {"parcel": 0.2, "guest": 0.8})
    [request] = tasks.requests
    assert request.edge["choices"] == ["A", "B"]
    assert "B. guest: somebody visits" in request.messages[-1]["content"]


async def test_a_score_is_the_expected_level(judge) -> None:
    question = {"type": "score", "instructions": "How urgent?", "criteria": ["not", "a bit", "very"]}
    assert await judge([0.0, 0.5, 0.5], question) == Score(1.5, [0.0, 0.5, 0.5])


async def test_a_node_that_does_not_weigh_is_an_error(judge) -> None:
    with pytest.raises(HomeAssistantError) as failure:
        await judge([1.0], {"type": "noul", "instructions": "?"})
    assert failure.value.translation_key == "no_scores"


async def test_more_choices_than_letters_are_refused(judge) -> None:
    levels = [str(number) for number in range(27)]
    with pytest.raises(HomeAssistantError) as failure:
        await judge([], {"type": "score", "instructions": "?", "criteria": levels})
    assert failure.value.translation_key == "too_many_choices"


def test_state_is_given_as_data(tasks: Node) -> None:
    assert json.loads(evaluation._messages(Task({}, {"a": 1}), "?")[0]["content"].rpartition("\n")[2]) == {"a": 1}
