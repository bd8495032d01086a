"""Whatever arrives is a value or a WireError, and whatever we write reads as what it was."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import envelope, wire

modest = settings(max_examples=150, deadline=None, derandomize=True)

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "loads": wire.loads,
    "request": lambda payload: envelope.decode_request(payload, 1 << 20),
    "reply": wire.decode_reply,
    "info": wire.decode_info,
    "state": wire.decode_state,
    "cancel": lambda payload: (wire.decode_cancel(payload),),
    "error": lambda payload: wire.WireError.from_body(wire.loads(payload)),
    "topic": lambda payload: wire.Topics().parse(payload.decode(errors="replace")),
}

segments = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(0, 2**63 - 1)
fractions = st.floats(0, 1e18)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(words, values, max_size=5)
FIELDS = [
    "edge",
    "error",
    "code",
    "keep",
    "v",
    "op",
    "rid",
    "seq",
    "kind",
    "node",
    "boot",
    "final",
    "phase",
    "protocol",
]
hostile = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | words, inner, max_size=9),
    max_leaves=20,
)


def outcome(decoder: str, payload: bytes) -> Any:
    """A decoder's value or its WireError; anything else fails the test."""
    try:
        value = DECODERS[decoder](payload)
    except wire.WireError as error:
        return error
    assert value is not None
    return value


@pytest.mark.parametrize("decoder", DECODERS)
@modest
@given(payload=st.binary(max_size=200) | words.map(str.encode) | hostile.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_or_a_wire_error(decoder: str, payload: bytes) -> None:
    outcome(decoder, payload)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("unit", ["[", '{"a":', '{"edge":', "[1,", "-", "9", '"\\ud83d', "\\u", '{"seq":9', "[[],"])
def test_a_megabyte_of_malice_is_refused_soon(decoder: str, unit: str) -> None:
    payload = (unit * ((1 << 20) // len(unit))).encode()
    begin = time.process_time()
    outcome(decoder, payload)
    assert time.process_time() - begin < 2


@modest
@given(depth=st.integers(0, 3000), pair=st.sampled_from([("[", "]"), ('{"a":', "}"), ('{"a":[', "]}")]))
def test_nesting_is_read_to_the_limit_and_refused_beyond_it(depth: int, pair: tuple[str, str]) -> None:
    payload = f'{{"a":{pair[0] * depth}0{pair[1] * depth}}}'.encode()
    levels = 1 + depth * (pair[0].count("{") + pair[0].count("["))
    result = outcome("loads", payload)
    assert isinstance(result, wire.WireError) == (levels > wire.MAX_DEPTH)


@modest
@given(
    digits=st.integers(1, 6000),
    fraction=st.sampled_from(["", ".5", "e3", "E+300", "e-400"]),
    sign=st.sampled_from(["", "-"]),
)
def test_every_number_that_is_read_fits_a_double(digits: int, fraction: str, sign: str) -> None:
    result = outcome("loads", f'{{"a":{sign}{"9" * digits}{fraction}}}'.encode())
    assert isinstance(result, wire.WireError) or math.isfinite(float(result["a"]))


@modest
@given(
    node=segments.filter(lambda name: name != wire.POOL),
    client=segments,
    rid=segments,
    root=st.lists(segments, min_size=1, max_size=3),
)
def test_topics_read_what_they_write(node: str, client: str, rid: str, root: list[str]) -> None:
    topics = wire.Topics("/".join(root))
    assert topics.parse(topics.request(node, client, rid)) == wire.Address("req", node, client, rid)
    assert topics.parse(topics.admin(node, client, rid)) == wire.Address("admin", node, client, rid)
    assert topics.parse(topics.cancel(client, rid)) == wire.Address("cancel", client=client, rid=rid)
    assert topics.parse(topics.out(client)) == wire.Address("out", client=client)
    for kind in ("status", "info", "state"):
        assert topics.parse(topics.presence(node, kind)) == wire.Address(kind, node)


@modest
@given(text=words | st.text(max_size=70))
def test_no_user_text_becomes_a_topic(text: str) -> None:
    if wire.is_segment(text):
        assert text.isascii()
        assert not set(text) & set("/+#$\0\n ")
        return
    if text != "+":
        with pytest.raises(wire.WireError):
            wire.Topics().out(text)
    with pytest.raises(wire.WireError):
        wire.Topics().parse(f"{wire.Topics().base}/out/{text}")


def test_plus_makes_filters_and_a_root_is_made_of_segments() -> None:
    topics = wire.Topics()
    assert topics.shared() == "$share/edge_agent/edge_agent/v1/req/any/+/+"
    assert topics.cancel("+", "+") == "edge_agent/v1/cancel/+/+"
    for root in ("", "/", "a//b", "a/", "+", "a/#", "$SYS", "a b"):
        with pytest.raises(wire.WireError):
            wire.Topics(root)


STAMP = {"v", "rid", "seq", "kind", "node", "boot", "final"}
replies = st.builds(
    wire.Reply,
    segments,
    whole,
    st.sampled_from(wire.KINDS) | words,
    segments,
    words,
    st.booleans(),
    objects.map(lambda body: {k: v for k, v in body.items() if k != "edge"}),
    objects.map(lambda extra: {k: v for k, v in extra.items() if k not in STAMP}),
)


@modest
@given(reply=replies)
def test_a_reply_reads_as_it_was_written(reply: wire.Reply) -> None:
    assert wire.decode_reply(reply.encode()) == reply


infos = st.builds(
    wire.Info, segments, words, words, words, words, whole, objects, objects, st.integers(1, 9), st.just(1)
)
states = st.builds(
    wire.State,
    words,
    st.sampled_from(wire.PHASES) | words,
    words,
    whole,
    whole,
    whole,
    fractions,
    fractions,
    fractions,
    fractions,
    whole,
    words,
)


@modest
@given(info=infos, state=states)
def test_presence_reads_as_it_was_written(info: wire.Info, state: wire.State) -> None:
    assert wire.decode_info(wire.encode_presence(info)) == info
    assert wire.decode_state(wire.encode_presence(state)) == state


def test_equal_presence_is_equal_bytes_at_every_level() -> None:
    one = wire.Info("n", "s", "m", "e", "t", 1, {}, {"deep": {"a": [{"x": 1, "y": 2}], "b": 2}, "c": 3})
    other = wire.Info("n", "s", "m", "e", "t", 1, {}, {"c": 3, "deep": {"b": 2, "a": [{"y": 2, "x": 1}]}})
    assert wire.encode_presence(one) == wire.encode_presence(other)


edges = st.builds(
    envelope.Edge,
    op=st.sampled_from(envelope.OPS),
    priority=st.sampled_from(envelope.PRIORITIES),
    timeout_s=st.none() | st.floats(0.1, 86400),
    ack=st.booleans(),
    flush_ms=st.integers(0, 5000),
    max_msg_bytes=st.none() | st.integers(256, 1 << 20),
    final_text=st.booleans(),
    format=st.sampled_from(envelope.FORMATS),
    trim=st.booleans(),
    template=st.none() | words,
    vars=objects,
    defs=objects,
    choices=st.lists(words.filter(bool), max_size=5).map(tuple),
    boot=st.none() | words,
    seq=st.integers(-1, 1 << 53),
)


@modest
@given(body=objects.map(lambda body: {k: v for k, v in body.items() if k != "edge"}), edge=edges)
def test_a_request_reads_as_it_was_written(body: dict[str, Any], edge: envelope.Edge) -> None:
    request = envelope.Request(body, edge)
    assert envelope.decode_request(request.encode(), 1 << 20) == request


@modest
@given(text=words.filter(lambda text: text.strip() and "\0" not in text), brace=st.booleans())
def test_text_reads_as_the_same_message_even_if_it_begins_with_a_brace(text: str, brace: bool) -> None:
    text = "{" * brace + text
    body = {"messages": [{"role": "user", "content": text}]}
    written = envelope.Request(body, envelope.Edge(format="text"), plain=True).encode()
    read = envelope.decode_request(written, 1 << 20)
    assert (read.body, read.edge.format) == (body, "text")


@modest
@given(
    code=st.sampled_from(sorted(wire.CODES)),
    message=words,
    param=st.none() | words,
    retry=st.none() | fractions,
    details=objects.map(lambda d: {k: v for k, v in d.items() if k not in {"message", "type", "code", "param"}}),
)
def test_an_error_reads_as_it_was_written(
    code: str, message: str, param: str | None, retry: float | None, details: dict[str, Any]
) -> None:
    error = wire.WireError(code, message, param=param, retry_after_s=retry)
    error.details = details
    written = wire.dumps(error.body())
    read = wire.WireError.from_body(wire.loads(written))
    assert (read.code, read.message, read.param, read.retry_after_s) == (wire.CODES[code], message, param, retry)
    assert wire.dumps(read.body()) == written
    assert "\n" not in read.text()


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"\udfff": 1}, {1, 2}, b"x", object()], ids=repr)
def test_what_no_peer_could_read_is_not_written(value: Any) -> None:
    with pytest.raises(wire.WireError) as refusal:
        wire.dumps({"a": value})
    assert refusal.value.code.name == "internal"


def test_every_code_is_documented_and_has_a_class_of_http() -> None:
    for name, code in wire.CODES.items():
        assert (name, code.name == name, code.meaning != "", 400 <= code.http < 600) == (name, True, True, True)
    assert {name for name, code in wire.CODES.items() if code.retryable} == {
        "busy", "rate_limited", "engine_failed", "unavailable", "draining"
    }  # fmt: skip
