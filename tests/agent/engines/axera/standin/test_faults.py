from __future__ import annotations

import re
import signal

import pytest

DEAD = b"[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 is dead\n"
ERROR = "\033[1;30;31m[E][                       inference][ 529]: AX_ENGINE_Execute\033[0m\n"


def test_a_device_dies_while_nothing_is_asked(stage):
    stage.script({"when": "idle", "at": 5, "do": "lines", "preset": "dead"})
    child = stage.start()
    child.until(b">> ")
    assert child.until(b"[print][199]: dma status 0x000000c7\n").count(b"\n") == 201
    assert DEAD in child.printed
    assert child.ask("hello").startswith(b"hello\n\n")


def test_device_lines_may_come_on_the_other_descriptor(stage):
    stage.script({"when": "write", "at": 2, "do": "lines", "preset": "dead", "to": "stderr"})
    child = stage.ready()
    assert child.ask("hello").startswith(b"hello\n\n")
    child.write(b"q\n")
    code, _, err = child.ended()
    assert code == 0
    assert err.startswith(DEAD)
    assert err.count(b"\n") == 201


def test_a_script_that_changes_while_nothing_is_asked_is_heeded(stage):
    stage.script()
    child = stage.ready()
    for text in ("first", "second"):
        stage.script({"when": "idle", "do": "lines", "text": [text]})
        assert child.until(b"\n") == f"{text}\n".encode()


def test_device_lines_may_cut_a_piece(stage):
    stage.script({"when": "write", "at": 3, "do": "lines", "text": ["device 1", "device 2"], "inside": 2})
    assert stage.ready().ask("abcdefg").startswith(b"abcdedevice 1\ndevice 2\nfg\n\n")


@pytest.mark.parametrize(("raw", "order"), [(False, b"hi\n\n[N]link\n"), (True, b"hi\n\nlink\n[N]")])
def test_device_lines_may_overtake_what_is_not_flushed(stage, raw, order):
    stage.script({"when": "end", "at": 1, "do": "lines", "text": ["link"], "raw": raw})
    child = stage.ready()
    child.write(b"hi\n")
    printed = child.until(re.compile(rb"\n>> "))
    assert re.sub(rb"\x1b\[1;30;35m\[N\].*\n\x1b\[0m\n", b"[N]", printed) == order + b">> "


def test_a_dead_device_floods_and_writes_garbage_until_it_is_stopped(stage, address):
    stage.script({"when": "write", "at": 3, "do": "errors"})
    child = stage.ready()
    child.write(b"abcdef\n")
    assert child.until(ERROR.encode() * 4 * 3).startswith(b"abc")  # Four layers, three tokens.
    child.process.send_signal(signal.SIGINT)
    child.until(child.end)
    final = address.decoded()[-1]
    assert final[:3] == address.ids("abc")
    assert final[3:6] != address.ids("def")
    assert address.eos not in final
    child.write(b"again\n")
    child.until(ERROR.encode())  # It stays dead.


def test_a_flood_without_an_interrupt_ends_at_the_last_position(stage, address):
    stage.script({"when": "read", "at": 0, "do": "errors"})
    printed = stage.ready(speed=100_000).ask("abc")
    assert printed.count(ERROR.encode()) == 1024 * 4
    assert len(address.decoded()[-1]) == 1025 - len(address.chat("abc"))


def test_some_errors_may_pass(stage, address):
    stage.script({"when": "read", "at": 1, "do": "errors", "steps": 2})
    printed = stage.ready().ask("abc").decode()
    assert printed.startswith(ERROR * 8 + "abc\n\n")


@pytest.mark.parametrize("when", ["read", "write", "encode"])
def test_a_run_may_fall_silent_for_ever(stage, when):
    stage.script({"when": when, "do": "lines", "text": ["here"]}, {"when": when, "do": "silence"})
    child = stage.ready()
    child.write(b"hello\n")
    child.until(b"here\n")
    child.process.send_signal(signal.SIGINT)
    child.process.terminate()
    assert child.ended() == (-signal.SIGTERM, b"", b"")


def test_a_silence_may_end(stage):
    stage.script({"when": "write", "at": 3, "do": "silence", "seconds": 0.05})
    assert stage.ready().ask("hello").startswith(b"hello\n\n")


@pytest.mark.parametrize(
    ("how", "code"), [({}, -signal.SIGSEGV), ({"signal": "ABRT"}, -signal.SIGABRT), ({"exit": 3}, 3)]
)
def test_a_run_may_crash(stage, how, code):
    stage.script({"when": "write", "at": 4, "do": "crash", **how})
    child = stage.ready()
    child.write(b"hello\n")
    assert child.ended() == (code, b"hel", b"")


def test_it_may_crash_while_nothing_is_asked(stage):
    stage.script({"when": "idle", "prompt": 1, "do": "crash"})
    child = stage.ready()
    assert child.ask("hello").startswith(b"hello\n\n")
    assert child.ended() == (-signal.SIGSEGV, b"", b"")


def test_an_answer_may_never_end_and_heed_no_interrupt(stage, address):
    stage.script({"when": "write", "do": "endless"}, {"when": "write", "do": "deaf", "signals": ["INT"]})
    child = stage.ready(speed=10_000)
    child.write(b"abc\n")
    child.until(b"abcabc")
    child.process.send_signal(signal.SIGINT)
    child.until(child.end)
    assert len(address.decoded()[-1]) == 1025 - len(address.chat("abc"))


def test_an_answer_may_become_endless_with_other_words(stage, address):
    stage.script({"when": "write", "at": 2, "do": "endless", "ids": address.ids("xy")})
    child = stage.ready()
    child.write(b"abc\n")
    child.until(b"abcxyxyxy")
    child.process.send_signal(signal.SIGINT)
    child.until(child.end)


def test_tokens_may_be_put_in(stage, address):
    stage.script({"when": "write", "at": 2, "do": "tokens", "ids": [address.endoftext, *address.ids("日")[:1]]})
    assert stage.ready().ask("abc").decode().startswith("ab<|endoftext|>\ufffdc\n\n")


def test_answers_are_chosen_by_run_and_by_what_the_prompt_contains(stage, address):
    paris = {"ids": address.ids("Paris"), "contains": address.ids("capital")}
    stage.script(answers=({"ids": address.ids("first"), "prompt": 0}, paris, {"ids": []}))
    child = stage.ready()
    said = [child.ask(line).split(b"\n\n")[0] for line in ("The capital?", "The capital?", "The weather?")]
    assert said == [b"first", b"Paris", b""]


def test_a_fault_that_happens_once_is_marked_and_spares_the_next_process(stage):
    stage.script({"when": "write", "do": "crash", "once": "crashed"})
    child = stage.ready()
    child.write(b"hello\n")
    assert child.ended()[0] == -signal.SIGSEGV
    assert (stage.folder / "script.json.crashed").exists()
    assert stage.ready().ask("hello").startswith(b"hello\n\n")


def test_a_script_is_read_anew_before_every_prompt(stage, address):
    stage.script()
    child = stage.ready()
    assert child.ask("hello").startswith(b"hello\n\n")
    stage.script(answers=({"ids": address.ids("bye")},))
    assert child.ask("hello").startswith(b"bye\n\n")
