"""The card as the host sees it: a machine made of files, from the slot to the model, and one fault at a time."""

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edge_agent import doctor
from edge_agent.config import Config, Engine
from edge_agent.engines.axera import card as cards
from edge_agent.engines.axera.card import DEVICE, FIRMWARE, MODULES, NODES, VENDOR, Sign, Who

SMI = """\
+------------------------------------------------------------------------------------------------+
| AXCL-SMI  V3.6.4_20250805020145                                  Driver  V3.6.4_20250805020145 |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
|    0  AX650N                     V3.6.4 | 0001:01:00.0 |                149 MiB /      945 MiB |
|   --   41C                      -- / -- | 1%        0% |                 18 MiB /     7040 MiB |
+-----------------------------------------+--------------+---------------------------------------+

+------------------------------------------------------------------------------------------------+
| Processes:                                                                                     |
| Card      PID  Process Name                                                   NPU Memory Usage |
|================================================================================================|
"""
HELD = f"{'|    0    10994  /srv/model/main_axcl_aarch64':81}1793612 KiB |\n"
NOTHING = "axcl init fail, ret = 0x8030010b\n"
CMM = "---CMM_USE_INFO:\n total size=7208960KB(7040MB),used=18876KB(18MB + 444KB),remain=7190084KB(7021MB + 580KB)\n"
ROWS = 128
SERVICE = Who(61184, {61184})
"""A user like the one that `DynamicUser=` makes."""


class Machine:
    """A root folder with a card in it that works, and what axcl-smi says there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.smi: str | None = SMI
        self.slot = root / "sys/bus/pci/devices/0001:01:00.0"
        for name, text in (("vendor", VENDOR), ("device", DEVICE), ("current_link_speed", "5.0 GT/s PCIe")):
            self.write(self.slot / name, f"{text}\n")
        self.write(self.slot / "current_link_width", "1\n")
        self.write(
            root / "proc/modules", "".join(f"{name} 16384 0 - Live 0x0000000000000000 (O)\n" for name in MODULES)
        )
        self.write(root / FIRMWARE, "firmware")
        self.write(root / "usr/bin/axcl/axcl-smi", "")
        for name in NODES:
            self.write(root / "dev" / name, "")
            (root / "dev" / name).chmod(0o666)

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def ask(self, tool: Path) -> str | None:
        assert tool == self.root / "usr/bin/axcl/axcl-smi"
        return self.smi

    def signs(self, options: dict | None = None, who: Who = SERVICE) -> dict[str, Sign]:
        async def all_of_it() -> dict[str, Sign]:
            examined = cards.examine(options, root=self.root, who=who, ask=self.ask)
            return {sign.name: sign async for sign in examined}

        return asyncio.run(all_of_it())

    def fault(self, options: dict | None = None) -> Sign:
        """The only fault, and the last thing that is said of the card."""
        [fault] = [sign for sign in self.signs(options or {}).values() if not sign.ok]
        assert fault.remedy
        return fault


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Path:
    """The tokenizer of a small vocabulary."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer(WordLevel({chr(number): number for number in range(ROWS)}, unk_token="?")).save(str(file))
    return file


@pytest.fixture
def model(tmp_path, letters) -> dict:
    """The engine's options for a whole model: as many layers and as wide as Qwen2.5 1.5B, of files without content."""
    folder = tmp_path / "model/qwen2.5-1.5b-gptq-int4-ax650"
    folder.mkdir(parents=True)
    names = [f"qwen2_p128_l{number}_together" for number in range(28)]
    for name in (*names, "qwen2_post"):
        sized(folder / f"{name}.axmodel", 40 << 20)
    sized(folder / "model.embed_tokens.weight.bfloat16.bin", ROWS * 1536 * 2)
    runner = tmp_path / "model/runner"
    runner.write_text("#!/bin/sh\n")
    runner.chmod(0o755)
    return {"model": str(folder.parent), "binary": "runner", "tokenizer": str(letters)}


def sized(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def layer(model: dict, number: int) -> Path:
    return Path(model["model"], f"qwen2.5-1.5b-gptq-int4-ax650/qwen2_p128_l{number}_together.axmodel")


def test_a_machine_that_works_is_told_from_the_slot_to_the_files(machine, model) -> None:
    signs = machine.signs(model)
    names = ["card", "card driver", "card access", "card state", "card memory", "runner", "model files"]
    assert list(signs) == names
    assert [sign for sign in signs.values() if not sign.ok or sign.remedy] == []
    assert signs["card"].detail == "AX650 at 0001:01:00.0, 5.0 GT/s PCIe x1"
    assert signs["card state"].detail == "firmware V3.6.4, driver V3.6.4_20250805020145, 41 °C"
    assert signs["card memory"].detail == "7,022 of 7,040 MiB left"
    assert signs["model files"].detail == "28 layers, post model and embeddings, 1.2 GB"


def test_a_card_that_is_not_on_the_bus_ends_the_search_with_how_to_seat_it(machine) -> None:
    (machine.slot / "device").write_text("0x0651\n")
    assert machine.fault().name == "card"
    assert "dtparam=pciex1" in machine.fault().remedy
    assert list(machine.signs({})) == ["card"]


@pytest.mark.parametrize("missing", MODULES)
def test_a_driver_that_is_not_loaded_is_loaded_by_the_remedy(machine, missing) -> None:
    modules = machine.root / "proc/modules"
    modules.write_text("".join(line for line in modules.read_text().splitlines(True) if not line.startswith(missing)))
    assert machine.fault().detail == f"{missing} not loaded"
    assert f"sudo modprobe {missing}" in machine.fault().remedy


def test_firmware_that_is_not_installed_is_a_fault(machine) -> None:
    (machine.root / FIRMWARE).unlink()
    assert FIRMWARE in machine.fault().detail


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_may_not_be_opened_is_a_fault_with_its_group(machine, name) -> None:
    (machine.root / "dev" / name).chmod(0o660)
    fault = machine.fault()
    assert (fault.name, f"/dev/{name}" in fault.detail, "rw-rw----" in fault.detail) == ("card access", True, True)
    assert "usermod" in fault.remedy
    (machine.root / "dev" / name).unlink()
    assert machine.fault().detail == f"/dev/{name}: No such file or directory"


@pytest.mark.parametrize(
    ("mode", "who", "can"),
    [
        (0o600, Who(0, {0}), True),
        (0o600, Who(7, {7}), True),
        (0o060, Who(7, {8}), False),
        (0o660, Who(9, {8}), True),
        (0o640, Who(9, {8}), False),
        (0o606, Who(9, {9}), True),
        (0o606, Who(9, {8}), False),
    ],
)
def test_owner_group_and_others_are_judged_as_the_kernel_does(mode, who, can) -> None:
    node = os.stat_result((stat.S_IFCHR | mode, 0, 0, 1, 7, 8, 0, 0, 0, 0))
    assert cards.may(node, who) is can


@pytest.mark.parametrize("said", [NOTHING, "", SMI.partition("|    0")[0], None])
def test_a_wedged_card_is_a_fault_with_the_ways_to_reset_it(machine, said) -> None:
    machine.smi = said
    fault = machine.fault()
    assert fault.name == "card state"
    assert all(way in fault.remedy for way in ("axcl-smi reboot", "modprobe -r axcl_host", "sudo reboot", "power off"))


def test_without_axcl_smi_the_state_is_unknown_and_no_fault(machine, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    (machine.root / "usr/bin/axcl/axcl-smi").unlink()
    assert machine.signs({})["card state"].detail == "unknown, without axcl-smi"


def test_heat_and_versions_that_differ_are_advice(machine) -> None:
    machine.smi = SMI.replace("41C", "97C")
    assert "120 °C" in machine.signs({})["card state"].remedy
    machine.smi = SMI.replace("Driver  V3.6.4_20250805020145", "Driver  V3.16.0_20260301020145")
    assert "one version" in machine.signs({})["card state"].remedy
    assert machine.signs({})["card state"].ok


def test_who_holds_the_cards_memory_is_named_and_too_little_is_a_fault(machine, model) -> None:
    machine.smi = SMI.replace("  18 MiB", "1770 MiB") + HELD
    assert machine.signs(model)["card memory"].detail == "5,270 of 7,040 MiB left; main_axcl_aarch64 (10994) has 1,752"
    machine.smi = machine.smi.replace("1770 MiB", "6900 MiB")
    assert "1,160 are wanted" in machine.fault(model).detail
    machine.smi = machine.smi.replace(HELD, "")
    assert "axcl-smi reboot" in machine.fault(model).remedy, "memory that nobody holds comes back by a reset"


def test_the_layout_of_the_vendors_manual_is_read_too() -> None:
    said = (
        "| AXCL-SMI  V3.6.4_2   Driver  V3.6.4_2 |\n"
        "| 0  AX650N                     V3.6.4                 | 0001:01:00.0 | 148 MiB /      945 MiB |\n"
        "| --   41C                      -- / --                | 2%        0% | 18 MiB /     7040 MiB  |\n"
    )
    assert cards.read(said) == cards.Report("V3.6.4_2", "V3.6.4", 41, 7040 << 20, 18 << 20, ())


def test_the_chip_itself_has_no_slot_but_memory(machine) -> None:
    (machine.slot / "device").unlink()
    machine.write(machine.root / "proc/ax_proc/mem_cmm_info", CMM)
    signs = machine.signs({})
    assert list(signs) == ["card", "card memory"]
    assert signs["card memory"].detail == "7,022 of 7,040 MiB left"


def test_for_another_engine_a_card_is_advice_and_no_card_is_nothing(machine) -> None:
    assert [(sign.ok, "qwen2.5-1.5b-gptq-int4-axera" in sign.remedy) for sign in machine.signs().values()] == [
        (True, True)
    ]
    (machine.slot / "device").unlink()
    assert machine.signs() == {}


def test_a_layer_that_is_missing_or_cut_off_is_named(machine, model) -> None:
    layer(model, 27).unlink()
    assert machine.fault(model).detail.startswith("layer 27 is missing")
    sized(layer(model, 27), 40 << 20)
    sized(layer(model, 13), 1 << 20)
    assert machine.fault(model).detail == "layer 13 has 1048576 bytes, others 41943040: it was cut off"
    sized(layer(model, 13), 40 << 20)
    (layer(model, 0).parent / "qwen2_post.axmodel").unlink()
    assert machine.fault(model).detail.startswith("the post model is missing")


def test_embeddings_of_another_size_are_a_fault(machine, model) -> None:
    sized(layer(model, 0).parent / "model.embed_tokens.weight.bfloat16.bin", ROWS * 1536 * 2 - 1000)
    assert "embed" in machine.fault(model).detail


@pytest.mark.parametrize("lost", ["runner", "tokenizer"])
def test_what_the_engine_would_not_find_is_a_fault(machine, model, lost) -> None:
    if lost == "runner":
        Path(model["model"], "runner").unlink()
    else:
        model = {name: value for name, value in model.items() if name != "tokenizer"}
    assert lost in machine.fault(model).detail


def test_a_runner_for_another_machine_is_a_fault(machine, model) -> None:
    elf = bytearray(20)
    elf[:4], elf[18:20] = b"\x7fELF", (0xF3).to_bytes(2, "little")
    Path(model["model"], "runner").write_bytes(elf)
    fault = machine.fault(model)
    assert (fault.name, "riscv64" in fault.detail) == ("runner", True)


def test_the_doctor_lets_the_card_write_five_tokens(card) -> None:
    config = Config(engine=Engine("axera", card.options()), model=str(card.folder), data_dir=card.folder)
    found = asyncio.run(doctor._answer(config))
    assert (found.ok, "5 tokens" in found.detail) == (True, True)


def test_options_that_the_engine_refuses_are_a_fault(machine, model) -> None:
    assert "variant" in machine.fault({**model, "variant": "newest"}).detail


def test_the_real_program_is_run_and_one_that_hangs_is_left(tmp_path, monkeypatch) -> None:
    tool = tmp_path / "axcl-smi"
    tool.write_text(f"#!{sys.executable}\nimport sys, time\nprint('table', flush=True)\ntime.sleep(float(0))\n")
    tool.chmod(0o755)
    assert asyncio.run(cards.run(tool)) == "table\n"
    monkeypatch.setattr(cards, "_SMI_S", 0.2)
    tool.write_text(tool.read_text().replace("float(0)", "float(60)"))
    assert asyncio.run(cards.run(tool)) is None
