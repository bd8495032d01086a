from __future__ import annotations

import json

import jsonschema
import pytest

from edge_agent.chat import constraint
from edge_agent.chat.request import Message
from edge_agent.envelope import Edge

SCHEMA = {"type": "object", "properties": {"room": {"$ref": "#/$defs/room"}}, "required": ["room"]}
ROOMS = Edge(defs={"room": {"enum": ["hall", "attic"]}})
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
BELL = {"type": "function", "function": {"name": "ring"}}


def obeys(request, value):
    schema = json.loads(constraint.build(request).json_schema)
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def test_an_answer_that_can_call_nothing_has_no_constraint(ask, lamp):
    assert constraint.build(ask()) is None
    assert constraint.build(ask(tools=[lamp], tool_choice="none")) is None


def test_a_free_answer_is_bound_in_its_calls_alone(ask, lamp):
    grounded = {"properties": {"room": {"$ref": "#/$defs/room"}, "kind": {"$ref": "#/$defs/kind"}}}
    grounded["$defs"] = {"kind": {"type": "string"}}
    tools = [lamp, BELL, {"type": "function", "function": {"name": "dim", "parameters": grounded}}]
    built = constraint.build(ask(ROOMS, tools=tools))
    assert (built.json_schema, built.regex, built.several, built.param) == (None, None, True, "tools")
    whole = json.loads(built.calls)
    calls = jsonschema.Draft202012Validator({**whole, "additionalProperties": False})
    assert calls.is_valid({"ring": {}, "set_lamp": {"name": "desk"}, "dim": {"room": "hall", "kind": "slowly"}})
    assert not calls.is_valid({"set_lamp": {"name": "roof"}})
    assert not calls.is_valid({"dim": {"room": "cellar"}})
    assert not calls.is_valid({"dim": {"kind": 5}})
    assert not calls.is_valid({"other": {}})
    assert not constraint.build(ask(tools=[lamp], parallel_tool_calls=False)).several


def test_a_free_answer_is_not_checked_afterwards(ask, lamp):
    assert constraint.violation(ask(tools=[lamp]), '{"name": "set_lamp", "arguments": {}}') is None


def test_a_schema_stands_alone_with_the_definitions_of_the_request(ask):
    request = ask(ROOMS, response_format=FORMAT)
    assert obeys(request, {"room": "hall"})
    assert not obeys(request, {"room": "cellar"})


def test_any_object_and_a_pattern_are_constraints_too(ask):
    assert json.loads(constraint.build(ask(response_format={"type": "json_object"})).json_schema) == {"type": "object"}
    assert constraint.build(ask(response_format={"type": "regex", "regex": "yes|no"})).regex == "yes|no"


def test_a_required_call_is_one_of_the_tools(ask, lamp):
    request = ask(tools=[lamp, BELL], tool_choice="required")
    assert obeys(request, {"name": "set_lamp", "arguments": {"name": "desk"}})
    assert obeys(request, {"name": "ring", "arguments": {}})
    assert not obeys(request, {"name": "set_lamp", "arguments": {"name": "roof"}})
    assert not obeys(request, {"name": "other", "arguments": {}})


def test_a_named_call_is_of_that_tool(ask, lamp):
    choice = {"type": "function", "function": {"name": "ring"}}
    request = ask(tools=[lamp, BELL], tool_choice=choice, response_format=FORMAT, edge=ROOMS)
    assert obeys(request, {"name": "ring", "arguments": {}})
    assert not obeys(request, {"name": "set_lamp", "arguments": {"name": "desk"}})
    assert not obeys(request, {"room": "hall"})


def test_definitions_of_two_tools_do_not_collide(ask):
    def tool(name, kind):
        parameters = {"properties": {"a": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": kind}}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    request = ask(tools=[tool("f", "string"), tool("g", "integer")], tool_choice="required")
    assert obeys(request, {"name": "f", "arguments": {"a": "x"}})
    assert obeys(request, {"name": "g", "arguments": {"a": 1}})
    assert not obeys(request, {"name": "g", "arguments": {"a": "x"}})


def test_where_the_model_may_call_or_answer_either_will_do(ask, lamp):
    request = ask(ROOMS, tools=[lamp], response_format=FORMAT)
    assert obeys(request, {"room": "hall"})
    assert obeys(request, {"name": "set_lamp", "arguments": {"name": "desk"}})
    assert not obeys(request, {"name": "set_lamp", "arguments": {"name": "roof"}})
    assert constraint.violation(request, '<tool_call>{"name": "set_lamp", "arguments": {"name": "desk"}}') is None
    assert constraint.violation(request, '{"room": "hall"}') is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"room": "hall"}', None),
        ('```json\n{"room": "hall"}\n```', None),
        ('<think>hm</think>\n{"room": "hall"}', None),
        ('{"room": "cellar"}', "at room: 'cellar' is not one of ['hall', 'attic']"),
        ("{}", "'room' is a required property"),
        ("the hall", "it is not JSON"),
        ('{"room": NaN}', "it is not JSON"),
    ],
)
def test_a_finished_answer_is_checked_against_its_schema(ask, text, problem):
    assert constraint.violation(ask(ROOMS, response_format=FORMAT), text) == problem


def test_any_object_means_an_object(ask):
    request = ask(response_format={"type": "json_object"})
    assert constraint.violation(request, "{}") is None
    assert constraint.violation(request, "[1]") == "[1] is not of type 'object'"


def test_a_pattern_must_match_the_whole_answer(ask):
    request = ask(response_format={"type": "regex", "regex": "yes|no"})
    assert constraint.violation(request, "no") is None
    assert "yes|no" in constraint.violation(request, "no!")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "set_lamp", "arguments": {"name": "desk"}}', None),
        ('{"name": "set_lamp", "arguments": {"name": "roof"}}', "the arguments of set_lamp are wrong: at name: 'roof'"),
        ("I would rather not.", "one of these must be called: set_lamp, ring"),
    ],
)
def test_a_required_call_is_checked_with_its_arguments(ask, lamp, text, words):
    problem = constraint.violation(ask(tools=[lamp, BELL], tool_choice="required"), text)
    assert problem is None if words is None else words in problem


def test_a_repair_shows_the_bad_answer_and_says_what_is_wrong(ask):
    bad, again = constraint.repair(ask(ROOMS, response_format=FORMAT), "the hall", "it is not JSON")
    assert bad == Message("assistant", "the hall")
    assert again.role == "user"
    assert "it is not JSON" in again.content


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (' {"a": 1} ', '{"a": 1}'),
        ("Here:\n```json\n[1]\n```\nok?", "[1]"),
        ("```\nnull\n```", "null"),
        ("no", None),
        ("```json\n{\n```", None),
        ("```\n1\n```\n```\n2\n```", None),
        ("[" * 100_000, None),
    ],
)
def test_json_is_found_in_an_answer(text, found):
    assert constraint.extract_json(text) == found
