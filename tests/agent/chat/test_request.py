from __future__ import annotations

import pytest

from edge_agent.chat.request import Message, ToolCall, parse
from edge_agent.envelope import Edge
from edge_agent.errors import RequestRefused, Unsupported
from edge_agent.wire import WireError

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "done"}


def tool(name="f", **function):
    return {"type": "function", "function": {"name": name, **function}}


def test_a_full_request_is_read_into_values():
    request = parse(
        {
            "model": "m",
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                USER,
                CALLED,
                RESULT,
            ],
            "tools": [tool("f", description="d", parameters={"type": "object"}, strict=True), tool("g")],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 5,
            "max_completion_tokens": 7,
            "temperature": 0,
            "stop": "END",
            "logprobs": True,
            "top_logprobs": 3,
            "user": "someone",
            "frobnicate": {"unknown": True},
            "min_p": 0.1,
            "seed": None,
        },
        Edge(),
    )
    assert request.messages == (
        Message("system", "a\nb"),
        Message("user", "hi"),
        Message("assistant", tool_calls=(ToolCall("c1", "f", '{"a":1}'),)),
        Message("tool", "done", name="f", tool_call_id="c1"),
    )
    assert [each.name for each in request.tools] == ["f", "g"]
    assert (request.tool_choice, request.max_tokens) == ("g", 7)
    assert (request.temperature, request.stop, request.logprobs) == (0.0, ("END",), 3)
    assert isinstance(request.temperature, float)
    assert request.stream
    assert request.include_usage
    assert request.ignored == ("min_p",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [USER] * 10_001}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "robot", "content": "hi"}]}, "messages[1].role"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "content": None}, USER]}, "messages[0].content"),
        ({"messages": [USER, {"role": "assistant", "content": "Well"}]}, "messages[1].role"),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": []}]}, "messages[1].tool_calls"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls[0].id"),
        ({"messages": [USER, RESULT]}, "messages[1].tool_call_id"),
        ({"messages": [USER, CALLED, {"role": "tool", "content": "x"}]}, "messages[2].tool_call_id"),
        ({"messages": [{**USER, "tool_call_id": "c1"}]}, "messages[0].tool_call_id"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"seed": 1 << 64}, "seed"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"tools": []}, "tools"),
        ({"tools": [tool("two words")]}, "tools[0].function.name"),
        ({"tools": [tool("f\n")]}, "tools[0].function.name"),
        ({"tools": [tool("auto")]}, "tools[0].function.name"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters.type"),
        ({"tools": [tool(parameters={"properties": {"a": {"type": "text"}}})]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "regex", "regex": "("}}, "response_format.regex"),
    ],
)
def test_what_is_wrong_is_refused_by_name(body, param):
    with pytest.raises(RequestRefused) as refusal:
        parse({"messages": [USER], **body}, Edge())
    assert refusal.value.param == param
    assert param in refusal.value.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"functions": []}, "functions"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"tools": [{"type": "web_search", "function": {}}]}, "tools[0].type"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
    ],
)
def test_what_would_change_the_meaning_is_unsupported(body, param):
    with pytest.raises(Unsupported) as refusal:
        parse({"messages": [USER], **body}, Edge())
    assert refusal.value.param == param


@pytest.mark.parametrize("body", [{"n": 1}, {"logit_bias": {}}, {"modalities": ["text"]}, {"store": True}])
def test_what_changes_nothing_is_accepted(ask, body):
    assert ask(**body) == ask()


def test_a_text_answer_cannot_be_streamed(ask):
    with pytest.raises(RequestRefused) as refusal:
        ask(Edge(format="text"), stream=True)
    assert refusal.value.param == "stream"


def test_scoring_needs_choices(ask):
    with pytest.raises(RequestRefused) as refusal:
        ask(Edge(op="score"))
    assert refusal.value.param == "edge.choices"


def test_messages_may_be_absent_only_where_a_template_brings_them():
    assert parse({}, Edge(template="t")).messages == ()
    with pytest.raises(RequestRefused):
        parse({}, Edge())


def test_a_prefix_may_end_with_any_message(ask):
    request = ask(Edge(op="prepare"), messages=[USER, {"role": "assistant", "content": "Well"}])
    assert request.messages[-1].role == "assistant"


@pytest.mark.parametrize(("tools", "given", "choice"), [((), None, "none"), ((), "auto", "none"), ("f", None, "auto")])
def test_the_default_choice_depends_on_the_tools(ask, tools, given, choice):
    assert ask(tool_choice=given, **({"tools": [tool()]} if tools else {})).tool_choice == choice


def test_every_refusal_has_a_code_of_the_wire(ask):
    with pytest.raises(WireError) as refusal:
        ask(temperature=9)
    assert refusal.value.body()["error"]["code"] == "invalid_request"
