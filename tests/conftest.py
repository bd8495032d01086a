from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.models.tokenizer import Tokenizer


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A job in the background of a shell ignores Ctrl-C, and so would every process that a test interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF: the file that EDGE_AGENT_TEST_MODEL names, or the catalogue's, fetched once."""
    if given := os.environ.get("EDGE_AGENT_TEST_MODEL"):
        return Path(given)
    from edge_agent.models import catalogue, download  # noqa: PLC0415 - only runs without the variable need them

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-agent"
    found = download.ensure(catalogue.load()["smollm2-135m"], cache)
    return found if found.is_file() else next(found.glob("*.gguf"))


@pytest.fixture(scope="session")
def qwen_tokenizer() -> Path:
    """The folder of Qwen2.5's own tokenizer: the one that EDGE_AGENT_TEST_TOKENIZER names, or fetched once."""
    if given := os.environ.get("EDGE_AGENT_TEST_TOKENIZER"):
        return Path(given)
    from qwen_tokenizer import fetch  # noqa: PLC0415 - of script/; only runs without the variable need it

    return fetch()


STANDIN = Path(__file__).parent / "agent/engines/axera/standin/console.py"


class Card:
    """A model folder whose program is the stand-in, and the script it follows. See standin/console.py for both."""

    def __init__(self, folder: Path, tokenizer: Path, vocabulary: int) -> None:
        self.folder = folder
        self._tokenizer = tokenizer
        self._script = folder / "script.json"
        layers = folder / "some-ax650"
        layers.mkdir(parents=True)
        for name in (*(f"some_p128_l{number}_together" for number in range(4)), "some_post"):
            (layers / f"{name}.axmodel").touch()
        with (layers / "model.embed_tokens.weight.bfloat16.bin").open("wb") as embeddings:
            embeddings.truncate(-(-vocabulary // 128) * 128 * 64 * 2)
        binary = folder / "console"
        binary.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
        binary.chmod(0o755)
        self.script()

    def script(self, *faults: dict[str, Any], answers: tuple[dict[str, Any], ...] = ()) -> None:
        """What the program does from its next prompt on."""
        new = self._script.with_suffix(".new")
        new.write_text(json.dumps({"answers": list(answers), "faults": list(faults)}))
        new.replace(self._script)

    def happened(self, once: str) -> bool:
        """Whether the fault of this name has happened."""
        return Path(f"{self._script}.{once}").exists()

    def options(self, *, speed: float = 200, variant: str = "console", **options: Any) -> dict[str, Any]:
        """The engine's options."""
        standin = {"STANDIN_SPEED": str(speed), "STANDIN_VARIANT": variant, "STANDIN_SCRIPT": str(self._script)}
        where = {"model": str(self.folder), "binary": "console", "tokenizer": str(self._tokenizer)}
        return {**where, "environment": standin, "port": 0, **options}


@pytest.fixture(scope="session")
def vocabulary(smollm2: Path) -> Tokenizer:
    """The tokenizer that the stand-in's cards are asked with."""
    return Tokenizer.load(smollm2)


@pytest.fixture(scope="session")
def make_card(tmp_path_factory: pytest.TempPathFactory, smollm2: Path, vocabulary: Tokenizer) -> Callable[[], Card]:
    return lambda: Card(tmp_path_factory.mktemp("card"), smollm2, vocabulary.size)


@pytest.fixture
def card(make_card: Callable[[], Card]) -> Card:
    """An AXERA card, as far as the agent can tell: a model folder whose program is the stand-in."""
    return make_card()
