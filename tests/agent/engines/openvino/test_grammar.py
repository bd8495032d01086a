from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino_genai")

from edge_agent.engines.base import Constraint
from edge_agent.engines.openvino.grammar import ebnf, literal
from edge_agent.errors import RequestRefused

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
def test_a_literal_is_one_string_whatever_is_in_it(text):
    assert re.fullmatch(r'"(?:\\.|[ -!#-\[\]-~])*"', literal(text))


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
        False,
        5,
    ],
)
def test_what_cannot_be_enforced_is_refused(schema):
    with pytest.raises(RequestRefused) as caught:
        of(schema)
    assert caught.value.param == "response_format"


def test_a_schema_may_refer_to_itself_behind_a_bracket():
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert "ref_0 ::=" in of(tree)


def test_a_small_range_is_spelled_out():
    assert '("0" | "1" | "2")' in of({"type": "integer", "minimum": 0, "maximum": 2})
    assert '("-1" | "0" | "1" | "0" json_fraction)' in of({"type": "number", "minimum": -1, "maximum": 1})


@pytest.mark.parametrize(
    "regex", [r"(?=a)b", r"(a)\1", r"\bword", "(", "(?i)a", "[", "(?<!x)y", r"[^\D]", "a{9999}", "((a{99}){99}){99}"]
)
def test_an_expression_that_is_no_grammar_is_refused(regex):
    with pytest.raises(RequestRefused):
        ebnf(Constraint(regex=regex))


def test_an_expression_becomes_a_grammar():
    assert ebnf(Constraint(regex="^(on|off)$")) == 'root ::= ("o" ("n" | "f" "f"))\n'
    assert ebnf(Constraint(regex=r"[^\]-]\d{2,}.?")) == "root ::= [^\\U0000005D\\U0000002D] ([0-9]){2,} ([^\\n]){0,1}\n"
