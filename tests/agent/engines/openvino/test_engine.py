"""The real runtime, in this process: what the contract cannot see from outside."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest
import pytest_asyncio

pytest.importorskip("openvino_genai")

import openvino_genai

from edge_agent.engines.base import Constraint, Prompt, Sampling, Segment
from edge_agent.engines.openvino import OpenVinoEngine
from edge_agent.engines.openvino.scoring import Scorer
from edge_agent.errors import ModelError

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
    drawn = sum([await scorer._drawn([*ids, *ending[:i]], ending[i]) for i in range(len(ending))])
    assert fresh == pytest.approx(drawn, abs=0.3 * len(ending))  # The runtime computes in bfloat16.


SCHEMAS = [
    {"type": "object", "properties": {'"\\é\n': {"type": "null"}, "b": {"type": "integer"}}, "required": ["b"]},
    {"type": "array", "items": {"type": "number", "minimum": -2, "maximum": 2}, "minItems": 2, "maxItems": 3},
    {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}}},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": ["boolean", "null"]},
    {"enum": ["Küche", 'a "quoted" \\ word', 5, None, {"a": [1]}]},
    {"type": "object", "properties": {f"k{i}": {"type": "boolean"} for i in range(20)}},
    {"type": "array", "items": {"type": "array", "items": {"type": "string", "maxLength": 64}, "maxItems": 1024}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
async def test_the_runtime_accepts_the_grammar_and_what_it_writes_is_valid(engine, chat, answer, schema):
    for seed in (1, 2):
        constraint = Constraint(json_schema=json.dumps(schema))
        sampling = Sampling(max_tokens=100, temperature=1.0, seed=seed, constraint=constraint)
        pieces = await answer(engine, chat("Write JSON."), sampling)
        if pieces[-1].finish == "stop":
            jsonschema.validate(json.loads("".join(piece.text for piece in pieces)), schema)


async def test_a_held_turn_can_be_cancelled(engine, answer):
    begin = Prompt((Segment("A turn that is held back: one two three", control=True),))
    await answer(engine, begin, Sampling(max_tokens=4))
    prompts = [Prompt((*begin.segments, Segment(text))) for text in (" four", " five")]
    first = engine.generate(prompts[0], Sampling(max_tokens=200))
    await anext(first)
    second = asyncio.create_task(answer(engine, prompts[1], Sampling(max_tokens=2)))
    while (await engine.health()).running < 2 and not second.done():  # noqa: ASYNC110
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    await first.aclose()
    assert (await engine.health()).running == 0


async def test_a_missing_model_is_a_model_error(tmp_path):
    with pytest.raises(ModelError):
        async with OpenVinoEngine({"model": str(tmp_path / "none.gguf")}):
            pass
