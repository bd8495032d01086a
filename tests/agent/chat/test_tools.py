from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.chat.tools import AnswerParser, CallArguments, CallEnd, CallStart, Reasoning, Text

TOOLS = ("f", "set_lamp")
CALL = '{"name": "f", "arguments": {"a": 1}}'


def parse(*pieces, tools=TOOLS, **options):
    """The answer's text, its reasoning and its calls."""
    parser = AnswerParser(tools, **options)
    text, reasoning, calls = "", "", []
    for event in [event for piece in pieces for event in parser.feed(piece)] + parser.finish():
        match event:
            case Text(stretch):
                text += stretch
            case Reasoning(stretch):
                reasoning += stretch
            case CallStart(index, name):
                assert index == len(calls)
                calls.append([name, ""])
            case CallArguments(index, fragment):
                calls[index][1] += fragment
            case CallEnd(index):
                calls[index][1] = json.loads(calls[index][1])
    return text, reasoning, [tuple(call) for call in calls]


@pytest.mark.parametrize(
    "answer",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>{CALL}",
        f"\n{CALL}",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}```",
        f"[{CALL}]",
        '{"name": "f", "parameters": {"a": 1}}',
        '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        '{"function": "f", "arguments": {"a": 1}}',
        '{"function": {"name": "f", "arguments": {"a": 1}}}',
        '{"type": "function", "id": "x", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}',
        '{"type": "function", "name": "f", "parameters": {"a": 1}}',
        '{{"name": "f", "arguments": {"a": 1}}}',
        "[f(a=1)]",
        '{"name": "f", "arguments": {"a": 1}',
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}\n</tool_call>',
        '```json\n{"name": "f", "arguments": {"a": 1}\n```',
        f"<think>\nwhich?\n</think>\n\n{CALL}",
    ],
)
def test_a_call_is_read_in_every_shape_small_models_write(answer):
    text, _, calls = parse(answer)
    assert (text, calls) == ("", [("f", {"a": 1})])


@pytest.mark.parametrize(
    "answer",
    [
        f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
        f"[{CALL}, {CALL}]",
        f"{CALL}\n{CALL}",
        f"{CALL}; {CALL}",
        f"```json\n{CALL}\n{CALL}\n```",
        f"```json\n{CALL}\n```\n```json\n{CALL}\n```",
        "[f(a=1), f(a=1)]",
    ],
)
def test_several_calls_are_numbered_in_order(answer):
    assert parse(answer) == ("", "", [("f", {"a": 1})] * 2)


def test_text_around_calls_is_kept():
    text, _, calls = parse(f"Sure.\n{CALL}\nDone!")
    assert (text, calls) == ("Sure.\nDone!", [("f", {"a": 1})])


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  \n",
        "Hello {you}, see [1] and `code` and a < b\n\n[2] more\n- `x`\n```python\nprint(1)\n```\n",
        '{"name": "unknown", "arguments": {}}',
        '{"temperature": 21}',
        '{"name": "Bob", "age": 7} and more',
        '{"name": "f", "arguments": {"a": 1',
        '{"name": "f"',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": {"a": NaN}}',
        '{"name": "f", "arguments": {"a": "\\ud800"}}',
        '{"name": "f", "arguments": {"a": 1e999}}',
        "<tool_call>not json</tool_call>",
        "<tool_call> ",
        "<tool_ca",
        "```json\n[1, 2]\n```",
        "``",
        "[f(1)]",
        "[g(a=1)]",
        "[f(a=open)]",
        f'[{CALL}, {{"name": "unknown"}}]',
        f"The call is `{CALL}`.",
        "[" * 5000,
        '{"name": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_text_that_is_no_call_comes_out_unchanged(answer):
    assert parse(answer) == (answer, "", [])
    assert parse(*answer) == (answer, "", [])


def test_without_tools_nothing_is_held_back():
    parser = AnswerParser()
    for piece in (CALL, "<tool_call>", "```json"):
        assert parser.feed(piece) == [Text(piece)]


@pytest.mark.parametrize(("piece", "out"), [("I", "I"), ("[1", "[1"), ('{"temp', '{"temp'), ("`x", "`x"), ("<b", "<b")])
def test_text_goes_out_as_soon_as_it_cannot_be_a_call(piece, out):
    assert AnswerParser(TOOLS).feed(piece) == [Text(out)]


def test_a_call_is_announced_when_it_is_whole():
    parser = AnswerParser(TOOLS)
    assert parser.feed(CALL[:-1]) == []
    assert parser.feed(CALL[-1]) == [CallStart(0, "f"), CallArguments(0, '{"a": 1}'), CallEnd(0)]


def test_reasoning_is_kept_apart():
    assert parse("<think>\nhm\n</think>\n\nok") == ("ok", "hm\n", [])
    assert parse("hm</think>ok", thinking=True) == ("ok", "hm", [])
    assert parse("<think>a < b") == ("", "a < b", [])
    assert parse("<think>a</thin") == ("", "a</thin", [])


def test_think_tags_are_text_once_the_answer_has_begun():
    assert parse("x <think>a</think>")[0] == "x <think>a</think>"


def test_a_forced_tool_reads_an_object_as_its_arguments():
    assert parse('{"a": 1}', forced="f") == ("", "", [("f", {"a": 1})])
    assert parse("{}", forced="f") == ("", "", [("f", {})])
    assert parse(CALL, forced="f") == ("", "", [("f", {"a": 1})])


def test_a_forced_tool_excludes_the_others():
    assert parse('{"name": "set_lamp", "arguments": {}}', forced="f")[2] == []


PARTS = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        CALL,
        "\n",
        "\n\n",
        "```json\n",
        "```",
        "{",
        "}",
        "[",
        "]",
        "f(a=1)",
        '"name": ',
        '"',
        "'",
        "<think>",
        "</think>",
        "x",
        " ",
        "<",
        "`",
        "\\",
        ",",
        '{"name": "f", "arguments": {',
        "é",
    ]
)
ANSWERS = st.lists(PARTS, max_size=12).map("".join)


@settings(deadline=None, max_examples=300)
@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 200), max_size=6), thinking=st.booleans())
def test_how_the_answer_is_cut_makes_no_difference(answer, cuts, thinking):
    places = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
    whole = parse(answer, thinking=thinking)
    assert parse(*pieces, thinking=thinking) == whole
    assert parse(*answer, thinking=thinking) == whole


@settings(deadline=None, max_examples=300)
@example("\n\n<tool_call>")
@given(answer=ANSWERS)
def test_an_answer_without_calls_and_reasoning_comes_out_unchanged(answer):
    text, _, calls = parse(answer)
    assert calls or "<think>" in answer or text == answer


@pytest.mark.parametrize(
    "part", ['{"name":', "[\n", "<", "<tool_call>", "`\n", '\n{"name":"f"', " ", '{"name":"f"}', "```json\n", "\n{{"]
)
def test_an_adversarial_answer_takes_linear_time(part):
    def seconds(size):
        started = time.process_time()
        parse(part * (size // len(part)))
        return time.process_time() - started

    seconds(1000)
    assert seconds(120_000) < 10 * max(seconds(30_000), 0.02)
