"""What can be seen of a card, its driver and its files before anything is loaded: for the doctor.

Every look at the machine is below a root folder, which may be another than `/`.
"""

from __future__ import annotations

import asyncio
import grp
import os
import platform
import re
import shutil
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_agent.engines.axera import program
from edge_agent.engines.axera.engine import _OPTIONS
from edge_agent.engines.options import checked
from edge_agent.errors import ConfigError, ModelError
from edge_agent.models.tokenizer import Tokenizer

VENDOR: Final = "0x1f4b"
DEVICE: Final = "0x0650"
MODULES: Final = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host")
NODES: Final = ("axcl_host", "ax_mmb_dev", "msg_userdev")
FIRMWARE: Final = "lib/firmware/axcl/ax650_card.pac"
LAYERS: Final = {("qwen2", 896): 24, ("qwen2", 1536): 28, ("qwen2", 2048): 36, ("qwen2", 3584): 28}
"""How many layers a family has at a width of its embeddings: files that end too early look whole by themselves."""

_SMI: Final = "usr/bin/axcl/axcl-smi"
_SMI_S: Final = 15.0
_HOT: Final = 95
_MACHINES: Final = {0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64", 0x28: "armv7l"}
_MIB: Final = 1 << 20
_NAMES: Final = ("template_filename_axmodel", "tokens_embed_num", "tokens_embed_size")

_RESET: Final = (
    "stop the agent, then: sudo axcl-smi reboot -d 0, or sudo modprobe -r axcl_host && sudo modprobe axcl_host; "
    "if that does not help: sudo reboot, and at last power off (docs/hardware.md)"
)
_INSTALL: Final = "install the card's driver: docs/hardware.md"
_SEAT: Final = "power off and seat the card; a Raspberry Pi 5 wants dtparam=pciex1 in /boot/firmware/config.txt"
_AGAIN: Final = "fetch the model again"


class Sign(NamedTuple):
    """What one look has found; a remedy without a fault is advice."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Holder(NamedTuple):
    """A process that holds memory of the card."""

    pid: int
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What axcl-smi tells of the first card."""

    driver: str
    firmware: str
    celsius: int
    total: int
    used: int
    holders: tuple[Holder, ...]


class Who(NamedTuple):
    """The user and the groups that nodes are to be opened by."""

    uid: int
    gids: Collection[int]


Ask = Callable[[Path], Awaitable[str | None]]
"""Runs the program at this path and gives what it prints; None when it does not come back."""


def cards(root: Path = Path("/")) -> list[Path]:
    """The cards on the PCI bus, as folders of sysfs."""
    found = (root / "sys/bus/pci/devices").glob("*")
    return sorted(each for each in found if (_line(each / "vendor"), _line(each / "device")) == (VENDOR, DEVICE))


def on_chip(root: Path = Path("/")) -> bool:
    """Whether this machine is itself the chip, and no card's host."""
    return (root / "proc/ax_proc/mem_cmm_info").is_file()


async def examine(
    options: Mapping[str, Any] | None, *, root: Path = Path("/"), who: Who | None = None, ask: Ask | None = None
) -> AsyncIterator[Sign]:
    """Yield what is found, from the slot to the files.

    `options` are the engine's, without `model` where there is none yet; None stands for another engine.
    """
    if options is None:
        if cards(root):
            yield Sign(
                "card", True, "an AXERA card is here, unused", "model: qwen2.5-1.5b-gptq-int4-axera would use it"
            )
        return
    signs = list(files(options)) if "model" in options else []
    wanted = on_card(options) if signs and signs[-1].ok else 0
    if on_chip(root):
        yield Sign("card", True, "this machine is the chip")
        yield _memory(*_cmm(root), (), wanted)
    else:
        async for sign in _card(root, who or Who(os.geteuid(), {os.getegid(), *os.getgroups()}), ask or run, wanted):
            yield sign
    for sign in signs:
        yield sign


async def _card(root: Path, who: Who, ask: Ask, wanted: int) -> AsyncIterator[Sign]:
    yield (slot := _slot(root))
    if not slot.ok:
        return
    yield (driver := _driver(root))
    if not driver.ok:
        return
    yield (access := _access(root, who))
    if not access.ok:
        return
    tool = root / _SMI if (root / _SMI).exists() else Path(shutil.which("axcl-smi") or "/nowhere")
    if not tool.exists():
        yield Sign("card state", True, "unknown, without axcl-smi", _INSTALL)
        return
    said = await ask(tool)
    report = read(said or "")
    if report is None:
        last = (said or "").strip().splitlines()[-1:]
        detail = (
            "axcl-smi does not come back" if said is None else f"axcl-smi shows no card: {(last or ['nothing'])[0]}"
        )
        yield Sign("card state", False, detail, _RESET)
        return
    yield _state(report)
    yield _memory(report.total, report.used, report.holders, wanted)


def _slot(root: Path) -> Sign:
    found = cards(root)
    if not found:
        return Sign("card", False, f"none on the PCI bus (lspci -d {VENDOR[2:]}:)", _SEAT)
    first = found[0]
    speed, width = _line(first / "current_link_speed"), _line(first / "current_link_width")
    link = f", {speed} x{width}" if speed else ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Sign("card", True, f"AX650 at {first.name}{link}{more}")


def _driver(root: Path) -> Sign:
    loaded = {line.split(" ", 1)[0] for line in _text(root / "proc/modules").splitlines()}
    if missing := [name for name in MODULES if name not in loaded]:
        remedy = f"sudo modprobe {' '.join(missing)}; fails it, after a new kernel say: dkms status, or {_INSTALL}"
        return Sign("card driver", False, f"{', '.join(missing)} not loaded", remedy)
    if not (root / FIRMWARE).is_file():
        return Sign("card driver", False, f"there is no firmware at /{FIRMWARE}", _INSTALL)
    return Sign(
        "card driver", True, f"{len(MODULES)} modules, firmware {(root / FIRMWARE).stat().st_size / 1e6:.0f} MB"
    )


def _access(root: Path, who: Who) -> Sign:
    shown = []
    for name in NODES:
        try:
            node = (root / "dev" / name).stat()
        except OSError as error:
            return Sign("card access", False, f"/dev/{name}: {error.strerror}", _RESET)
        group = _group(node.st_gid)
        shown.append(f"{stat.filemode(node.st_mode)[1:]} {group} {name}")
        if not may(node, who):
            detail = f"/dev/{name} is for its owner and the group {group} ({stat.filemode(node.st_mode)[1:]})"
            remedy = f"sudo usermod -aG {group} USER, and log in again; or config/udev/zz-edge-agent-axera.rules"
            return Sign("card access", False, detail, remedy)
    return Sign("card access", True, ", ".join(shown))


def may(node: os.stat_result, who: Who) -> bool:
    """Whether this user may read and write a node."""
    shift = 6 if node.st_uid == who.uid else 3 if node.st_gid in who.gids else 0
    return who.uid == 0 or (node.st_mode >> shift) & 0o6 == 0o6


def read(said: str) -> Report | None:
    """What axcl-smi has printed; None if no card is in it."""
    versions = re.search(r"AXCL-SMI\s+\S+\s+Driver\s+(V[\w.]+)", said)
    name = re.search(r"^\|\s*\d+\s+AX\w+\s+(V[\w.]+)\s*\|", said, re.MULTILINE | re.IGNORECASE)
    use = re.search(
        r"^\|\s*\S+\s+(\d+)C\s[^|]*\|\s*\d+%\s+\d+%\s*\|\s*(\d+) MiB /\s*(\d+) MiB\s*\|", said, re.MULTILINE
    )
    if not (name and use):
        return None
    _, _, below = said.partition("Processes:")
    rows = re.findall(r"^\|\s*\d+\s+(\d+)\s+(\S.*?)\s+(\d+) KiB\s*\|", below, re.MULTILINE)
    holders = tuple(Holder(int(pid), Path(path).name, int(kib) << 10) for pid, path, kib in rows)
    driver = versions[1] if versions else ""
    return Report(driver, name[1], int(use[1]), int(use[3]) * _MIB, int(use[2]) * _MIB, holders)


def _state(report: Report) -> Sign:
    detail = f"firmware {report.firmware}, driver {report.driver or 'unknown'}, {report.celsius} °C"
    if report.driver and report.driver.partition("_")[0] != report.firmware.partition("_")[0]:
        remedy = "driver and firmware should be of one version: reboot the host after an update of the driver"
        return Sign("card state", True, detail, remedy)
    if report.celsius >= _HOT:
        return Sign("card state", True, detail, "cool it: at 120 °C it resets itself")
    return Sign("card state", True, detail)


def _memory(total: int, used: int, holders: Collection[Holder], wanted: int) -> Sign:
    left = total - used
    detail = f"{left / _MIB:,.0f} of {total / _MIB:,.0f} MiB left"
    if holders:
        detail += "; " + ", ".join(f"{each.name} ({each.pid}) has {each.bytes / _MIB:,.0f}" for each in holders)
    if left >= wanted:
        return Sign("card memory", True, detail)
    remedy = "stop what holds it: a running agent may" if holders else f"nobody seems to hold it: {_RESET}"
    return Sign("card memory", False, f"{detail}; {wanted / _MIB:,.0f} are wanted", remedy)


def _cmm(root: Path) -> tuple[int, int]:
    """Bytes of the chip's memory, all and used."""
    sizes = re.search(r"total size=(\d+)KB.*?used=(\d+)KB", _text(root / "proc/ax_proc/mem_cmm_info"))
    return (int(sizes[1]) << 10, int(sizes[2]) << 10) if sizes else (0, 0)


async def run(tool: Path) -> str | None:
    """Run it with the card's libraries. On a wedged card it may hang beyond SIGKILL: then it is left behind."""
    process = await asyncio.create_subprocess_exec(
        tool,
        env=program.environment({}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    for patience in (_SMI_S, 1.0):
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                said, _ = await process.communicate()
                return None if process.returncode == -signal.SIGKILL else said.decode(errors="replace")
        with suppress(ProcessLookupError):
            process.kill()
    return None


def files(options: Mapping[str, Any]) -> Iterator[Sign]:
    """Look at the console program and at the model's files, as the engine would find them."""
    try:
        settled = checked(_OPTIONS, options)
        found = program.find(settled, Tokenizer.load(program.tokenizer_files(settled)).size)
    except (ConfigError, ModelError) as error:
        yield Sign("model files", False, str(error), _AGAIN)
        return
    yield _runner(found.binary)
    yield _layers(found.flags)


def _runner(binary: Path) -> Sign:
    with binary.open("rb") as file:
        head = file.read(20)
    built = _MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine") if head[:4] == b"\x7fELF" else ""
    if not os.access(binary, os.X_OK):
        return Sign("runner", False, f"{binary} may not be executed", "move data_dir off a file system that is noexec")
    if built and built != platform.machine():
        remedy = f"set binary in engine.options to the one for {platform.machine()}"
        return Sign("runner", False, f"{binary.name} is for {built}, and this is {platform.machine()}", remedy)
    return Sign("runner", True, f"{binary.name}{f', for {built}' if built else ', a script'}")


def _layers(flags: Mapping[str, str]) -> Sign:
    """Every layer is there and none was cut off; the table of embeddings is as large as it says."""
    template, rows, width = (flags.get(name, "0") for name in _NAMES)
    family = Path(template).name.partition("_")[0]
    count = max(int(flags.get("axmodel_num", 0)), LAYERS.get((family, int(width)), 0))
    named = {f"layer {number}": Path(template.replace("%d", str(number))) for number in range(count)}
    named["the post model"] = Path(flags.get("filename_post_axmodel", ""))
    sizes = {name: path.stat().st_size if path.is_file() else 0 for name, path in named.items()}
    typical = sorted(sizes[f"layer {number}"] for number in range(count))[count // 2] if count else 0
    for name, size in sizes.items():
        if not size:
            return Sign("model files", False, f"{name} is missing: {named[name]}", _AGAIN)
        if name.startswith("layer") and size < typical / 2:
            return Sign("model files", False, f"{name} has {size} bytes, others {typical}: it was cut off", _AGAIN)
    table = Path(flags.get("filename_tokens_embed", ""))
    here, due = table.stat().st_size if table.is_file() else 0, 2 * int(rows) * int(width)
    if here != due:
        return Sign("model files", False, f"{table.name} has {here} bytes instead of {due}", _AGAIN)
    whole = (sum(sizes.values()) + here) / 1e9
    return Sign("model files", True, f"{count} layers, post model and embeddings, {whole:.1f} GB")


def on_card(options: Mapping[str, Any]) -> int:
    """Bytes of the card's memory that the model takes, at least."""
    return sum(path.stat().st_size for path in Path(options["model"]).rglob("*.axmodel"))


def on_host(options: Mapping[str, Any]) -> int:
    """Bytes of the host's memory that the console program takes: the table of embeddings."""
    files = Path(options["model"]).rglob("*embed_tokens*.bin") if "model" in options else ()
    return sum(path.stat().st_size for path in files)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    return _text(path).strip()
