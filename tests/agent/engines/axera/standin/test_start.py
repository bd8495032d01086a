from __future__ import annotations

import re
import signal

import pytest

TIMES = re.compile(rb"\[[\d.]+s<[\d.]+s, [\d.]+ count/s\]")


def bar(number: int, total: int, message: str) -> str:
    blocks = "█" * (number * 32 // total)
    percent, text = number * 100 // total, f"\033[1;30;32m{message}\033[0m"
    return f"\033[1;30;33m\r{percent:3d}% | {blocks:<32} | {number:3d} / {total:3d} [] {text}"


def test_the_start_is_told_byte_by_byte(stage):
    child = stage.ready()
    expected = (
        "build time: Feb 13 2025 15:44:57\n"
        "\033[1;30;32m[I][                            Init][ 111]: LLM init start\033[0m\n"
        "bos_id: -1, eos_id: 3\n"
        + bar(1, 7, "tokenizer init ok")
        + bar(2, 7, "embed_selector init ok")
        + "".join(bar(3 + layer, 7, f"init {layer} axmodel ok,remain_cmm(-1 MB)") for layer in range(4))
        + bar(7, 7, "init post axmodel ok\n")
        + "\033[1;30;32m[I][                            Init][ 226]: max_token_len : 1024\033[0m\n"
        "\033[1;30;32m[I][                            Init][ 231]: kv_cache_size : 256, kv_cache_num: 1024\033[0m\n"
        "\033[1;30;32m[I][                     load_config][ 282]: load config: \n"
        '{\n    "enable_top_k_sampling": true,\n    "top_k": 1\n}\n\033[0m\n'
        "\033[1;30;32m[I][                            Init][ 288]: LLM init ok\033[0m\n"
        'Type "q" to exit, Ctrl+c to stop current running\n'
        ">> "
    )
    assert TIMES.sub(b"[]", child.printed).decode() == expected


def test_the_tokenizer_is_asked_for_both_ids_at_the_start(stage, address):
    stage.ready()
    assert [path for path, _ in address.calls] == ["/bos_id", "/eos_id"]


def test_without_post_config_in_the_current_directory_it_starts_all_the_same(stage):
    (stage.folder / "post_config.json").unlink()
    child = stage.ready()
    assert b"config file(post_config.json) open failed" in child.printed
    assert b"\033[1;30;33m[W]" in child.printed
    assert b"load postprocess config(post_config.json) failed" in child.printed


def test_without_a_flag_it_tells_its_usage(stage):
    code, out, err = stage.run([]).ended()
    assert (code, out) == (0, b"")
    assert err.startswith(b"usage: console.py --prompt=string [options] ... \n")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--help", "--prompt", ""], 0, b"usage: console.py"),
        (["-?"], 0, b"usage: console.py"),
        (["--axmodel_num", "28"], 1, b"need option: --prompt"),
        (["--prompt", "", "--live_print", "true"], 1, b"option value is invalid: --live_print=true"),
        (["--prompt", "", "--live_print=2"], 1, b"option value is invalid: --live_print=2"),
        (["--prompt", "", "--devices", "0"], 1, b"undefined option: --devices"),
        (["--prompt"], 1, b"option needs value: --prompt"),
    ],
)
def test_flags_are_read_as_the_real_parser_reads_them(stage, words, code, line):
    got, out, err = stage.run(words).ended()
    assert (got, out) == (code, b"")
    assert err.startswith(line)


def test_flags_may_stand_apart_from_their_values(stage):
    words = [word for name, value in stage.flags.items() for word in (f"--{name}", str(value))]
    stage.run(words).until(b">> ")


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        ("embed.bin", "embed_selector.Init({folder}/embed.bin, 300, 4) failed"),
        ("l2.axmodel", "init axmodel({folder}/l2.axmodel) failed"),
        ("post.axmodel", "init post axmodel({folder}/post.axmodel) failed"),
    ],
)
def test_a_missing_file_ends_the_start(stage, gone, line):
    (stage.folder / gone).unlink()
    code, out, _ = stage.start().ended()
    assert code == 255
    assert out.endswith(
        f"[E][                            Init][   0]: {line.format(folder=stage.folder)}\033[0m\n".encode()
    )


def test_embeddings_of_the_wrong_size_end_the_start(stage):
    code, out, _ = stage.start(tokens_embed_num=299).ended()
    assert code == 255
    assert f"embed_selector.Init({stage.folder}/embed.bin, 299, 4) failed".encode() in out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("tokenizer", "[E][                            Init][   0]: tokenizer.Init({url}, 0, 0) failed"),
        (
            "get_device",
            "[E][                            init][ 381]: Get AXCL device failed{{0x80300001}}, find total 0 device.",
        ),
        ("set_device", "[E][                            init][ 386]: Set AXCL device failed{{0x80300186}}."),
        ("engine_init", "[E][                            init][ 393]: axclrtEngineInit"),
        ("create_handle", "[E][                            init][ 409]: AX_ENGINE_CreateHandle"),
    ],
)
def test_a_start_fails_on_command_with_the_real_lines(stage, address, error, line):
    stage.script({"when": "start", "at": 2, "do": "fail", "error": error})
    code, out, _ = stage.start().ended()
    assert code == 255
    assert line.format(url=address.url).encode() in out
    assert error == "tokenizer" or b"l0.axmodel) failed" in out


def test_a_tokenizer_that_is_down_at_the_start_is_a_null_pointer(stage):
    code, out, _ = stage.start(filename_tokenizer_model="http://127.0.0.1:9").ended()
    assert code == -signal.SIGSEGV
    assert out == b""  # Nothing was flushed yet, and a crash flushes nothing.


@pytest.mark.parametrize("kind", [0, 1, 3])
def test_other_tokenizers_are_not_compiled_in(stage, kind):
    assert stage.start(tokenizer_type=kind).ended()[0] == -signal.SIGSEGV


def test_a_start_may_never_become_ready(stage):
    stage.script({"when": "start", "at": 3, "do": "silence"})
    child = stage.start()
    child.until(b"init 0 axmodel ok,remain_cmm(-1 MB)\033[0m")
    child.process.send_signal(signal.SIGINT)
    child.process.terminate()
    assert child.ended()[:2] == (-signal.SIGTERM, b"")


def test_an_interrupt_during_the_start_is_harmless(stage):
    stage.script({"when": "start", "at": 1, "do": "silence", "seconds": 0.1})
    child = stage.start()
    child.until(b"tokenizer init ok")
    child.process.send_signal(signal.SIGINT)
    child.until(b">> ")
    assert child.ask("x").startswith(b"x\n\n")
