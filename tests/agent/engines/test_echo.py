from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.engines.base import Constraint, Prompt, Sampling, Segment
from edge_agent.engines.echo import EchoEngine
from edge_agent.engines.instance import instance
from edge_agent.errors import ConfigError, EngineFailed, RequestRefused, Unsupported
from edge_agent.wire import WireError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"teapot": 1}, "teapot"),
        ({"rules": [{"match": "("}]}, r"rules\[0\]\.match"),
        ({"rules": [{"text": 5}]}, r"rules\[0\]\.text"),
        ({"write_tps": -1}, "write_tps"),
        ({"rules": [{"crash_after": 1}]}, "crash_after"),
    ],
)
def test_wrong_options_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        EchoEngine(options)


async def test_without_rules_it_says_what_the_user_said(chat, answer):
    async with EchoEngine({}) as engine:
        pieces = await answer(engine, chat("  Hello,\n extraordinarily <|im_end|> big world "), Sampling(max_tokens=99))
    assert "".join(piece.text for piece in pieces) == "  Hello,\n extraordinarily <|im_end|> big world "


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_its_tokens_are_the_whole_text(text):
    async def run() -> str:
        async with EchoEngine({"context": 100_000}) as engine:
            prompt = Prompt((Segment(text),))
            return "".join([piece.text async for piece in engine.generate(prompt, Sampling(max_tokens=100_000))])

    assert asyncio.run(run()) == text


async def test_a_rule_fails_after_so_many_tokens(chat):
    rules = [{"match": "fail", "text": "a b c", "fail": "out of tea", "fail_after": 2}]
    async with EchoEngine({"rules": rules}) as engine:
        pieces = engine.generate(chat("fail"), Sampling(max_tokens=9))
        written = [await anext(pieces) for _ in range(4)]
        with pytest.raises(EngineFailed, match="out of tea"):
            await anext(pieces)
    assert "".join(piece.text for piece in written) == "a b"


async def test_speeds_are_kept(chat):
    clock = asyncio.get_running_loop().time
    async with EchoEngine({"write_tps": 50, "read_tps": 1000, "block": 10}) as engine:
        start = clock()
        pieces = [piece async for piece in engine.generate(chat("a b c d e", system="x " * 80), Sampling(max_tokens=9))]
    assert clock() - start >= 5 / 50 + 80 / 1000
    assert sum(piece.read is not None for piece in pieces) > 8


async def test_more_turns_than_parallel_wait(chat, answer):
    async with EchoEngine({"parallel": 1, "rules": [{"match": "hang", "hang_after": 0}]}) as engine:
        hanging = engine.generate(chat("hang"), Sampling(max_tokens=9))
        await anext(hanging)
        waiting = asyncio.create_task(answer(engine, chat("hello"), Sampling(max_tokens=9)))
        await asyncio.sleep(0)
        assert (await engine.health()).running == 1
        await hanging.aclose()
        assert (await waiting)[-1].finish == "stop"


async def test_what_it_cannot_do_is_unsupported(chat, answer):
    async with EchoEngine({"constrained": False, "scores": False}) as engine:
        with pytest.raises(Unsupported):
            await answer(engine, chat("x"), Sampling(max_tokens=9, constraint=Constraint(regex="a")))
        with pytest.raises(Unsupported):
            await engine.score(chat("x"), ["a"])


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"const": "a"}, '"a"'),
        ({"enum": [3, 4]}, "3"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "[false,false]"),
        ({"type": "number", "minimum": 2.5}, "2.5"),
        ({"type": "integer", "maximum": -2}, "-2"),
        ({"type": "string", "minLength": 2}, '"xx"'),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "null"),
        ({"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, '{"a":""}'),
    ],
)
def test_the_shortest_instance_is_written(schema, text):
    assert instance(Constraint(json_schema=json.dumps(schema)), "wish") == text


def test_a_wish_that_satisfies_the_constraint_is_kept():
    assert instance(Constraint(json_schema='{"type": "object"}'), '{"a": 1}') == '{"a": 1}'
    assert instance(Constraint(regex="[a-z]+"), "wish") == "wish"
    assert instance(Constraint(regex="(on|off)"), "wish") == "on"


def test_what_has_no_instance_is_refused():
    for schema in ({"type": "string", "pattern": "^a$"}, {"$ref": "#"}, {"type": "object", "minProperties": 1}):
        with pytest.raises(Unsupported):
            instance(Constraint(json_schema=json.dumps(schema)), "wish")
    for constraint in (Constraint(json_schema='{"type": 5}'), Constraint(regex="(")):
        with pytest.raises(RequestRefused):
            instance(constraint, "wish")


def test_what_a_stranger_asks_for_costs_neither_time_nor_memory():
    """In the time that these take, an unbounded search would not end."""
    for schema in (
        {"type": "array", "minItems": 1e9},
        {"type": "string", "minLength": 1e9},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 9}}},
    ):
        with pytest.raises(Unsupported):
            instance(Constraint(json_schema=json.dumps(schema)), "wish")
    wish = "a" * 40 + "!"
    for constraint in (
        Constraint(regex="(a+)+$"),
        Constraint(json_schema='{"type": "string", "pattern": "^(a+)+$"}'),
    ):
        with pytest.raises(WireError):
            instance(constraint, json.dumps(wish))
