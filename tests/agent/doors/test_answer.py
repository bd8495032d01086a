"""An answer as messages: statuses, chunks gathered in windows, limits, and exactly one final."""

import asyncio
import hashlib
import itertools
import json
import time

import pytest

from edge_agent.chat.request import ToolCall
from edge_agent.doors.mqtt.answer import Answer, Parcel, Sender
from edge_agent.engines.base import Usage
from edge_agent.envelope import Edge
from edge_agent.serving.events import Accepted, Delta, Done, Failed, Progress, Queued
from edge_agent.wire import Reply, WireError, decode_reply

SENDER = Sender("kitchen", "b00t", "echo", chunk_bytes=4096, final_bytes=65536)


class Sent(list[Parcel]):
    """The messages of one answer, as its client would read them."""

    @property
    def replies(self) -> list[Reply]:
        return [decode_reply(parcel.payload) for parcel in self]

    @property
    def kinds(self) -> list[str]:
        return [parcel.kind for parcel in self]

    def deltas(self) -> list[dict]:
        return [reply.body["choices"][0]["delta"] for reply in self.replies if reply.kind == "chunk"]

    def text(self) -> str:
        return "".join(delta.get("content", "") for delta in self.deltas())


@pytest.fixture
async def answering(monkeypatch):
    """Begin an answer: `answer, sent = answering(edge fields, stream=…)`."""
    monkeypatch.setattr(time, "monotonic", asyncio.get_running_loop().time)

    def begin(*, stream: bool = True, sender: Sender = SENDER, **edge) -> tuple[Answer, Sent]:
        sent = Sent()
        return Answer("r1", Edge(**edge), sender, sent.append, stream=stream), sent

    return begin


def content(text: str) -> Delta:
    return Delta({"content": text})


async def test_the_first_text_goes_at_once_and_what_follows_in_windows(answering):
    answer, sent = answering(flush_ms=50)
    for word in "abcdef":
        answer(content(word))
        await asyncio.sleep(0.02)
    answer(Done("abcdef"))
    assert [delta["content"] for delta in sent.deltas()] == ["a", "bc", "de", "f"]
    assert sent.kinds == ["chunk"] * 4 + ["final"]


async def test_after_a_pause_text_goes_at_once_again(answering):
    answer, sent = answering(flush_ms=50)
    answer(content("a"))
    await asyncio.sleep(1)
    answer(content("b"))
    assert sent.text() == "ab"


async def test_no_more_than_twenty_chunks_a_second(answering):
    answer, sent = answering()
    for _ in range(1000):
        answer(content("x"))
        await asyncio.sleep(0.001)
    assert 18 <= len(sent) <= 21


async def test_flush_0_sends_every_token(answering):
    answer, sent = answering(flush_ms=0)
    for word in "abc":
        answer(content(word))
    assert [delta["content"] for delta in sent.deltas()] == ["a", "b", "c"]


async def test_only_the_first_chunk_names_the_role(answering):
    answer, sent = answering(flush_ms=0)
    answer(content("a"))
    answer(content("b"))
    assert [delta.get("role") for delta in sent.deltas()] == ["assistant", None]


async def test_the_numbers_have_no_gaps_and_the_end_is_the_end(answering):
    answer, sent = answering(flush_ms=0)
    for event in (Accepted(2, 1.5), Queued(1), content("a"), content("b"), Done("ab")):
        answer(event)
    assert [reply.seq for reply in sent.replies] == [0, 1, 2, 3, 4]
    assert [reply.final for reply in sent.replies] == [False] * 4 + [True]
    assert sent.kinds == ["accepted", "queued", "chunk", "chunk", "final"]
    assert (sent.replies[0].body["position"], sent.replies[0].body["eta_s"]) == (2, 1.5)
    assert "eta_s" not in sent.replies[1].body


async def test_without_stream_there_is_one_message(answering):
    answer, sent = answering(stream=False)
    for event in (Accepted(0), Progress(1, 2), content("a"), Done("a", usage=Usage(2, 1, 1))):
        answer(event)
    [reply] = sent.replies
    assert (reply.kind, reply.final, reply.body["object"]) == ("final", True, "chat.completion")
    assert reply.body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 1,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


async def test_ack_asks_for_statuses_without_stream(answering):
    answer, sent = answering(stream=False, ack=True)
    for event in (Accepted(0), content("a"), Done("a")):
        answer(event)
    assert sent.kinds == ["accepted", "final"]


async def test_text_is_answered_by_bare_text(answering):
    answer, sent = answering(stream=False, format="text", ack=True)
    answer(Accepted(0))
    answer(Done("grüß dich"))
    assert [parcel.payload.decode() for parcel in sent] == ["grüß dich"]


async def test_text_is_refused_by_one_line_of_text(answering):
    answer, sent = answering(stream=False, format="text")
    answer(Failed(WireError("busy", "two\nlines", retry_after_s=1.0)))
    assert [parcel.payload for parcel in sent] == [b"error: busy: two lines"]


async def test_calls_are_told_to_a_text_client_as_json(answering):
    answer, sent = answering(stream=False, format="text")
    answer(Done("", calls=(ToolCall("c1", "light", '{"on":true}'),)))
    assert json.loads(sent[0].payload) == [{"name": "light", "arguments": '{"on":true}'}]


async def test_reading_is_told_and_a_heart_beats_while_it_takes_long(answering):
    answer, sent = answering()
    answer(Progress(0, 900))
    await asyncio.sleep(12)
    answer(Progress(500, 900))
    await asyncio.sleep(6)
    assert [(reply.body["read"], reply.body["prompt"]) for reply in sent.replies] == [
        *((0, 900), (0, 900)),
        *((500, 900), (500, 900)),
    ]
    answer(content("a"))
    await asyncio.sleep(60)
    assert sent.kinds[4:] == ["chunk"]
    answer(Done("a"))


async def test_progress_is_told_every_two_seconds_at_most(answering):
    answer, sent = answering()
    for read in range(1, 101):
        answer(Progress(read, 100))
        await asyncio.sleep(0.1)
    answer(Done(""))
    assert 5 <= sent.kinds.count("progress") <= 6


async def test_the_heart_stops_at_the_end(answering):
    answer, sent = answering(stream=False, ack=True)
    answer(Progress(0, 9))
    answer(Failed(WireError("cancelled", "enough")))
    await asyncio.sleep(60)
    assert sent.kinds == ["error"]


async def test_no_chunk_is_larger_than_the_limit_and_no_character_is_lost(answering):
    sender = Sender("kitchen", "b00t", "echo", chunk_bytes=600, final_bytes=65536)
    answer, sent = answering(sender=sender)
    text = "".join(itertools.islice(itertools.cycle("aé€😀"), 3000))
    answer(content(text))
    answer(Done(text))
    assert max(len(parcel.payload) for parcel in sent[:-1]) <= 600
    assert sent.text() == text
    assert sent.replies[-1].extra["chunks"] == len(sent) - 1


async def test_a_client_may_ask_for_smaller_messages_not_for_larger_ones(answering):
    for asked in (600, 1 << 20):
        answer, sent = answering(max_msg_bytes=asked)
        answer(content("x" * 9000))
        assert max(len(parcel.payload) for parcel in sent) <= min(asked, 4096)


async def test_text_cannot_be_cut_smaller_than_its_envelope_allows(answering):
    sender = Sender("n" * 64, "b00t", "echo", chunk_bytes=4096, final_bytes=65536)
    answer, sent = answering(max_msg_bytes=256, sender=sender)
    answer(content("x" * 200))
    assert len(sent) == 8
    assert sent.text() == "x" * 200


async def test_a_stream_whose_text_is_too_long_to_repeat_is_summed_up(answering):
    sender = Sender("kitchen", "b00t", "echo", chunk_bytes=4096, final_bytes=2000)
    answer, sent = answering(sender=sender)
    answer(content("é" * 3000))
    answer(Done("é" * 3000))
    last = sent.replies[-1]
    assert len(sent[-1].payload) <= 2000
    assert (last.extra["text_omitted"], last.extra["chars"]) == (True, 3000)
    assert last.extra["sha256"] == hashlib.sha256(("é" * 3000).encode()).hexdigest()
    assert sent.text() == "é" * 3000


async def test_a_client_may_do_without_the_whole_text(answering):
    answer, sent = answering(final_text=False)
    answer(content("hello"))
    answer(Done("hello"))
    assert sent.replies[-1].body["choices"][0]["message"]["content"] == ""
    assert sent.replies[-1].extra["chars"] == 5


@pytest.mark.parametrize("text", ["x" * 9000, "€" * 4000, '"\\\n' * 3000, "\x01" * 3000])
async def test_one_message_that_is_too_long_is_cut_and_says_so(answering, text):
    sender = Sender("kitchen", "b00t", "echo", chunk_bytes=4096, final_bytes=2000)
    answer, sent = answering(stream=False, sender=sender)
    answer(Done(text))
    said = sent.replies[0].body["choices"][0]["message"]["content"]
    assert len(sent[0].payload) <= 2000
    assert sent.replies[0].extra["truncated"] is True
    assert 0 < len(said) < len(text)
    assert text.startswith(said)


async def test_bare_text_is_cut_at_a_character(answering):
    answer, sent = answering(stream=False, format="text", max_msg_bytes=257)
    answer(Done("€" * 1000))
    assert sent[0].payload == ("€" * 85).encode()


async def test_an_error_comes_after_the_text_written_before_it(answering):
    answer, sent = answering()
    answer(content("a"))
    answer(content("b"))
    answer(Failed(WireError("engine_failed", "gone", retry_after_s=2.0)))
    assert sent.text() == "ab"
    assert sent.kinds[-1] == "error"
    assert sent.replies[-1].error().retry_after_s == 2.0


@pytest.mark.parametrize(("code", "stored"), [("busy", False), ("cancelled", True), ("engine_failed", False)])
async def test_what_may_be_tried_again_is_not_stored(answering, code, stored):
    answer, sent = answering()
    answer(Failed(WireError(code, "no")))
    assert sent[0].stored is stored


async def test_a_muted_answer_only_ends(answering):
    answer, sent = answering(flush_ms=0)
    answer(content("a"))
    answer.mute()
    answer(content("b"))
    answer(Failed(WireError("cancelled", "another node answers")))
    assert sent.kinds == ["chunk", "error"]
    assert answer.muted


async def test_kinds_of_text_are_never_mixed_in_one_chunk(answering):
    answer, sent = answering(flush_ms=5000)
    for delta in ({"reasoning_content": "hm"}, {"reasoning_content": "m"}, {"content": "yes"}, {"content": "."}):
        answer(Delta(delta))
    answer(Done("yes."))
    assert sent.deltas() == [
        {"role": "assistant", "reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"content": "yes."},
    ]


async def test_arguments_of_a_call_are_gathered_too(answering):
    answer, sent = answering(flush_ms=5000)
    begin = {"index": 0, "id": "c1", "type": "function", "function": {"name": "light", "arguments": ""}}
    other = {"index": 1, "id": "c2", "type": "function", "function": {"name": "fan", "arguments": ""}}
    answer(content("Sure."))
    answer(Delta({"tool_calls": [begin]}))
    for part in ('{"on"', ":true}"):
        answer(Delta({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}))
    answer(Delta({"tool_calls": [other]}))
    answer(Delta({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}))
    answer(Done("Sure."))
    calls = [call for delta in sent.deltas()[1:] for call in delta["tool_calls"]]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [(0, '{"on":true}'), (1, "{}")]
    assert begin["function"]["arguments"] == ""


async def test_logprobs_travel_with_their_chunk_once(answering):
    answer, sent = answering(flush_ms=5000)
    for token in "abc":
        answer(Delta({"content": token}, ({"token": token, "logprob": -1.0},)))
    answer(Done("abc"))
    chunks = [reply.body["choices"][0]["logprobs"]["content"] for reply in sent.replies if reply.kind == "chunk"]
    assert [[item["token"] for item in items] for items in chunks] == [["a"], ["b", "c"]]


async def test_the_final_names_what_was_ignored_and_how_likely_the_choices_are(answering):
    answer, sent = answering(stream=False)
    answer(Done("on", ignored=("seed",), scores=({"choice": "on", "probability": 1.0},)))
    assert sent.replies[0].extra["ignored"] == ["seed"]
    assert sent.replies[0].extra["scores"] == [{"choice": "on", "probability": 1.0}]


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_conflict_does_not_end_the_answer(answering, form):
    answer, sent = answering(stream=False, format=form)
    answer.conflict(WireError("id_conflict", "taken"))
    answer(Done("done"))
    assert [parcel.final for parcel in sent] == [False, True]
    assert [parcel.seq for parcel in sent] == [0, 1]
    assert sent[0].payload.startswith(b"error: id_conflict" if form == "text" else b"{")


def call(arguments: str, index: int = 0) -> dict:
    return {"index": index, "id": "c", "type": "function", "function": {"name": "light", "arguments": arguments}}


@pytest.mark.parametrize("sizes", [[9000], [0, 9000, 10], [300] * 20])
async def test_arguments_are_cut_like_text(answering, sizes):
    answer, sent = answering(max_msg_bytes=600)
    answer(Delta({"tool_calls": [call("€" * size, index) for index, size in enumerate(sizes)]}))
    assert max(len(parcel.payload) for parcel in sent) <= 600
    said = [""] * len(sizes)
    for part in (part for delta in sent.deltas() for part in delta["tool_calls"]):
        assert ("id" in part) is (not said[part["index"]] and "name" in part["function"])
        said[part["index"]] += part["function"]["arguments"]
    assert [len(each) for each in said] == sizes


async def test_logprobs_are_shared_out_when_a_chunk_is_cut(answering):
    answer, sent = answering(flush_ms=5000, max_msg_bytes=2000)
    answer(content("first"))
    for number in range(200):
        answer(Delta({"content": "word "}, ({"token": f"word{number}", "logprob": -1.0},)))
    answer(Done("word " * 200))
    assert max(len(parcel.payload) for parcel in sent[:-1]) <= 2000
    told = [reply.body["choices"][0]["logprobs"] for reply in sent.replies[1:-1]]
    assert [item["token"] for each in told for item in each["content"]] == [f"word{number}" for number in range(200)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "done",
    [
        Done("", calls=(ToolCall("c1", "light", "x" * 9000),)),
        Done("", scores=tuple({"choice": "x" * 60, "probability": 0.1} for _ in range(99))),
    ],
    ids=["calls", "scores"],
)
async def test_calls_and_scores_that_do_not_fit_are_an_error(answering, stream, done):
    answer, sent = answering(stream=stream, max_msg_bytes=1500)
    answer(done)
    assert sent.kinds == ["error"]
    assert sent.replies[0].error().code.name == "too_large"
    assert len(sent[0].payload) <= 1500


async def test_a_final_never_has_less_room_than_its_envelope_needs(answering):
    answer, sent = answering(stream=False, max_msg_bytes=256)
    answer(Done("hello", calls=(ToolCall("c1", "light", "{}"),), logprobs=({"token": "x" * 2000},)))
    assert sent.replies[0].body["choices"][0]["message"]["content"] == "hello"
    assert len(sent[0].payload) <= 1024


@pytest.mark.parametrize("form", ["json", "text"])
async def test_the_message_of_an_error_is_cut_too(answering, form):
    answer, sent = answering(stream=False, format=form, max_msg_bytes=1024)
    answer(Failed(WireError("internal", "€" * 9000, param="p", odd=["€" * 9000])))
    assert len(sent[0].payload) <= 1024
    assert b"\xe2\x82\xac" * 100 in sent[0].payload
