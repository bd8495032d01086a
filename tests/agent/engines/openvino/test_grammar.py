from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino_genai")

from edge_agent.chat.constraint import build
from edge_agent.chat.request import parse
from edge_agent.engines.base import Constraint
from edge_agent.engines.openvino.expressions import literal
from edge_agent.engines.openvino.grammar import ebnf
from edge_agent.envelope import Edge
from edge_agent.errors import Unsupported
from edge_agent.wire import WireError

SCALARS = st.sampled_from(
    [{"type": "string"}, {"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": ["number", "null"]}, {}]
)
SCHEMAS = st.recursive(
    SCALARS
    | st.lists(st.text(max_size=4) | st.integers(), min_size=1, max_size=3).map(lambda values: {"enum": values}),
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 2)),
        st.builds(lambda each: {"anyOf": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda named, required: {"type": "object", "properties": named, "required": sorted(named)[:required]},
            st.dictionaries(st.text(max_size=3), inner, max_size=3),
            st.integers(0, 3),
        ),
    ),
    max_leaves=6,
)


def of(schema) -> str:
    return ebnf(Constraint(json_schema=json.dumps(schema)))


@given(SCHEMAS)
@settings(max_examples=150, deadline=None)
def test_every_rule_that_is_used_is_written_once(schema):
    grammar = of(schema)
    names = re.findall(r"^(\w+) ::=", grammar, re.MULTILINE)
    used = re.findall(r"\b(?:rule|ref|json)_\w+", re.sub(r'"(?:\\.|[^"\\])*"|\[[^\]]*\]', "", grammar))
    assert len(names) == len(set(names))
    assert set(used) <= set(names)
    assert all(" " <= char <= "~" or char == "\n" for char in grammar)


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_a_literal_is_all_strings_whatever_is_in_it(text):
    written = literal(text)
    assert re.fullmatch(r'("(?:\\.|[ -!#-\[\]-~])*" ?)+', written)
    assert not re.search(r"(?<!\\)(?:\\\\)*\\U[0-9A-F]{8}[0-9a-fA-F]", written)


def test_no_digit_is_read_as_part_of_the_code_before_it():
    assert literal("Küche") == r'"K\U000000FC" "che"'
    assert (
        ebnf(Constraint(regex=r"[.\däa-ü]"))
        == "root ::= [0-9a-\\U0000007E\\U0000002E\\U000000E4\\U0000007F-\\U000000FC]\n"
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "teapot"},
        {"type": "string", "pattern": "a"},
        {"type": "object", "minProperties": 1},
        {"type": "array", "uniqueItems": True},
        {"allOf": [{"type": "string"}]},
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}},
        {"$ref": "#/$defs/nowhere"},
        {"type": "number", "minimum": 3},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"enum": []},
        {"type": "string", "maxLength": 100_000},
        {"type": "array", "maxItems": 100_000},
        {"enum": ["x" * 70_000]},
        {"type": "string", "maxLength": 2.5},
        {"enum": [1, 2, 3], "minimum": 3},
        {"const": 1, "enum": [1]},
        {"type": "string", "enum": [1]},
        {"anyOf": [{"type": "string"}], "additionalProperties": False},
        {"type": "object", "anyOf": [{"type": "string"}]},
        {"$ref": "#/$defs/a", "maxLength": 2, "$defs": {"a": {"type": "string"}}},
        {"$ref": "#/$defs/a", "type": "object", "$defs": {"a": {"type": "string"}}},
        False,
        5,
    ],
)
@pytest.mark.parametrize("param", ["response_format", "tools", None])
def test_what_cannot_be_enforced_is_unsupported(schema, param):
    with pytest.raises(Unsupported) as caught:
        ebnf(Constraint(json_schema=json.dumps(schema), param=param))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "answer", "param"),
    [
        ("required", None, "tools"),
        ("none", {"type": "object"}, "response_format"),
        ("auto", {"type": "object"}, None),
    ],
)
def test_a_refusal_names_the_field_that_the_schema_came_from(choice, answer, param):
    bad = {"type": "object", "minProperties": 1}
    body = {"messages": [{"role": "user", "content": "x"}], "tool_choice": choice}
    body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": bad}}]
    if answer:
        schema = bad if choice == "none" else answer
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    with pytest.raises(Unsupported) as caught:
        ebnf(build(parse(body, Edge())))
    assert caught.value.param == param


def calls(**tools) -> str:
    return ebnf(Constraint(calls=json.dumps({"properties": tools}), param="tools"))


def dangling(grammar) -> set[str]:
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]])*\]|TagDispatch|\w+=\w+', "", grammar)
    defined = re.findall(r"^(\w+) ::=", bare, re.MULTILINE)
    assert len(defined) == len(set(defined))
    return set(re.findall(r"\b[a-z]\w+", bare)) - set(defined)


def test_a_tool_that_cannot_be_enforced_takes_any_object_and_the_others_stay_bound():
    lamp = {"type": "object", "properties": {"name": {"enum": ["desk"]}, "note": {"$ref": "#/$defs/note"}}}
    odd = {**lamp, "properties": {**lamp["properties"], "more": {"type": "string", "pattern": "a"}}}
    huge = {"type": "object", "properties": {"name": {"enum": ["x" * 70_000]}}}
    whole = {"properties": {"odd": odd, "lamp": lamp, "huge": huge}, "$defs": {"note": {"type": "string"}}}
    grammar = ebnf(Constraint(calls=json.dumps(whole), param="tools"))
    assert dangling(grammar) == set()
    assert r'"odd" "\", \"arguments\": " json_object' in grammar
    assert r'"huge" "\", \"arguments\": " json_object' in grammar
    assert r'"lamp" "\", \"arguments\": " ("{" ' in grammar
    assert len(grammar) < 10_000


def test_a_hundred_tools_that_take_the_same_say_it_once():
    same = {"type": "object", "properties": {"name": {"enum": [f"lamp {i}" for i in range(60)]}}}
    one, many = calls(one=same), calls(**{f"tool_{i}": same for i in range(100)})
    assert len(many) < len(one) + 100 * 100


def test_calls_are_written_as_the_models_were_taught():
    grammar = calls(f={"type": "object", "properties": {"a": {"const": {"b": [1, 2]}}, "c": {"type": "null"}}})
    assert r'"\"a\"" ": " ("{\"b\": [1, 2]}")' in grammar
    assert '", " ' in grammar


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("thinking", [True, False])
def test_every_kind_of_free_text_is_a_whole_grammar(several, thinking):
    whole = json.dumps({"properties": {"f": {"type": "object", "properties": {}}}})
    grammar = ebnf(Constraint(calls=whole, several=several, thinking=thinking))
    assert dangling(grammar) == set()
    assert grammar.startswith("root ::= opened\n") == thinking
    assert ("{0,15}" in grammar) == several


def test_a_whole_number_may_be_written_as_a_fraction():
    assert "json_char{1,2}" in of({"type": "string", "minLength": 1.0, "maxLength": 2.0})
    assert "){0,1}" in of({"type": "array", "maxItems": 2.0})


def test_a_type_beside_other_keywords_is_enforced():
    assert 'root ::= ("\\"a\\"")' in of({"type": "string", "enum": [1, "a", None]})
    assert 'ref_0 ::= ("\\"a\\"")' in of({"$ref": "#/$defs/a", "type": "string", "$defs": {"a": {"enum": [1, "a"]}}})
    assert of({"type": "null", "anyOf": [True, {}]}).startswith('root ::= (("null"))')


def test_other_properties_obey_their_schema():
    assert 'rule_0 ::= json_string ":" (json_integer)' in of(
        {"type": "object", "additionalProperties": {"type": "integer"}}
    )


def test_a_schema_may_refer_to_itself_behind_a_bracket():
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert "ref_0 ::=" in of(tree)


def test_a_small_range_is_spelled_out():
    assert '("0" | "1" | "2")' in of({"type": "integer", "minimum": 0, "maximum": 2})
    assert '("-1" | "0" | "1" | "0" json_fraction)' in of({"type": "number", "minimum": -1, "maximum": 1})


@pytest.mark.parametrize(
    "regex",
    [
        *(r"(?=a)b", r"(a)\1", r"\bword", "(", "(?i)a", "[", "(?<!x)y", r"[^\D]", "a{9999}", "((a{99}){99}){99}"),
        *("(.*.*.*.*.*.*.*.*)*x", "((a*)*)*b", "(a|b|)*", "(.?){64}", "([a-z]+ ?)+", "[a-z ]{1,1024}", ".*" * 100),
    ],
)
def test_an_expression_that_is_no_grammar_is_refused(regex):
    with pytest.raises(WireError) as caught:
        ebnf(Constraint(regex=regex))
    assert caught.value.code.name in ("invalid_request", "unsupported")
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("regex", [r"\d{4}-\d\d-\d\d(T.*)?", "([a-z]{1,5}, )*and [a-z]+", "[a-z ]{1,64}", "a{0}b", ""])
def test_an_expression_that_is_easy_to_match_is_taken(regex):
    assert ebnf(Constraint(regex=regex)).startswith("root ::= ")


def test_an_expression_becomes_a_grammar():
    assert ebnf(Constraint(regex="^(on|off)$")) == 'root ::= ("o" ("n" | "f" "f"))\n'
    assert ebnf(Constraint(regex=r"[^\]-]\d{2,}.?")) == "root ::= [^\\U0000005D\\U0000002D] ([0-9]){2,} ([^\\n]){0,1}\n"
