"""What is started: the binary, its flags, its environment and the file it reads its sampling from."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import ModelError

_BINARIES: Final = {"aarch64": "main_axcl_aarch64", "x86_64": "main_axcl_x86"}
_FILES: Final = ("template_filename_axmodel", "filename_post_axmodel", "filename_tokens_embed")
_ADDRESS: Final = {"console": "filename_tokenizer_model", "context": "url_tokenizer_model"}
_LIBRARIES: Final = "/usr/lib/axcl"
_TOOLS: Final = "/usr/bin/axcl"
_SPARE: Final = 4096
"""Rows of the embeddings that no token uses, at most."""
_EMBED: Final = "model.embed_tokens.weight.bfloat16.bin"


@dataclass(frozen=True, slots=True)
class Program:
    """A binary and the flags that do not depend on this start. `variant` is `console` or `context`."""

    binary: Path
    variant: str
    flags: Mapping[str, str]

    def command(self, url: str) -> list[str]:
        """The command line; `url` is the tokenizer address."""
        own = {"tokenizer_type": "2", _ADDRESS[self.variant]: url, "bos": "0", "eos": "0"}
        own |= {"live_print": "1", "continue": "1", "prompt": ""}
        flags = {**self.flags, **own}
        return [str(self.binary), *(part for name, value in flags.items() for part in (f"--{name}", value))]


def find(options: Mapping[str, Any], vocabulary: int) -> Program:
    """The program in the folder `model`, as its run script starts it or as its files suggest; raises `ModelError`."""
    folder = Path(options["model"])
    binary = folder / (options["binary"] or _BINARIES.get(platform.machine(), "main_prefill"))
    if not binary.is_file():
        raise ModelError(f"there is no {binary}; fetch the model again, or set engine.options.binary")
    _make_executable(binary)
    flags = _script(folder, binary.name) or _guessed(folder, vocabulary)
    flags |= {name: str(value) for name, value in options["flags"].items()}
    flags |= {name: str(folder / flags[name]) for name in _FILES if name in flags}
    found = "context" if _ADDRESS["context"] in flags else "console"
    return Program(binary.absolute(), options["variant"] or found, flags)


def tokenizer_files(options: Mapping[str, Any]) -> Path:
    """The folder or file of the tokenizer; raises `ModelError`."""
    folder = Path(options["model"])
    if options["tokenizer"]:
        return Path(folder, options["tokenizer"])
    found = sorted(folder.glob("**/tokenizer.json"))
    if not found:
        raise ModelError(f"there is no tokenizer.json in {folder}; fetch the model again, or set tokenizer")
    return found[0].parent


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The agent's, without its own settings, and with the card's libraries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_AGENT_")}
    for name, path in (("LD_LIBRARY_PATH", _LIBRARIES), ("PATH", _TOOLS)):
        kept[name] = os.pathsep.join(filter(None, (kept.get(name), path)))
    return {**kept, **extra}


def post_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """The program's sampling, fixed for its life: greedy unless a temperature is set."""
    temperature, top_p, penalty = options["temperature"], options["top_p"], options["repetition_penalty"]
    return {
        "enable_temperature": temperature > 0,
        "temperature": temperature or 1.0,
        "enable_top_k_sampling": temperature == 0 or top_p is None,
        "top_k": options["top_k"] if temperature else 1,
        "enable_top_p_sampling": temperature > 0 and top_p is not None,
        "top_p": top_p or 1.0,
        "enable_repetition_penalty": penalty is not None,
        "repetition_penalty": penalty or 1.0,
        "penalty_window": options["penalty_window"],
    }


def _make_executable(binary: Path) -> None:
    """Downloads carry no permission to execute."""
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(binary.stat().st_mode | 0o111)
        except OSError as error:
            raise ModelError(f"{binary} is not executable: chmod +x it ({error.strerror})") from error


def _script(folder: Path, binary: str) -> dict[str, str]:
    """The flags with which the vendor's script starts this binary; nothing without such a script."""
    for script in sorted(folder.glob("run_*.sh")):
        words = shlex.split(script.read_text(encoding="utf-8").replace("\\\n", " "), comments=True)
        if f"./{binary}" in words:
            words = words[words.index(f"./{binary}") + 1 :]
            text = " ".join(map(shlex.quote, words)).replace("=", " ")
            pairs = re.findall(r"--(\w+) (\S+)", text)
            return {name: shlex.split(value)[0] for name, value in pairs}
    return {}


def _guessed(folder: Path, vocabulary: int) -> dict[str, str]:
    """The flags that the files themselves suggest."""
    first = next(iter(sorted(folder.glob("*/*_l0_*.axmodel"))), None)
    if first is None:
        raise ModelError(f"{folder} has neither run_*.sh nor layers of a model; fetch it again")
    name = first.name
    layers = len(list(first.parent.glob(name.replace("_l0_", "_l*_"))))
    post = next(iter(first.parent.glob("*_post.axmodel")), first.parent / "post.axmodel")
    embed = first.parent / _EMBED
    rows, width = _shape(embed.stat().st_size if embed.is_file() else 0, vocabulary)
    below = first.parent.relative_to(folder)
    return {
        "template_filename_axmodel": str(below / name.replace("_l0_", "_l%d_")),
        "axmodel_num": str(layers),
        "filename_post_axmodel": str(below / post.name),
        "filename_tokens_embed": str(below / embed.name),
        "tokens_embed_num": str(rows),
        "tokens_embed_size": str(width),
        "use_mmap_load_embed": "0",
    }


def _shape(size: int, vocabulary: int) -> tuple[int, int]:
    """Rows and width of the embeddings, two bytes a number: rows come in 128s and just hold the vocabulary."""
    numbers = size // 2
    fewest = -(-vocabulary // 128) * 128
    rows = next((rows for rows in range(fewest, fewest + _SPARE, 128) if size and numbers % (rows * 64) == 0), 0)
    if not rows:
        raise ModelError(f"{_EMBED} has {size} bytes, which is no table of {vocabulary} tokens; fetch the model again")
    return rows, numbers // rows
