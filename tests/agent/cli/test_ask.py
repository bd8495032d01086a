"""One question: what is sent, what is printed, how it is stopped."""

import json
import signal

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.cli.ask import Answer, body, waiting
from edge_agent.cli.caller import caller, default_name
from edge_agent.cli.terminal import printable
from edge_agent.config import Broker
from edge_agent.wire import Reply

BOUNDED = settings(max_examples=100, deadline=None, derandomize=True)


def reply(kind: str, content: str, seq: int = 0, **extra: object) -> Reply:
    part = "message" if kind == "final" else "delta"
    return Reply("r", seq, kind, "kitchen", "b", kind == "final", {"choices": [{part: {"content": content}}]}, extra)


def test_what_is_not_given_is_not_sent() -> None:
    assert body("hi") == {"messages": [{"role": "user", "content": "hi"}]}


def test_all_that_is_given_is_sent() -> None:
    sent = body(
        "hi",
        system="be brief",
        template="t",
        variables=["a=1=2", "b="],
        schema={"type": "string"},
        max_tokens=5,
        temperature=0,
    )
    assert sent == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "string"}}},
        "edge": {"template": "t", "vars": {"a": "1=2", "b": ""}},
    }


@BOUNDED
@given(st.lists(st.text(min_size=1), max_size=8), st.data())
def test_the_last_message_repairs_what_was_lost(chunks, data) -> None:
    came = [chunk for chunk in chunks if data.draw(st.booleans())]
    answer, whole = Answer(), "".join(chunks)
    printed = "".join(answer.feed(reply("chunk", chunk)) for chunk in came) + answer.feed(reply("final", whole))
    assert printed.endswith(whole)
    assert answer.text == whole
    if whole.startswith("".join(came)):
        assert printed == whole


@pytest.mark.parametrize("extra", [{"text_omitted": True}, {"truncated": True}])
def test_a_final_without_the_whole_text_repairs_nothing(extra) -> None:
    answer = Answer()
    answer.feed(reply("chunk", "all of it"))
    assert answer.feed(reply("final", "", **extra)) == ""
    assert answer.text == "all of it"


@pytest.mark.parametrize("choices", [None, [], [None], [{"delta": None}], [{"delta": {"content": 7}}], "x"])
def test_a_strange_message_prints_nothing(choices) -> None:
    for kind in ("chunk", "final"):
        strange = Reply("r", 0, kind, "k", "b", kind == "final", {"choices": choices, "usage": 3}, {"timings": []})
        assert Answer().feed(strange) == ""


def test_waiting_is_explained() -> None:
    def status(kind: str, **values: object) -> str:
        return waiting(Reply("r", 0, kind, "kitchen", "b", False, values))

    assert status("accepted", position=2) == "kitchen: 2 before you"
    assert status("accepted", position=0) == ""
    assert status("progress", read=10, prompt=90) == "kitchen reads: 10 of 90 tokens"


@BOUNDED
@given(st.text())
def test_nothing_printable_is_lost_and_nothing_else_is_kept(text) -> None:
    shown = printable(text)
    assert shown == "".join(char for char in text if char in "\n\t" or not (ord(char) < 32 or 127 <= ord(char) < 160))


@pytest.mark.parametrize(
    ("typed", "host", "port"),
    [
        ("broker", "broker", 1883),
        ("broker:8883", "broker", 8883),
        ("[::1]", "::1", 1883),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_a_broker_is_a_host_with_or_without_a_port(typed, host, port) -> None:
    found = caller(Broker(), typed, None, "any", 1.0).broker
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize("typed", ["", "::1", "host:", "host:0", "host:65536", "a b", "host:1:2"])
def test_anything_else_is_no_broker(typed) -> None:
    with pytest.raises(typer.BadParameter):
        caller(Broker(), typed, None, "any", 1.0)


def test_the_broker_user_is_the_name_if_it_can_be(monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "jean luc/é")
    assert default_name("anna") == "anna"
    assert default_name("anna@home") == default_name(None) == "cli-jean-luc--"


def test_an_answer_is_printed_and_measured(answered) -> None:
    done = answered("ask", "--stats", "two", "words")
    assert (done.returncode, done.stdout) == (0, b"two words\n")
    figures = done.stderr.decode()
    assert figures.startswith("first token ")
    assert figures.endswith("2 written · node kitchen\n")


def test_an_answer_that_was_cut_off_says_so(answered) -> None:
    done = answered("ask", "--max-tokens", "2", "one two three")
    assert (done.stdout, done.stderr) == (b"one two\n", b"cut off after 2 tokens\n")


def test_words_may_come_before_standard_input(answered) -> None:
    assert answered("ask", "Repeat:", "-", stdin=b"a b").stdout == b"Repeat:\n\na b\n"


def test_standard_input_is_the_question(answered) -> None:
    assert answered("ask", "-", stdin="grüß\ndich".encode()).stdout.decode() == "grüß\ndich\n"
    done = answered("ask", "-", stdin=b"\xff")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_a_template_of_the_node_needs_no_question(answered) -> None:
    done = answered("ask", "--template", "shorten", "--var", "text={{ 7 * 7 }}")
    assert done.stdout == b"Shorten: {{ 7 * 7 }}\n"


def test_a_schema_shapes_the_answer(answered, tmp_path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"on": {"type": "boolean"}}}')
    done = answered("ask", "lamp?", "--schema", str(tmp_path / "schema.json"))
    assert isinstance(json.loads(done.stdout), dict)
    (tmp_path / "schema.json").write_text("{")
    assert answered("ask", "lamp?", "--schema", str(tmp_path / "schema.json")).returncode == 2


def test_json_prints_every_message_of_the_answer(answered) -> None:
    messages = [json.loads(line) for line in answered("ask", "--json", "a b c").stdout.splitlines()]
    assert [each["edge"]["seq"] for each in messages] == list(range(len(messages)))
    assert messages[-1]["choices"][0]["message"]["content"] == "a b c"


def test_json_prints_the_error_too(answered) -> None:
    done = answered("ask", "--json", "hi", "--template", "nope")
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"]["param"] == "edge.template"


@pytest.mark.usefixtures("agent")
def test_ctrl_c_stops_the_answer_everywhere(started, busy) -> None:
    with started("ask", "hang") as asking:
        assert asking.stdout.read(len("it begins")) == b"it begins"
        busy(1)
        asking.send_signal(signal.SIGINT)
        assert (asking.wait(10), asking.stdout.read(), asking.stderr.read()) == (130, b"\n", b"")
    busy(0)


@pytest.mark.usefixtures("agent")
def test_a_reader_that_goes_away_ends_it_everywhere_and_quietly(started, busy) -> None:
    with started("ask", "long") as asking:
        asking.stdout.read(10)
        busy(1)
        asking.stdout.close()
        assert (asking.wait(10), asking.stderr.read()) == (1, b"")
    busy(0)


def test_an_answer_cannot_drive_the_terminal(typing, answered) -> None:
    with typing("ask", "bell") as terminal:
        code, seen = terminal.end()
    assert code == 0
    assert b"a]0;titleb2Jcd\te\r\n" in seen
    assert not {b"\x07"[0], b"\x9b"[0]} & set(seen)
    assert answered("ask", "bell").stdout.decode() == "a\x1b]0;title\x07b\x9b2Jc\rd\te\n"  # A file gets it as it is.
