"""One turn: stops, tools, formats, trimming, scores; what the engine cannot do is said, not passed over."""

import json
import math
from dataclasses import replace

import pytest

from edge_agent.engines.echo import EchoEngine
from edge_agent.serving.events import Delta, Done, Failed, Progress

TOOL = {
    "type": "function",
    "function": {
        "name": "light",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}
CALL = '<tool_call>{"name": "light", "arguments": {"on": true}}</tool_call>'
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def says(text: str, **options):
    return {"rules": [{"text": text}], **options}


async def test_a_stop_string_across_tokens_ends_the_answer_and_is_not_told(house):
    home = await house(says("one two three four five", write_tps=10))
    key = home.ask("count", stop=["o three f"])
    done = await home.end(key)
    assert (done.content, done.finish_reason) == ("one tw", "stop")
    assert home.text(key) == "one tw"
    assert home.scheduler.running == 0


async def test_max_tokens_cut_the_answer_and_say_so(house):
    home = await house()
    done = await home.end(home.ask("a b c d e", max_tokens=2))
    assert (done.content, done.finish_reason, done.usage.completion) == ("a b", "length", 2)


async def test_a_tool_call_is_streamed_as_openai_has_it(house):
    home = await house(says(f"Sure.{CALL}"))
    key = home.ask("light!", tools=[TOOL])
    done = await home.end(key)
    assert done.finish_reason == "tool_calls"
    [call] = done.calls
    assert (call.name, json.loads(call.arguments)) == ("light", {"on": True})
    deltas = [delta.delta["tool_calls"][0] for delta in home.of(key, Delta) if "tool_calls" in delta.delta]
    assert (deltas[0]["id"], deltas[0]["type"], deltas[0]["function"]["name"]) == (call.id, "function", "light")
    assert "".join(delta["function"]["arguments"] for delta in deltas) == call.arguments
    assert home.text(key).strip() == "Sure."


async def heard(house, text, body, **options):
    """What the engine was told to obey."""
    told = []

    class Listening(EchoEngine):
        def _text(self, rule, sampling):
            told.append(sampling.constraint)
            return super()._text(rule, sampling)

    engine = Listening(says(text, **options))
    engine.dialect = replace(engine.dialect, template=body.pop("template", None))
    home = await house(create=lambda: engine)
    done = await home.end(home.ask("light!", **body))
    return done, told


@pytest.mark.parametrize("text", ["No.", CALL, f"Sure.{CALL}", f"<think>hm</think>{CALL}", '{"name": "x"', "[1] {2}"])
async def test_an_engine_that_obeys_hears_what_may_be_called_and_text_stays_free(house, text):
    done, [constraint] = await heard(house, text, {"tools": [TOOL], "parallel_tool_calls": False})
    assert json.loads(constraint.calls)["properties"]["light"]["required"] == ["on"]
    assert (constraint.several, constraint.thinking) == (False, False)
    assert bool(done.calls) == (CALL in text)
    assert done.calls or done.content == text


async def test_an_engine_that_obeys_hears_that_the_prompt_opens_the_reasoning(house):
    body = {"tools": [TOOL], "template": THINKS}
    done, [constraint] = await heard(house, f"{CALL} perhaps?</think>{CALL}", body)
    assert constraint.thinking
    assert (done.reasoning, len(done.calls)) == (f"{CALL} perhaps?", 1)


async def test_an_engine_that_cannot_obey_is_not_asked_again_where_text_is_free(house):
    misfit = CALL.replace("true", "5")
    done, told = await heard(house, misfit, {"tools": [TOOL]}, constrained=False)
    assert told == [None]
    assert json.loads(done.calls[0].arguments) == {"on": 5}


async def test_what_was_prepared_is_the_beginning_of_a_chat_with_the_same_tools(house):
    home = await house()
    system = {"role": "system", "content": "Keep the house warm. " * 20}
    ask = {"tools": [TOOL], "messages": [system]}
    prepared = await home.end(home.ask("", **ask, edge={"op": "prepare"}))
    for choice in ("auto", "required", "none"):
        messages = [system, {"role": "user", "content": f"light! {choice}"}]
        done = await home.end(home.ask("", **{**ask, "messages": messages}, tool_choice=choice))
        assert done.usage.cached >= prepared.usage.prompt > 40


async def test_reasoning_is_told_apart_from_content(house):
    home = await house(says("<think>let me see</think>Yes."))
    key = home.ask("?")
    done = await home.end(key)
    assert (done.reasoning.strip(), done.content.strip()) == ("let me see", "Yes.")
    assert "see" not in home.text(key)


async def test_a_format_is_obeyed_by_an_engine_that_can(house):
    home = await house()
    done = await home.end(home.ask('{"x": 5}', response_format=FORMAT))
    assert isinstance(json.loads(done.content)["x"], int)


async def test_an_engine_that_cannot_obey_a_format_is_asked_once_more(house):
    answers = iter(["no idea", '```json\n{"x": 7}\n```'])

    class Stubborn(EchoEngine):
        def _text(self, *_):
            return next(answers)

    home = await house(create=lambda: Stubborn({"constrained": False}))
    key = home.ask("x?", response_format=FORMAT)
    done = await home.end(key)
    assert json.loads(done.content) == {"x": 7}
    assert json.loads(home.text(key)) == {"x": 7}


async def test_two_answers_that_do_not_fit_are_refused_and_none_of_them_is_told(house):
    home = await house(says("no idea", constrained=False))
    key = home.ask("x?", response_format=FORMAT)
    assert await home.code(key) == "unsupported"
    assert not home.of(key, Delta)


async def test_a_conversation_that_is_too_long_says_by_how_much(house):
    home = await house({"context": 40})
    end = await home.end(home.ask("word " * 60))
    assert isinstance(end, Failed)
    assert (end.error.code.name, end.error.details["tokens_over"] > 0) == ("context_overflow", True)


async def test_trimming_drops_the_oldest_turns_and_keeps_the_system_message(house):
    home = await house({"context": 80, "rules": []})
    roles = [("system", "keep this"), *(("user", "old " * 20), ("assistant", "old " * 20)) * 2, ("user", "newest")]
    messages = [{"role": role, "content": content} for role, content in roles]
    done = await home.end(home.ask("", messages=messages, edge={"trim": True}))
    assert done.content == "newest"
    assert done.usage.prompt < 80
    assert await home.code(home.ask("", messages=messages)) == "context_overflow"


async def test_no_more_is_dropped_than_has_to_be_and_that_is_found_by_halving(house):
    class Counting(EchoEngine):
        counts = 0

        async def count(self, prompt):
            self.counts += 1
            return await super().count(prompt)

    engine = Counting({"context": 1000})
    home = await house(create=lambda: engine)
    messages = [{"role": "user", "content": f"turn {number}"} for number in range(1000)]
    fitting = home.ask("", messages=messages, edge={"trim": True})
    assert (await home.end(fitting)).content == "turn 999"
    assert 980 < (await home.end(fitting)).usage.prompt < 1000
    assert engine.counts <= 10
    last = [*messages, {"role": "user", "content": "word " * 1000}]
    assert await home.code(home.ask("", messages=last, edge={"trim": True})) == "context_overflow"


THINKS = "{% for each in messages %}<|im_start|>{{ each.role }}\n{{ each.content }}<|im_end|>{% endfor %}<think>\n"


@pytest.mark.parametrize("constrained", [True, False])
async def test_a_format_holds_for_a_model_whose_prompt_opens_the_reasoning(house, constrained):
    text = '{"x": 5}' if constrained else 'let me see</think>{"x": 5}'
    engine = EchoEngine(says(text, constrained=constrained))
    engine.dialect = replace(engine.dialect, template=THINKS)
    home = await house(create=lambda: engine)
    assert json.loads((await home.end(home.ask("x?", response_format=FORMAT))).content) == {"x": 5}


async def test_choices_are_weighed_and_their_probabilities_add_up(house):
    home = await house()
    done = await home.end(home.ask("lights on", edge={"op": "score", "choices": ["on", "off"]}))
    assert [score["choice"] for score in done.scores] == ["on", "off"]
    assert math.fsum(score["probability"] for score in done.scores) == pytest.approx(1)
    assert done.scores[0]["probability"] == pytest.approx(10 / 11)
    assert done.content == "on"


async def test_choices_are_refused_by_an_engine_that_cannot_weigh(house):
    home = await house({"scores": False})
    assert await home.code(home.ask("on", edge={"op": "score", "choices": ["on", "off"]})) == "unsupported"


async def test_sampling_that_the_engine_cannot_set_is_named(house):
    home = await house()
    done = await home.end(home.ask("hi", temperature=0.5, seed=1, logprobs=True, min_p=0.1))
    assert set(done.ignored) == {"temperature", "seed", "logprobs", "min_p"}


async def test_reading_is_told_block_by_block(house):
    home = await house({"read_tps": 100, "block": 10})
    key = home.ask("word " * 35)
    done = await home.end(key)
    told = [(event.read, event.prompt) for event in home.of(key, Progress)]
    assert told[0] == (0, done.usage.prompt)
    assert told[-1] == (done.usage.prompt, done.usage.prompt)
    assert [read for read, _ in told] == sorted({read for read, _ in told})


@pytest.mark.parametrize("cached", [False, True])
async def test_a_prompt_that_cannot_be_read_in_time_is_refused_not_read(house, cached):
    home = await house({"read_tps": 10, "prefix_cache": cached})
    await home.end(home.ask("word " * 100))
    key = home.ask("other " * 200, timeout_s=15)
    assert await home.code(key) == "expired"
    assert (await home.end(key)).error.message.startswith("reading")


async def test_what_is_resident_needs_no_time_to_be_read(house):
    home = await house({"read_tps": 10})
    first = await home.end(home.ask("word " * 100))
    assert first.timings.total_s > 10
    assert isinstance(await home.end(home.ask("word " * 101, timeout_s=5)), Done)


async def test_usage_counts_what_was_resident(house):
    home = await house()
    first, again = [await home.end(home.ask("the same words again")) for _ in range(2)]
    assert (first.usage.cached, again.usage.cached) == (0, again.usage.prompt)
    assert again.usage.prompt == first.usage.prompt
