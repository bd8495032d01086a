from __future__ import annotations

import pytest

from edge_agent.chat import named
from edge_agent.chat.request import parse
from edge_agent.envelope import Edge
from edge_agent.errors import ConfigError, RequestRefused

SHORTEN = {
    "messages": [
        {"role": "system", "content": "Answer in {{ words }} words."},
        {"role": "user", "content": "Shorten{% if tone is defined %} ({{ tone }}){% endif %}: {{ text }}"},
    ],
    "defaults": {"words": 10},
    "required": ["text"],
    "options": {"max_tokens": 50, "temperature": 0},
}


@pytest.fixture
def templates():
    return {"shorten": named.build("shorten", SHORTEN)}


def edge(**variables):
    return Edge(template="shorten", vars=variables)


def test_a_template_opens_the_conversation_and_the_request_goes_on(templates):
    body = {"messages": [{"role": "user", "content": "more"}], "temperature": 1, "max_tokens": None}
    whole = named.apply(body, edge(text="long"), templates)
    assert [each["content"] for each in whole["messages"]] == ["Answer in 10 words.", "Shorten: long", "more"]
    assert (whole["temperature"], whole["max_tokens"]) == (1, 50)
    assert parse(whole, edge(text="long")).max_tokens == 50


def test_the_requests_own_limit_wins_under_either_name(templates):
    whole = named.apply({"max_completion_tokens": 7}, edge(text="x"), templates)
    assert parse(whole, edge()).max_tokens == 7


def test_a_request_without_a_template_is_left_alone(templates):
    body = {"messages": []}
    assert named.apply(body, Edge(), templates) is body


def test_variables_are_data_and_never_template_source(templates):
    whole = named.apply({}, edge(text="{{ words }}{% raw %}", words=3, tone="<b>"), templates)
    assert whole["messages"][1]["content"] == "Shorten (<b>): {{ words }}{% raw %}"


def test_lists_and_objects_may_be_walked():
    source = "{% for each in rooms %}{{ each.name }} {% endfor %}{{ rooms | tojson }}"
    template = named.NamedTemplate("t", [("user", source)])
    assert template.expand({"rooms": [{"name": "é"}]}) == [{"role": "user", "content": 'é [{"name": "é"}]'}]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (Edge(template="nope"), "edge.template"),
        (edge(), "edge.vars.text"),
        (edge(text="x", colour="red"), "edge.vars.colour"),
        (edge(text=None), "edge.vars.text"),
        (edge(text="x" * 70_000), "edge.vars.text"),
    ],
)
def test_what_does_not_fit_the_template_is_refused_by_name(templates, given, param):
    with pytest.raises(RequestRefused) as refusal:
        named.apply({}, given, templates)
    assert refusal.value.param == param


def test_a_variable_the_text_needs_is_missed_by_name():
    with pytest.raises(RequestRefused) as refusal:
        named.NamedTemplate("t", [("user", "{{ who }}")]).expand({})
    assert refusal.value.param == "edge.vars.who"


def test_an_unknown_template_is_answered_with_those_there_are(templates):
    with pytest.raises(RequestRefused, match="shorten"):
        named.apply({}, Edge(template="nope"), templates)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, r"templates\.t: "),
        ({}, r"templates\.t\.messages"),
        ({"messages": []}, r"templates\.t\.messages"),
        ({"messages": [{"role": "robot", "content": ""}]}, r"templates\.t\.messages\.0\.role"),
        ({"messages": [{"role": "user", "content": "{% if"}]}, r"templates\.t\.messages\.0: template, line 1"),
        (
            {"messages": [{"role": "user", "content": ""}], "options": {"stream": True}},
            r"templates\.t\.options\.stream",
        ),
        (
            {"messages": [{"role": "user", "content": ""}], "options": {"max_tokens": 0}},
            r"templates\.t\.options: max_to",
        ),
    ],
)
def test_a_wrong_configuration_is_named(value, words):
    with pytest.raises(ConfigError, match=words):
        named.build("t", value)
