"""Messages of an answer, read into pieces: whatever is lost on the way, the pieces are the answer."""

import random
from itertools import chain

import pytest

from custom_components.edge_agent.answer import AnswerReader, Call, Text, Thought
from custom_components.edge_agent.wire import Reply


def chunk(seq, **delta):
    return Reply("r", seq, "chunk", "attic", "b", False, {"choices": [{"delta": delta}]})


def final(seq, *, finish="stop", **message):
    body = {"choices": [{"message": message, "finish_reason": finish}], "usage": {"prompt_tokens": 3}}
    return Reply("r", seq, "final", "attic", "b", True, body, {"timings": {"first_token_s": 0.2}})


def calling(index, id_="", name="", arguments=""):
    return {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}


def read(*replies):
    reader = AnswerReader()
    return reader, list(chain.from_iterable(reader.take(reply) for reply in replies))


def test_text_comes_as_it_is_written():
    reader, pieces = read(chunk(0, content="Hel"), chunk(1, content="lo"), final(2, content="Hello"))
    assert pieces == [Text("Hel"), Text("lo")]
    assert (reader.finish_reason, reader.usage, reader.timings) == (
        "stop",
        {"prompt_tokens": 3},
        {"first_token_s": 0.2},
    )


def test_statuses_add_nothing_and_count():
    accepted = Reply("r", 0, "accepted", "attic", "b", False, {})
    _, pieces = read(accepted, chunk(1, content="Hello"), final(2, content="Hello"))
    assert pieces == [Text("Hello")]


def test_thoughts_are_kept_apart():
    _, pieces = read(
        chunk(0, reasoning_content="Hm"), chunk(1, content="Yes"), final(2, content="Yes.", reasoning_content="Hm, so")
    )
    assert pieces == [Thought("Hm"), Text("Yes"), Thought(", so"), Text(".")]


def test_a_final_alone_is_the_whole_answer():
    _, pieces = read(final(0, content="Hello", reasoning_content="Hm"))
    assert pieces == [Thought("Hm"), Text("Hello")]


def test_what_comes_after_a_gap_waits_for_the_final():
    _, pieces = read(chunk(0, content="One "), chunk(2, content="three"), final(3, content="One two three"))
    assert pieces == [Text("One "), Text("two three")]


def test_a_call_is_told_when_it_is_whole_and_once():
    call = {"id": "c1", "function": {"name": "on", "arguments": '{"a": 1}'}}
    reader, pieces = read(
        chunk(0, tool_calls=[calling(0, "c1", "on")]),
        chunk(1, tool_calls=[calling(0, arguments='{"a":')]),
        chunk(2, tool_calls=[calling(0, arguments=" 1}")]),
    )
    assert pieces == [Call("c1", "on", '{"a": 1}')]
    assert list(reader.take(final(3, finish="tool_calls", tool_calls=[call]))) == []


def test_two_calls_are_two():
    parts = [calling(0, "c1", "on", "{}"), calling(1, "c2", "off", "{}")]
    _, pieces = read(chunk(0, tool_calls=parts))
    assert pieces == [Call("c1", "on", "{}"), Call("c2", "off", "{}")]


def test_a_call_that_was_lost_comes_with_the_final():
    call = {"id": "c1", "function": {"name": "on", "arguments": ""}}
    _, pieces = read(chunk(0, content="Sure."), final(2, content="Sure.", tool_calls=[call]))
    assert pieces == [Text("Sure."), Call("c1", "on", "")]


def test_another_node_begins_anew():
    accepted = Reply("r", 0, "accepted", "attic", "b", False, {})
    again = Reply("r", 0, "accepted", "cellar", "c", False, {})
    _, pieces = read(accepted, again, chunk(1, content="Hello"), final(2, content="Hello"))
    assert pieces == [Text("Hello")]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_lost_the_text_is_whole_and_in_order(seed):
    rng = random.Random(seed)
    words = [f"{number} " for number in range(20)]
    chunks = [chunk(seq, content=word) for seq, word in enumerate(words)]
    kept = [each for each in chunks if rng.random() > 0.2]
    _, pieces = read(*kept, final(20, content="".join(words)))
    assert "".join(piece.text for piece in pieces) == "".join(words)


def test_a_final_without_choices_ends_quietly():
    reader, pieces = read(Reply("r", 0, "final", "attic", "b", True, {}))
    assert (pieces, reader.finish_reason, reader.usage) == ([], "", {})
