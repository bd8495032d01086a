"""The program's output, cut into events: whatever the bytes were cut into before, whatever comes in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.engines.axera.stream import Event, Line, Mark, Ran, Stream

START = (
    b"build time: Feb 13 2025 15:44:57\n"
    b"\x1b[1;30;32m[I][                            Init][ 111]: LLM init start\x1b[0m\n"
    b"bos_id: -1, eos_id: 151645\n"
    + "\x1b[1;30;33m\r  3% | ██   |   1 /  31 [0.0s<0.1s, 500 count/s] \x1b[1;30;32mtokenizer init ok\x1b[0m".encode()
    + b"\x1b[1;30;33m\r100% | \x1b[1;30;32minit post axmodel ok\n\x1b[0m"
    b'\x1b[1;30;32m[I][                     load_config][ 282]: load config: \n{\n    "top_k": 1\n}\n\x1b[0m\n'
    b"\x1b[1;30;32m[I][                            Init][ 288]: LLM init ok\x1b[0m\n"
    b'Type "q" to exit, Ctrl+c to stop current running\n>> '
)
RUN = b"\n\n\x1b[1;30;35m[N][                             Run][ 610]: hit eos,avg 12.65 token/s\n\x1b[0m\n>> "
DEAD = b"[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 is dead\n"
ERROR = b"\x1b[1;30;31m[E][                       inference][ 529]: AX_ENGINE_Execute\x1b[0m\n"
LATER = START.replace(b"\n>> ", b"\nprompt >> ") + RUN.replace(b">> ", b"prompt >> ")


def events(*chunks: bytes) -> list[Event]:
    stream = Stream()
    return [event for chunk in chunks for event in stream.feed(chunk)]


def kinds(*chunks: bytes) -> list[type]:
    return [type(event) for event in events(*chunks) if not isinstance(event, Line)]


def said(*chunks: bytes) -> list[str]:
    return [event.text for event in events(*chunks) if isinstance(event, Line)]


def test_a_start_and_two_runs():
    assert kinds(START + RUN + RUN) == [Mark, Ran, Mark, Ran, Mark]
    assert said(START)[:3] == [
        "build time: Feb 13 2025 15:44:57",
        "[I][                            Init][ 111]: LLM init start",
        "bos_id: -1, eos_id: 151645",
    ]


def test_the_mark_of_later_programs_is_one_mark():
    assert kinds(LATER) == [Mark, Ran, Mark]


@pytest.mark.parametrize("output", [START + RUN, LATER, RUN + DEAD + ERROR * 3 + RUN + b">> >> >> "])
def test_it_makes_no_difference_where_the_bytes_are_cut(output):
    whole = events(output)
    for place in range(len(output)):
        assert events(output[:place], output[place:]) == whole
    assert events(*(output[place : place + 1] for place in range(len(output)))) == whole


@pytest.mark.parametrize("line", [DEAD, ERROR, DEAD[:-1], b"[C][device][print] a >", b"\n", b"reg 3 >> 4\n"])
def test_a_line_of_the_driver_between_any_two_bytes_of_the_end_of_a_run_hides_no_mark(line):
    """But inside the three bytes of the mark itself, which the program writes at once."""
    last = len(RUN) - 3
    for place in [*range(last + 1), len(RUN)]:
        found = kinds(START, RUN[:place] + line + RUN[place:] + line)
        assert found.count(Mark) >= 2
        inside = b"hit eos,avg 12.65 token/s"
        if not RUN.index(inside) < place < RUN.index(inside) + len(inside):
            assert Ran in found


def test_an_injected_line_is_heard_whole():
    assert "device 1 is dead" in said(START + DEAD + RUN)[-2]
    assert any("device 1 is dead" in line for line in said(START + RUN[:30] + DEAD + RUN[30:]))


def test_a_mark_inside_a_line_is_none():
    assert kinds(START, b"a >> b\n", b"[C][device][print] x >> y\n") == [Mark]


def test_a_line_without_an_end_is_bounded():
    stream = Stream()
    for _ in range(64):
        list(stream.feed(b"x" * 1000))
        assert len(stream._rest) < 1 << 13


@given(
    st.lists(st.sampled_from([RUN, DEAD, ERROR, b">> ", b"\r", b"\n", b"\x1b[0m", b"prompt", b"\xff\xf0", b"x" * 99]))
)
def test_random_output_cut_at_random(parts):
    output = b"".join(parts)
    whole = events(output)
    assert events(*parts) == whole
    assert events(*(output[place : place + 7] for place in range(0, len(output), 7))) == whole
