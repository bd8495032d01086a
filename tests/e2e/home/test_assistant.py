"""From discovery to a light that is lit: what a user of Home Assistant meets, with nothing replaced."""

from typing import Any

from home import furnish


def deltas(events: list[dict[str, Any]]) -> list[str]:
    """The pieces of text that the answer came in."""
    found = [event["data"].get("chat_log_delta", {}) for event in events if event["type"] == "intent-progress"]
    return [delta["content"] for delta in found if delta.get("content") and delta.get("role") != "tool_result"]


def spoken(events: list[dict[str, Any]]) -> str:
    [end] = [event["data"] for event in events if event["type"] == "intent-end"]
    return end["intent_output"]["response"]["speech"]["plain"]["speech"]


async def test_a_discovered_node_becomes_a_device_an_assistant_and_an_ai_task(home, scripted) -> None:
    assert scripted.entry["title"] == "scripted"
    devices = await home.call("config/device_registry/list")
    mine = [device for device in devices if scripted.entry["entry_id"] in device["config_entries"]]
    assert {device["name"] for device in mine} >= {"scripted"}
    states = await home.states()
    assert states[scripted.agent]["state"] != "unavailable"
    assert states[scripted.task]["state"] != "unavailable"


async def test_an_answer_comes_in_pieces_as_it_is_written(home, scripted) -> None:
    pipeline = await furnish.assistant(home, scripted.agent)
    events = await home.run_pipeline("Tell me a story", pipeline=pipeline)
    assert len(deltas(events)) > 3
    assert "".join(deltas(events)) == spoken(events)
    assert spoken(events).startswith("Once upon a time")


async def test_what_is_said_lights_a_lamp_of_the_home(home, scripted) -> None:
    await home.service("light.turn_off", target={"entity_id": "light.desk_lamp"})
    pipeline = await furnish.assistant(home, scripted.agent)
    events = await home.run_pipeline("Please turn on the desk lamp", pipeline=pipeline)
    assert [event["type"] for event in events][-2:] == ["intent-end", "run-end"]
    assert (await home.state("light.desk_lamp"))["state"] == "on"
    assert not [event for event in events if event["type"] == "error"]
    assert spoken(events)


async def test_the_real_model_talks(home, real) -> None:
    options = {"target": "node", "prompt": "You are a helpful assistant.", "llm_hass_api": []}
    advanced = {
        "confirm": "short",
        "continue_conversation": "never",
        "local_states": True,
        "prefill": True,
        "timeout": 60,
    }
    step = await home.subentry_flow(
        real.entry,
        "conversation",
        {"name": "Talk", **options, "advanced": advanced | {"max_tokens": 60, "temperature": 0}},
    )
    assert step["type"] == "create_entry", step
    talk = await home.until("conversation.talk", lambda state: state["state"] != "unavailable")
    pipeline = await furnish.assistant(home, talk["entity_id"])
    events = await home.run_pipeline("What is the capital of France?", pipeline=pipeline)
    assert len(deltas(events)) > 1
    assert "".join(deltas(events)).strip() == spoken(events).strip() != ""


async def test_the_real_model_fills_in_a_structure(home, real) -> None:
    structure = {
        "title": {"selector": {"text": {}}, "required": True},
        "urgent": {"selector": {"boolean": {}}, "required": True},
        "level": {"selector": {"select": {"options": ["low", "middle", "high"]}}, "required": True},
    }
    task = {"task_name": "notice", "instructions": "The washing machine has finished.", "structure": structure}
    answer = await home.service("ai_task.generate_data", {**task, "entity_id": real.task}, returns=True)
    data = answer["data"]
    assert data.keys() == structure.keys()
    assert isinstance(data["title"], str)
    assert data["urgent"] in (True, False)
    assert data["level"] in ("low", "middle", "high")


async def test_the_real_model_weighs_answers(home, real) -> None:
    kinds = {"fire": "A fire", "laundry": "The laundry", "visitors": "Visitors"}
    questions = {
        "wake": {"type": "noul", "instructions": "Is somebody in danger?"},
        "what": {"type": "choice", "instructions": "What is it about?", "criteria": kinds},
        "how": {"type": "score", "instructions": "How urgent is it?", "criteria": ["not at all", "somewhat", "very"]},
    }
    task = {"task_name": "judge", "state": "Smoke has been detected in the kitchen.", "questions": questions}
    answers = (await home.service("ai_task.evaluate", {**task, "entity_id": real.task}, returns=True))["answers"]
    assert 0 < answers["wake"]["noul"] < 1
    assert 0 < answers["how"]["score"] < 2
    assert abs(sum(answers["what"]["probabilities"].values()) - 1) < 0.01
    assert answers["what"]["choice"] == max(answers["what"]["probabilities"], key=answers["what"]["probabilities"].get)
