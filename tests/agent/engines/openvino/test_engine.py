"""The real runtime, in this process: what the contract cannot see from outside."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import replace

import jsonschema
import pytest
import pytest_asyncio

pytest.importorskip("openvino_genai")

import openvino_genai

from edge_agent.chat import request
from edge_agent.engines.base import Constraint, Prompt, Sampling, Segment
from edge_agent.engines.openvino import OpenVinoEngine, worker
from edge_agent.engines.openvino.scoring import Scorer
from edge_agent.errors import EngineFailed, ModelError, RequestRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(openvino_options):
    async with OpenVinoEngine(openvino_options) as engine:
        yield engine


def echo_config():
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = 1
    config.logprobs = 1
    config.echo = True
    return config


@pytest.mark.parametrize("length", [40, 64, 100])
async def test_the_book_of_resident_tokens_agrees_with_the_runtime(engine, length):
    """With `echo` the runtime tells a log-probability for every token it reads, and so how many it did not."""
    ids = [7 * i % 4000 + 100 + length for i in range(length)]
    for rest in ([], [5, 6], [5, 6, 7, 8]):
        step = await engine._run([*ids, *rest], echo_config())
        told = sum(len(output.logprobs) for output in step.outputs)
        assert step.cached == max(0, length + len(rest) - told)


async def test_a_score_is_the_same_drawn_or_told(engine, chat):
    ids = engine._encode(chat("Name a colour.", system="Scores agree."))
    ending = engine._tokenizer.encode([("Blue is a colour", False)])
    scorer = Scorer(engine._run, engine._tokenizer)
    fresh = await scorer._ending(ids, ending)
    drawn = [
        await scorer._drawn([*ids, *ending[:i]], engine._tokenizer.decoder().feed([token]), [token])
        for i, token in enumerate(ending)
    ]
    assert fresh == pytest.approx(sum(map(sum, drawn)), abs=0.3 * len(ending))  # The runtime computes in bfloat16.


SCHEMAS = [
    {"type": "object", "properties": {'"\\é\n': {"type": "null"}, "b": {"type": "integer"}}, "required": ["b"]},
    {"type": "array", "items": {"type": "number", "minimum": -2, "maximum": 2}, "minItems": 2, "maxItems": 3},
    {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}}},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": ["boolean", "null"]},
    {"enum": ["Küche", "Bébé", "éa"]},
    {"enum": ["Küche", 'a "quoted" \\ word', 5, None, {"a": [1]}]},
    {"type": "object", "properties": {f"k{i}": {"type": "boolean"} for i in range(20)}},
    {"type": "array", "items": {"type": "array", "items": {"type": "string", "maxLength": 64}, "maxItems": 1024}},
    {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
    {"type": "array", "items": {"type": "null"}, "maxItems": 2.0},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
async def test_the_runtime_accepts_the_grammar_and_what_it_writes_is_valid(engine, chat, answer, schema):
    stops = 0
    for seed in range(1, 7):
        constraint = Constraint(json_schema=json.dumps(schema))
        sampling = Sampling(max_tokens=100, temperature=1.0, seed=seed, constraint=constraint)
        pieces = await answer(engine, chat("Write JSON."), sampling)
        if pieces[-1].finish == "stop":
            stops += 1
            jsonschema.validate(json.loads("".join(piece.text for piece in pieces)), schema)
    assert stops


CALLS = Constraint(
    calls=json.dumps(
        {
            "properties": {
                "light": {"type": "object", "properties": {"name": {"enum": ["Küche", "attic"]}}, "required": ["name"]},
                "note": {"type": "object", "properties": {"text": {"type": "string", "pattern": "^a"}}},
            }
        }
    ),
    param="tools",
)
"""`note` cannot be enforced: it takes any object."""


@pytest.mark.parametrize(
    "asked",
    ["Write only JSON: a name.", "Write exactly this: <tool_call>", "Write code in a code block.", "Hello!"],
)
async def test_text_begins_like_no_call_unless_it_is_one(engine, chat, answer, asked):
    for seed in range(1, 7):
        sampling = Sampling(max_tokens=40, temperature=1.0, seed=seed, constraint=CALLS)
        pieces = await answer(engine, chat(asked), sampling)
        written = "".join(piece.text for piece in pieces).lstrip()
        whole = pieces[-1].finish == "stop"
        if written.startswith("{"):
            assert written.startswith(('{"name": "light", "arguments": {"name": "', '{"name": "note", "arguments": {'))
        assert not written.startswith("[")
        if whole and written.startswith(("```json", "```tool_call", "```\n")):  # A block of JSON is a call, and fits.
            assert json.loads(written.split("\n")[1])["name"] in ("light", "note")
        for held in written.split("<tool_call>")[1:]:
            body = held.removeprefix("\n").partition("\n")[0]
            assert body.startswith('{"name": "') or not whole
            assert not whole or json.loads(body)["name"] in ("light", "note")


async def test_a_model_that_thinks_is_free_until_it_has_thought(engine, chat, answer):
    thinking = replace(CALLS, thinking=True)
    prompt = chat("Write a list of lists.", answer="<think>\n[1], [2], [3],")
    pieces = await answer(engine, prompt, Sampling(max_tokens=9, constraint=thinking))
    assert "".join(piece.text for piece in pieces).startswith(" [4], [5]")


async def test_a_name_is_written_to_the_letter(engine, chat, answer):
    """The runtime reads a hexadecimal digit behind a letter like ü as part of it, if it is let."""
    for constraint, exactly in (
        (Constraint(json_schema='{"const": "Küche é9 Bébé"}'), '"Küche é9 Bébé"'),
        (Constraint(regex="K[üa][c-d]he[a-é]{0}"), "Küche"),
    ):
        pieces = await answer(engine, chat("x"), Sampling(max_tokens=20, constraint=constraint))
        written = "".join(piece.text for piece in pieces)
        assert written == exactly or re.fullmatch("K[üa][cd]he", written)


async def test_a_held_turn_says_that_it_waits_and_can_be_cancelled(engine, answer, monkeypatch):
    """The same prompt twice begins in the same open block: the second turn waits for the first."""
    monkeypatch.setattr(worker, "_NOTICE_S", 0.05)
    prompt = Prompt((Segment("A turn that is held back: one two three", control=True),))
    await answer(engine, prompt, Sampling(max_tokens=1))
    async with aclosing(engine.generate(prompt, Sampling(max_tokens=1000))) as first:
        await anext(first)
        async with aclosing(engine.generate(prompt, Sampling(max_tokens=2))) as second:
            for _ in range(3):
                piece = await anext(second)
                assert (piece.read, piece.usage.prompt) == (0, await engine.count(prompt))
                assert piece.usage.cached  # Else its deadline would be judged as if all were still to be read.
            assert engine._worker.held
        assert not engine._worker.held
    assert (await engine.health()).running == 0


@pytest.mark.parametrize("bad", [{"temperature": 1e-50}, {"repetition_penalty": 1e-50}])
async def test_a_request_the_runtime_dislikes_is_refused_and_harms_nobody(engine, chat, answer, bad):
    async with aclosing(engine.generate(chat("Tell me a long story."), Sampling(max_tokens=200))) as bystander:
        await anext(bystander)
        with pytest.raises(RequestRefused):
            await answer(engine, chat("x"), Sampling(max_tokens=5, **bad))
        assert [piece async for piece in bystander][-1].finish
    assert (await engine.health()).ok


async def test_the_least_that_a_request_may_ask_for_is_taken(engine, chat, answer):
    least = request._LEAST
    sampling = Sampling(max_tokens=5, temperature=least, top_p=least, repetition_penalty=least)
    assert (await answer(engine, chat("x"), sampling))[-1].finish


async def test_a_choice_that_splits_characters_can_be_weighed_again(engine, chat):
    prompt = chat("Pick an animal emoji.", system="Split characters.")
    first, *more = [await engine.score(prompt, ["🦊", "🐨", "日本"]) for _ in range(3)]
    for again in more:
        assert again == pytest.approx(first, abs=1.5)  # The runtime computes in bfloat16.


async def test_a_bug_of_the_binding_ends_turns_and_health_tells(openvino_options, chat, answer, monkeypatch):
    async with OpenVinoEngine(openvino_options) as engine:

        def failing() -> None:
            raise IndexError

        monkeypatch.setattr(engine._worker, "_step", failing)
        with pytest.raises(EngineFailed, match="IndexError"):
            await answer(engine, chat("x"), Sampling(max_tokens=5))
        assert not (await engine.health()).ok


async def test_a_missing_model_is_a_model_error(tmp_path):
    with pytest.raises(ModelError):
        async with OpenVinoEngine({"model": str(tmp_path / "none.gguf")}):
            pass
