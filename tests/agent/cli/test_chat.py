"""A conversation: what is remembered, and how an answer is stopped without leaving."""

import pytest

from edge_agent.cli.chat import Conversation


def said(request: dict) -> list[str]:
    return [each["content"] for each in request["messages"]]


def test_every_turn_carries_those_before() -> None:
    conversation = Conversation("be brief", {"max_tokens": 9, "temperature": None})
    assert conversation.request("one") == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}],
        "edge": {"trim": True},
        "max_tokens": 9,
    }
    conversation.remember("one", "1")
    assert said(conversation.request("two")) == ["be brief", "one", "1", "two"]


def test_a_turn_that_nobody_answered_is_forgotten() -> None:
    conversation = Conversation(None, {})
    conversation.remember("one", "")
    assert said(conversation.request("two")) == ["two"]


def test_a_reset_keeps_the_instructions() -> None:
    conversation = Conversation("be brief", {})
    conversation.remember("one", "1")
    conversation.reset()
    assert said(conversation.request("two")) == ["be brief", "two"]


def test_lines_of_a_pipe_are_turns_of_a_conversation(answered) -> None:
    done = answered("chat", "--stats", stdin=b"one\n\ntwo\n/reset\nthree\n/what\n/quit\nfour\n")
    assert (done.returncode, done.stdout) == (0, b"one\ntwo\nthree\n")
    told = done.stderr.decode().splitlines()
    first, second, third = (int(line.split(" · ")[2].split()[0]) for line in told if line.startswith("first token"))
    assert first == third < second
    assert told[-1].startswith("/what is unknown: /reset forgets")


@pytest.mark.usefixtures("agent")
def test_ctrl_c_stops_the_answer_and_not_the_conversation(typing, busy) -> None:
    with typing("chat") as terminal:
        terminal.until(b"> ")
        terminal.type("hang")
        terminal.until(b"it begins")
        busy(1)
        terminal.interrupt()
        terminal.until(b"stopped")
        busy(0)
        terminal.type("and on")
        terminal.until(b"and on")  # As typed,
        terminal.until(b"and on")  # and as answered.
        terminal.until(b"> ")
        terminal.interrupt_until(b"> ")
        terminal.type("/quit")
        assert terminal.end()[0] == 0


def test_a_failed_turn_is_told_and_the_conversation_goes_on(answered) -> None:
    done = answered("chat", "--node", "cellar", stdin=b"one\ntwo\n")
    assert done.returncode == 0
    assert done.stderr.count(b"edge-agent: unavailable: the node cellar is not online") == 2


def test_without_a_broker_there_is_no_conversation(edge_agent) -> None:
    assert edge_agent("chat", "--broker", "127.0.0.1:1", stdin=b"one\n").returncode == 69
