"""The model for the card: what a host of each kind needs of it, and what becomes of that on the disk."""

import platform
import random
import shutil

import pytest

from edge_agent.errors import ModelError
from edge_agent.models import catalogue, download

AXERA = "qwen2.5-1.5b-gptq-int4-axera"
REVISION = "01d5a6eb90d9be5dd3de32518ec99c04d9ae5da5"
LAYERS = "qwen2.5-1.5b-gptq-int4-ax650"
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
