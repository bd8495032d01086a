from __future__ import annotations

import ast
import re
import signal
import threading
import time

import pytest

BAR = re.compile(
    r"\033\[1;30;33m\r *\d+% \| █* * \| ( *\d+ / 1024) \[[\d.]+s<[\d.]+s, [\d.]+ token/s\] \033\[1;30;32m\033\[0m"
)


def test_an_answer_is_framed_byte_by_byte(stage):
    child = stage.ready()
    answer = child.ask("hello world").decode()
    rate = child.end.search(answer.encode())[1].decode()
    assert answer == (
        "hello world\n\n"
        f"\033[1;30;35m[N][                             Run][ 610]: hit eos,avg {rate} token/s\n\033[0m\n>> "
    )
    assert float(rate) > 0
    known = rb"\x1b\[1;30;35m\[N\]\[ *Run\]\[ *\d+\]: hit eos,avg (\S+) token/s\n\x1b\[0m\n>> \Z"
    assert re.search(known, child.printed)


def test_three_tokens_are_a_piece_and_the_end_decodes_them_all(stage, address):
    stage.ready().ask("hello world")
    pieces = ["hel", "lo ", "wor", "ld", "hello world"]
    assert [path for path, _ in address.calls] == ["/bos_id", "/eos_id", "/encode"] + ["/decode"] * 5
    assert address.decoded() == [address.ids(piece) for piece in pieces]


def test_every_flush_is_where_it_is(stage, address):
    child = stage.ready()
    seen = []

    def look(path):
        if path == "/decode":
            seen.append(child.now())

    address.before = look
    child.write(b"abcdefg\n")
    assert child.until(child.end).startswith(b"\033[1;30;35m[N]")  # It lay in the buffer during the last /decode.
    assert seen == [b"", b"abc", b"def", b"g\n\n"]


def test_a_character_over_two_pieces_is_broken_in_the_stream_and_whole_in_the_end(stage, address):
    assert stage.ready().ask("ab🙂c").decode().startswith("ab\ufffd\ufffd\ufffd\ufffdc\n\n")
    assert address.text(address.decoded()[-1]) == "ab🙂c"


def test_without_live_print_a_bar_moves_and_the_answer_comes_at_the_end(stage, address):
    child = stage.ready(live_print=0)
    child.write("Küche\n".encode())
    answer = child.until(re.compile(rb"\n>> \Z")).decode()
    steps = len(address.chat("Küche")) + len("Küche".encode())
    assert BAR.findall(answer) == [f"{step:3d} / 1024" for step in range(1, steps + 1)]
    rest = BAR.sub("", answer)
    assert re.fullmatch(
        r"\n\n\033\[1;30;35m\[N\]\[ *Run\]\[ 610\]: hit eos,avg \S+ token/s\n\033\[0m\nKüche\n>> ", rest
    )
    assert address.decoded() == [address.ids("Küche")]


def test_a_newline_splits_a_prompt_into_several(stage, address):
    child = stage.ready()
    child.write(b"one\ntwo\n\nthree\n")
    printed = b"".join(child.until(child.end) for _ in range(3))
    assert child.end.sub(b"[N] >> ", printed) == b"one\n\n[N] >> two\n\n[N] >> >> three\n\n[N] >> "
    assert [body["text"] for path, body in address.calls if path == "/encode"] == ["one", "two", "three"]


def test_a_carriage_return_belongs_to_the_prompt(stage, address):
    stage.ready().ask("one\r")
    assert address.calls[2] == ("/encode", {"text": "one\r"})


def test_an_empty_line_is_no_prompt(stage, address):
    child = stage.ready()
    child.write(b"\n")
    assert child.until(b">> ") == b">> "
    assert len(address.calls) == 2


def test_q_ends_the_program(stage, address):
    child = stage.ready()
    child.write(b"q\n")
    assert child.ended() == (0, b"", b"")
    assert len(address.calls) == 2


def test_the_prompt_of_the_command_line_is_answered_first(stage, address):
    child = stage.start(prompt="two\nlines")
    answer = child.until(child.end)
    assert b"current running\ntwo\nlines\n\n\033[1;30;35m[N]" in answer
    assert child.ask("x").startswith(b"x\n\n")


def test_without_continue_it_answers_once_and_ends(stage):
    code, out, _ = stage.start(prompt="hello", **{"continue": 0}).ended()
    assert code == 0
    assert re.search(rb"LLM init ok\x1b\[0m\nhello\n\n\x1b.*token/s\n\x1b\[0m\n\Z", out)


def test_the_end_of_input_spins_for_ever(stage):
    child = stage.ready()
    child.process.stdin.close()
    child.until(b">> " * 300)
    child.process.send_signal(signal.SIGINT)
    child.until(b">> " * 300)
    assert child.process.poll() is None
    assert set(child.now()) <= set(b">> ")


def test_what_was_said_before_the_end_of_input_is_answered(stage):
    child = stage.ready()
    child.write(b"one\ntwo")
    child.process.stdin.close()
    child.until(b"one\n\n")
    child.until(b">> two\n\n")
    child.until(b">> " * 100)


def test_a_reader_that_is_gone_does_not_end_it(stage):
    child = stage.ready()
    child.process.stdout.close()
    child.write(b"one\nq\n")
    assert child.process.wait(60) == 0


def test_invalid_utf8_aborts(stage, address):
    child = stage.ready()
    child.write(b"a\xffb\n")
    code, out, err = child.ended()
    assert (code, out) == (-signal.SIGABRT, b"")
    assert b"invalid UTF-8 byte at index 1" in err
    assert len(address.calls) == 2


@pytest.mark.parametrize("fault", ["slow", "down"])
def test_no_answer_to_encode_is_a_null_pointer(stage, address, fault):
    release = threading.Event()
    child = stage.ready()
    if fault == "slow":
        address.before = lambda _: release.wait(60) and None
    else:
        address.close()
        address.close = lambda: None
    child.write(b"hello\n")
    since = time.monotonic()
    assert child.ended()[0] == -signal.SIGSEGV
    assert fault != "slow" or time.monotonic() - since > 0.9
    release.set()


@pytest.mark.parametrize("ids", [[], [-1], [300]])
def test_ids_outside_of_the_embeddings_are_a_crash(stage, address, ids):
    child = stage.ready()
    address.prompt = ids
    child.write(b"hello\n")
    assert child.ended()[0] == -signal.SIGSEGV


def test_bos_and_eos_are_added_if_the_flags_say_so(stage):
    child = stage.ready(bos=1)
    child.write(b"hello\n")
    assert child.ended()[0] == -signal.SIGSEGV  # There is no bos: -1.


def test_decode_is_tried_again_once_after_a_second(stage, address):
    answers = iter([b"", None, b"error", b""])
    address.before = lambda path: next(answers, None) if path == "/decode" else None
    child = stage.ready()
    since = time.monotonic()
    answer = child.ask("abcdef")
    assert time.monotonic() - since >= 3
    assert answer.count(b"decode failed, status: 500, try again") == 2
    assert answer.count(b"decode failed, status: 200, try again") == 1
    assert b"abc" in answer
    assert b"def" not in answer


@pytest.mark.parametrize("tokens", [1, 45, 1000, 1023, 1024])
def test_prompt_and_answer_share_1024_positions(stage, address, tokens):
    stage.script(answers=({"ids": address.ids("ab"), "eos": False},))
    child = stage.ready(speed=100_000)
    address.prompt = [address.begin] * tokens
    assert child.end.search(child.ask("x"))
    assert len(address.decoded()[-1]) == 1025 - tokens


def test_what_is_left_of_a_group_at_the_last_position_is_not_streamed(stage, address):
    stage.script(answers=({"ids": address.ids("ab"), "eos": False},))
    child = stage.ready(speed=100_000)
    address.prompt = [address.begin] * 1020
    assert child.ask("x").startswith(b"aba\n\n")
    assert address.text(address.decoded()[-1]) == "ababa"


def test_an_overlong_prompt_is_read_and_answered_with_nothing(stage, address):
    child = stage.ready(speed=100_000)
    address.prompt = [address.begin] * 1025
    assert child.ask("x").startswith(b"\n\n\033[1;30;35m[N]")
    assert address.decoded() == [[]]


def test_only_the_eos_of_the_tokenizer_ends_an_answer(stage, address):
    ids = [*address.ids("a"), address.endoftext, *address.ids("b")]
    stage.script(answers=({"ids": ids},))
    assert stage.ready().ask("x").startswith(b"a<|endoftext|>b\n\n")
    assert address.decoded()[-1] == ids


def test_nothing_is_printed_while_a_prompt_is_read(stage, address):
    last = len(address.chat("hello")) - 1
    stage.script({"when": "read", "at": last, "do": "crash", "exit": 7})
    child = stage.ready()
    child.write(b"hello\n")
    assert child.ended() == (7, b"", b"")


def test_reading_and_writing_take_their_time_by_the_token(stage, address):
    child = stage.ready(speed=20)
    since = time.monotonic()
    answer = child.ask("hello")
    steps = len(address.chat("hello")) + len("hello")
    assert time.monotonic() - since >= steps / (14 * 20)
    assert float(child.end.search(answer)[1]) <= 14 * 20


def test_nothing_is_remembered_between_two_prompts(stage, address):
    child = stage.ready()
    assert child.ask("one").startswith(b"one\n\n")
    assert child.ask("two").startswith(b"two\n\n")
    assert address.calls[-1] == ("/decode", {"token_ids": address.ids("two")})


def test_it_knows_nothing_of_the_agent(request):
    for file in request.path.parent.glob("*.py"):
        names = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        modules = [getattr(node, "module", None) or node.names[0].name for node in names]
        assert not [name for name in modules if name.startswith("edge_agent")], file
