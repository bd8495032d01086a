"""The model for the card: what a host of each kind needs of it, and what becomes of that on the disk."""

import platform
import random
import shutil
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from edge_agent import resident
from edge_agent.chat.request import Message
from edge_agent.chat.template import choose
from edge_agent.config.settings import schema
from edge_agent.engines.base import Sampling
from edge_agent.errors import ModelError
from edge_agent.models import catalogue, download

AXERA = "qwen2.5-1.5b-gptq-int4-axera"
REVISION = "01d5a6eb90d9be5dd3de32518ec99c04d9ae5da5"
LAYERS = "qwen2.5-1.5b-gptq-int4-ax650"
STANDIN = Path(__file__).parent.parent / "engines/axera/standin/console.py"
SCRIPT = """\
./main_axcl_aarch64 \\
--template_filename_axmodel "qwen2.5-1.5b-gptq-int4-ax650/qwen2_p128_l%d_together.axmodel" \\
--axmodel_num 28 \\
--tokenizer_type 2 \\
--filename_tokenizer_model "http://127.0.0.1:12345" \\
--bos 0 --eos 0 \\
--filename_post_axmodel "qwen2.5-1.5b-gptq-int4-ax650/qwen2_post.axmodel" \\
--filename_tokens_embed "qwen2.5-1.5b-gptq-int4-ax650/model.embed_tokens.weight.bfloat16.bin" \\
--tokens_embed_num 151936 \\
--tokens_embed_size 4 \\
--use_mmap_load_embed 0 \\
--live_print 1 \\
--continue 1 \\
--prompt "$1"
"""
"""The vendor's, for a model four numbers wide."""
NEEDED = {
    *(f"{LAYERS}/qwen2_p128_l{layer}_together.axmodel" for layer in range(28)),
    f"{LAYERS}/qwen2_post.axmodel",
    f"{LAYERS}/model.embed_tokens.weight.bfloat16.bin",
    "qwen2.5_tokenizer/tokenizer.json",
    "qwen2.5_tokenizer/tokenizer_config.json",
    *(f"run_qwen2.5_1.5b_gptq_int4_{host}.sh" for host in ("ax650", "axcl_aarch64", "axcl_x86")),
}
OTHERS = {
    "README.md",
    "config.json",
    "main_axcl_aarch64",
    "main_axcl_x86",
    "main_prefill",
    "post_config.json",
    "qwen2.5_tokenizer.py",
    "qwen2.5_tokenizer/merges.txt",
    "qwen2.5_tokenizer/vocab.json",
}


@pytest.fixture
def card(ours):
    """The vendor's repository, each of its files made small."""
    chance = random.Random(650)
    ours.repo, ours.revision = "AXERA-TECH/Qwen2.5-1.5B-Instruct-GPTQ-Int4", REVISION
    ours.files = {name: chance.randbytes(1000) for name in NEEDED | OTHERS}
    ours.files |= {name: SCRIPT.encode() for name in NEEDED if name.endswith(".sh")}
    return ours


@pytest.fixture
def machine(monkeypatch):
    """Set what kind of machine this is."""
    return lambda kind: monkeypatch.setattr(platform, "machine", lambda: kind)


@pytest.fixture
def entry():
    return catalogue.load()[AXERA]


@pytest.mark.parametrize("kind", ["aarch64", "x86_64"])
def test_a_host_fetches_what_its_own_runner_needs(card, machine, entry, tmp_path, kind):
    machine(kind)
    runner = f"main_axcl_{kind.partition('_')[0]}"
    folder = download.ensure(entry, tmp_path)
    assert {name for name, _ in card.asked} == {*NEEDED, runner}
    assert {name: (folder / name).read_bytes() for name in NEEDED | {runner}} == {
        name: card.files[name] for name in NEEDED | {runner}
    }
    assert (folder / runner).stat().st_mode & 0o777 == 0o755
    assert not (folder / "qwen2.5_tokenizer/tokenizer.json").stat().st_mode & 0o111
    card.paths.clear()
    assert download.ensure(entry, tmp_path) == folder
    assert card.paths == []


def test_a_machine_without_a_runner_is_told_so_before_anything_is_fetched(card, machine, entry, tmp_path):
    machine("riscv64")
    assert not download.is_present(entry, tmp_path)
    with pytest.raises(ModelError, match="is for aarch64 and x86_64, not riscv64: choose another model"):
        download.ensure(entry, tmp_path)
    assert card.asked == []


def test_a_folder_from_a_host_of_another_kind_lacks_the_runner_alone(card, machine, entry, tmp_path):
    machine("x86_64")
    download.ensure(entry, tmp_path / "theirs")
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours")
    card.asked.clear()
    machine("aarch64")
    assert not download.is_present(entry, tmp_path / "ours")
    folder = download.ensure(entry, tmp_path / "ours")
    assert card.asked == [("main_axcl_aarch64", 0)]
    assert all((folder / name).is_file() for name in NEEDED)


def test_a_runner_that_lost_its_bit_gets_it_back_without_a_download(card, machine, entry, tmp_path):
    machine("aarch64")
    runner = download.ensure(entry, tmp_path) / "main_axcl_aarch64"
    card.paths.clear()
    runner.chmod(0o644)
    assert not download.is_present(entry, tmp_path)
    assert (download.ensure(entry, tmp_path) / runner.name).stat().st_mode & 0o777 == 0o755
    assert card.paths == []


def test_one_damaged_layer_is_one_layer_to_fetch(card, machine, entry, tmp_path):
    machine("aarch64")
    layer = f"{LAYERS}/qwen2_p128_l7_together.axmodel"
    folder = download.ensure(entry, tmp_path)
    card.asked.clear()
    (folder / layer).write_bytes(b"\0" * 1000)
    assert download.ensure(entry, tmp_path) == folder
    assert card.asked == [(layer, 0)]
    assert (folder / layer).read_bytes() == card.files[layer]
    assert (folder / "main_axcl_aarch64").stat().st_mode & 0o111


async def test_the_models_name_alone_makes_the_card_answer(card, machine, qwen_tokenizer, tmp_path, monkeypatch):
    machine("aarch64")
    monkeypatch.setenv("STANDIN_SPEED", "500")
    card.files[f"{LAYERS}/model.embed_tokens.weight.bfloat16.bin"] = bytes(151936 * 4 * 2)
    card.files["main_axcl_aarch64"] = f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n'.encode()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        card.files[f"qwen2.5_tokenizer/{file}"] = (qwen_tokenizer / file).read_bytes()
    config = schema()({"node": "n", "model": AXERA, "data_dir": str(tmp_path), "engine": {"options": {"port": 0}}})
    files = download.ensure(resident.model(config), config.data_dir)
    said = "Grüße 👋🏽 <|im_end|> नमस्ते"
    async with resident.engine(config, files) as engine:
        name, template = choose(engine.dialect)
        prompt = template.render([Message("user", said)])
        async with aclosing(engine.generate(prompt, Sampling(max_tokens=64))) as pieces:
            answer = [piece async for piece in pieces]
    assert name == "model", "the vendor's own template came with it"
    assert "".join(piece.text for piece in answer) == said, "as the stand-in repeats what it was told"
