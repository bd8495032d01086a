"""What is started: flags out of the vendor's script or the files, sampling, environment."""

from __future__ import annotations

import os

import pytest

from edge_agent.engines.axera import AxeraEngine, program
from edge_agent.errors import ConfigError, ModelError

SCRIPT = r"""
./main_axcl_aarch64 \
--template_filename_axmodel "qwen2.5-1.5b-gptq-int4-ax650/qwen2_p128_l%d_together.axmodel" \
--axmodel_num 28 --tokenizer_type 2 --filename_tokenizer_model "http://127.0.0.1:12345" \
--bos 0 --eos 0 \
--filename_post_axmodel "qwen2.5-1.5b-gptq-int4-ax650/qwen2_post.axmodel" \
--filename_tokens_embed "qwen2.5-1.5b-gptq-int4-ax650/model.embed_tokens.weight.bfloat16.bin" \
--tokens_embed_num 151936 --tokens_embed_size=1536 --use_mmap_load_embed 0 \
--live_print 1 --continue 1 --prompt "$1"
"""
QWEN_VOCABULARY = 151_665


@pytest.fixture
def folder(tmp_path):
    """As it is downloaded: no script, and of the right sizes without their bytes."""
    layers = tmp_path / "qwen2.5-1.5b-gptq-int4-ax650"
    layers.mkdir()
    for number in range(28):
        (layers / f"qwen2_p128_l{number}_together.axmodel").touch()
    (layers / "qwen2_post.axmodel").touch()
    with (layers / "model.embed_tokens.weight.bfloat16.bin").open("wb") as file:
        file.truncate(151_936 * 1536 * 2)
    (tmp_path / "main_axcl_aarch64").touch()
    (tmp_path / "qwen2.5_tokenizer").mkdir()
    (tmp_path / "qwen2.5_tokenizer/tokenizer.json").touch()
    return tmp_path


@pytest.fixture
def options(folder):
    def make(**chosen):
        return AxeraEngine({"model": str(folder), "binary": "main_axcl_aarch64", **chosen})._options

    return make


def flags(command):
    return dict(zip(command[1::2], command[2::2], strict=True))


def test_the_files_alone_give_the_flags_of_the_vendor_s_script(folder, options):
    guessed = program.find(options(), QWEN_VOCABULARY).command("http://127.0.0.1:1")
    (folder / "run_qwen2.5_1.5b_gptq_int4_axcl_aarch64.sh").write_text(SCRIPT)
    scripted = program.find(options(), QWEN_VOCABULARY).command("http://127.0.0.1:1")
    assert flags(guessed) == flags(scripted)
    layers = folder / "qwen2.5-1.5b-gptq-int4-ax650"
    assert flags(scripted) == {
        "--template_filename_axmodel": f"{layers}/qwen2_p128_l%d_together.axmodel",
        "--axmodel_num": "28",
        "--tokenizer_type": "2",
        "--filename_tokenizer_model": "http://127.0.0.1:1",
        "--bos": "0",
        "--eos": "0",
        "--filename_post_axmodel": f"{layers}/qwen2_post.axmodel",
        "--filename_tokens_embed": f"{layers}/model.embed_tokens.weight.bfloat16.bin",
        "--tokens_embed_num": "151936",
        "--tokens_embed_size": "1536",
        "--use_mmap_load_embed": "0",
        "--live_print": "1",
        "--continue": "1",
        "--prompt": "",
    }


def test_the_script_of_another_binary_is_not_read(folder, options):
    (folder / "run_other.sh").write_text("./main_axcl_x86 --axmodel_num 3\n")
    assert program.find(options(), QWEN_VOCABULARY).flags["axmodel_num"] == "28"


def test_flags_of_the_configuration_win(options):
    found = program.find(options(flags={"use_mmap_load_embed": 1, "devices": "0"}), QWEN_VOCABULARY)
    told = flags(found.command("u"))
    assert (told["--use_mmap_load_embed"], told["--devices"]) == ("1", "0")


@pytest.mark.parametrize("chosen", [{"variant": "context"}, {"flags": {"url_tokenizer_model": "x"}}])
def test_the_variant_is_chosen_or_told_by_the_flags(options, chosen):
    told = flags(program.find(options(**chosen), QWEN_VOCABULARY).command("http://127.0.0.1:1"))
    assert told["--url_tokenizer_model"] == "http://127.0.0.1:1"
    assert "--filename_tokenizer_model" not in told


def test_a_download_has_no_permission_to_execute(folder, options):
    assert not os.access(folder / "main_axcl_aarch64", os.X_OK)
    found = program.find(options(), QWEN_VOCABULARY)
    assert os.access(found.binary, os.X_OK)


def test_a_folder_that_is_not_whole_is_refused_with_a_remedy(folder, options):
    assert program.tokenizer_files(options()) == folder / "qwen2.5_tokenizer"
    with pytest.raises(ModelError, match="no table of 200000 tokens; fetch the model again"):
        program.find(options(), 200_000)
    with pytest.raises(ModelError, match="nothing; fetch the model again"):
        program.find(options(binary="nothing"), QWEN_VOCABULARY)
    (folder / "qwen2.5_tokenizer/tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        program.tokenizer_files(options())
    for layer in folder.glob("*/*_l0_*"):
        layer.unlink()
    with pytest.raises(ModelError, match="fetch it again"):
        program.find(options(), QWEN_VOCABULARY)


def test_sampling_is_greedy_unless_a_temperature_is_set(options):
    greedy = program.post_config(options())
    assert not greedy["enable_temperature"]
    assert (greedy["enable_top_k_sampling"], greedy["top_k"]) == (True, 1)
    warm = program.post_config(options(temperature=0.7, top_k=5, repetition_penalty=1.1, penalty_window=64))
    assert (warm["enable_temperature"], warm["temperature"]) == (True, 0.7)
    assert (warm["enable_top_k_sampling"], warm["top_k"], warm["enable_top_p_sampling"]) == (True, 5, False)
    assert (warm["enable_repetition_penalty"], warm["repetition_penalty"], warm["penalty_window"]) == (True, 1.1, 64)
    nucleus = program.post_config(options(temperature=0.7, top_p=0.9))
    assert (nucleus["enable_top_p_sampling"], nucleus["top_p"], nucleus["enable_top_k_sampling"]) == (True, 0.9, False)


def test_the_program_gets_the_card_s_libraries_and_none_of_our_secrets(monkeypatch):
    monkeypatch.setenv("EDGE_AGENT_BROKER__PASSWORD", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    told = program.environment({"EXTRA": "1"})
    assert told["LD_LIBRARY_PATH"] == "/opt/lib:/usr/lib/axcl"
    assert told["PATH"].endswith(":/usr/bin/axcl")
    assert told["EXTRA"] == "1"
    assert "secret" not in told.values()


def test_options_are_checked(folder):
    with pytest.raises(ConfigError, match=r"engine\.options\.variant"):
        AxeraEngine({"model": str(folder), "variant": "teapot"})
    with pytest.raises(ConfigError, match=r"engine\.options\.top_p"):
        AxeraEngine({"model": str(folder), "top_p": 2})
