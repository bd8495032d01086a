from __future__ import annotations

import re

import pytest

CONTEXT = {"variant": "context", "filename_tokenizer_model": None}
ANSWER = re.compile(
    rb"\x1b\[1;30;32m\[I\]\[ *SetKVCache\]\[ *\d+\]: prefill_grpid:2 kv_cache_num:512 precompute_len:(\d+) "
    rb"input_num_token:(\d+)\x1b\[0m\n"
    rb"\x1b\[1;30;32m\[I\]\[ *Run\]\[ *\d+\]: ttft: [\d.]+ ms\x1b\[0m\n"
    rb"(.*)\n\n\x1b\[1;30;35m\[N\]\[ *Run\]\[ *\d+\]: hit eos,avg \S+ token/s\n\x1b\[0m\n"
    rb"\x1b\[1;30;32m\[I\]\[ *GetKVCache\]\[ *\d+\]: precompute_len:(\d+), remaining:(\d+)\x1b\[0m\nprompt >> "
)


@pytest.fixture
def context(stage, address):
    """The runner of ax-context, with a server that remembers one conversation."""
    history: list[int] = []
    plain = address.answer

    def answer(path, body):
        if path == "/reset":
            history.clear()
            return {"success": True}
        if path != "/encode":
            return plain(path, body)
        old = len(history)
        history.extend(address.ids(body.get("last_reply", "")) + address.chat(body["text"]))
        return {"token_ids": list(history), "diff": history[old:]}

    address.answer = answer
    del stage.flags["filename_tokenizer_model"]
    stage.flags |= {"url_tokenizer_model": address.url, "system_prompt": "Be brief.", "devices": "0"}
    return stage


def start(context):
    child = context.start(variant="context")
    child.until(b"prompt >> ")
    return child


def ask(child, line):
    child.write(line + b"\n")
    before, new, text, resident, left = ANSWER.fullmatch(child.until(ANSWER)).groups()
    return text, [int(number) for number in (before, new, resident, left)]


def test_the_context_runner_takes_a_uid_and_carries_it_along(context, address):
    child = start(context)
    ask(child, b"hello")
    calls = [(path, body.get("uid")) for path, body in address.calls]
    decodes = [("/decode", "u-1")] * 3
    assert calls == [("/get_uid", None), ("/bos_id", "u-1"), ("/eos_id", "u-1"), ("/encode", "u-1"), *decodes]
    assert address.calls[3][1] == {"uid": "u-1", "text": "hello", "img_prompt": False}
    assert b'Type "q" to exit, Ctrl+c to stop current running\nprompt >> ' in child.printed


def test_the_context_runner_reads_what_is_new(context, address):
    child = start(context)
    one, two = len(address.chat("one")), len(address.chat("two"))
    assert ask(child, b"one") == (b"one", [0, one, one + 3, 2048 - one - 3])
    text, (before, new, resident, left) = ask(child, b"two")
    assert (text, before, new) == (b"two", one + 3, two + 3)
    assert resident + left == 2048
    assert address.calls[-3][1]["last_reply"] == "one"


def test_the_context_runner_forgets_on_reset(context, address):
    child = start(context)
    ask(child, b"one")
    child.write(b"reset\n")
    child.until(b"prompt >> ")
    assert address.calls[-1] == ("/reset", {"uid": "u-1"})
    assert ask(child, b"two")[1][0] == 0


def test_the_context_runner_drops_the_last_turn(context):
    child = start(context)
    _, (_, _, resident, _) = ask(child, b"one")
    ask(child, b"two")
    child.write(b"dd\n")
    child.until(b"prompt >> ")
    assert ask(child, b"three")[1][0] == resident


def test_the_context_runner_waits_for_its_tokenizer(context, address):
    address.close()
    address.close = lambda: None
    code, out, _ = context.start(variant="context").ended()
    assert code == 255
    assert out.count(b"connect failed") == 10
    assert f"connect failed {address.url}, try again in 10/10".encode() in out
    assert b"tokenizer.Init(" in out


def test_the_context_runner_saves_its_cache_where_the_folder_exists(context):
    (context.folder / "kv").mkdir()
    context.flags["kvcache_path"] = context.folder / "kv"
    assert b"failed,generate kvcache" in start(context).printed
    assert b"failed,generate kvcache" not in start(context).printed
    context.flags["kvcache_path"] = context.folder / "nowhere"
    assert b"save kvcache failed" in start(context).printed


def test_the_prefill_runner_tells_its_time_to_the_first_token(stage):
    child = stage.ready(variant="prefill")
    assert b"prefill_token_num : 128\033[0m" in child.printed
    assert re.match(rb"\x1b\[1;30;32m\[I\]\[ *Run\]\[ *\d+\]: ttft: [\d.]+ ms\x1b\[0m\nhello\n\n", child.ask("hello"))


def test_the_prefill_runner_refuses_more_than_128_tokens(stage, address):
    child = stage.ready(variant="prefill")
    address.prompt = [address.begin] * 129
    child.write(b"x\n")
    printed = child.until(b">> ")
    assert (
        b"[E][                             Run][   0]: input_ids(129) > prefill_token_num(128)\033[0m\n>> " in printed
    )
    assert b"hit eos" not in printed
    address.prompt = [address.begin] * 128
    assert child.end.search(child.ask("x"))
