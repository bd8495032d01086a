"""SIGINT, measured in tokens: a fault makes the token slow in which it comes."""

from __future__ import annotations

import os
import re
import signal

import pytest

FOREVER = 1_000_000
HERE = {"do": "lines", "text": ["here"], "raw": True}


def slow_from(when: str, at: int) -> tuple[dict, ...]:
    """From this token on every token takes 71 s; a line tells that it has begun."""
    return ({"when": when, "at": at, "do": "slow", "times": FOREVER}, {"when": when, "at": at, **HERE})


def interrupted(child, line: bytes) -> str:
    """What is printed from the interruption on."""
    child.write(line + b"\n")
    child.until(b"here\n")
    child.process.send_signal(signal.SIGINT)
    return child.until(child.end).decode()


@pytest.mark.parametrize("written", [3, 4])
def test_an_interrupt_stops_in_the_token_and_leaves_a_junk_one(stage, address, written):
    stage.script(*slow_from("write", written))
    rest = interrupted(stage.ready(), b"abcdefghi")
    assert rest.startswith("\n\n\033[1;30;35m[N]")  # What was not decoded yet is lost.
    final = address.decoded()[-1]
    assert final[:-1] == address.ids("abcdefghi")[:written]
    assert final[-1] in address.chat("abcdefghi")


def test_a_junk_token_may_complete_a_piece(stage, address):
    stage.script(*slow_from("write", 5))
    rest = interrupted(stage.ready(), b"abcdefghi")
    assert re.match(r"de.\n\n\033", rest, re.DOTALL)
    assert len(address.decoded()[-1]) == 6


def test_an_interrupt_between_two_tokens_leaves_none(stage, address):
    child = stage.ready()
    address.before = lambda path: (path == "/decode" and os.kill(child.process.pid, signal.SIGINT)) or None
    assert child.ask("abcdefghi").startswith(b"abc\n\n")
    assert address.decoded() == [address.ids("abc")] * 2


def test_an_interrupt_while_reading_ends_in_an_empty_answer(stage, address):
    stage.script(*slow_from("read", 20))
    assert interrupted(stage.ready(), b"abc").startswith("\n\n\033[1;30;35m[N]")
    assert address.decoded() == [[]]


def test_the_next_prompt_knows_nothing_of_an_interrupt(stage):
    stage.script(*({**fault, "prompt": 0} for fault in slow_from("read", 20)))
    child = stage.ready()
    interrupted(child, b"abc")
    assert child.ask("def").startswith(b"def\n\n")


def test_an_interrupt_at_the_prompt_is_harmless(stage):
    child = stage.ready()
    child.process.send_signal(signal.SIGINT)
    assert child.ask("hello").startswith(b"hello\n\n")
    child.process.send_signal(signal.SIGINT)
    assert child.ask("again").startswith(b"again\n\n")


def test_an_interrupt_before_the_run_begins_is_lost(stage, address):
    child = stage.ready()
    address.before = lambda path: (path == "/encode" and os.kill(child.process.pid, signal.SIGINT)) or None
    assert child.ask("hello").startswith(b"hello\n\n")


def test_a_termination_ends_it_at_once_and_prints_nothing(stage):
    stage.script(*slow_from("write", 0))
    child = stage.ready()
    child.write(b"hello\n")
    child.until(b"here\n")
    child.process.terminate()
    assert child.ended() == (-signal.SIGTERM, b"", b"")


def test_q_waits_for_the_answer(stage):
    child = stage.ready()
    child.write(b"hello\nq\n")
    code, out, _ = child.ended()
    assert code == 0
    assert child.end.sub(b"[N] >> ", out) == b"hello\n\n[N] >> "


def test_a_shutdown_may_heed_neither_q_nor_an_interrupt(stage):
    stage.script({"when": "quit", **HERE}, {"when": "quit", "do": "silence"})
    child = stage.ready()
    child.write(b"q\n")
    child.until(b"here\n")
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    assert child.ended() == (-signal.SIGTERM, b"", b"")


def test_a_shutdown_may_need_to_be_killed(stage):
    deaf = {"when": "quit", "do": "deaf", "signals": ["INT", "TERM"]}
    stage.script(deaf, {"when": "quit", **HERE}, {"when": "quit", "do": "silence"})
    child = stage.ready()
    child.write(b"q\n")
    child.until(b"here\n")
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    child.process.kill()
    assert child.ended()[0] == -signal.SIGKILL
