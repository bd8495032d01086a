from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.engines.base import Engine, Piece, Prompt, Sampling, Segment
from edge_agent.models.tokenizer import Tokenizer

CALL = '{"name": "turn_on", "arguments": {"lamp": "Küche"}}'
STORY = "Once upon a time there was a ship, and it sailed on. " * 40


@pytest.fixture(scope="session")
def chat() -> Callable[..., Prompt]:
    """A ChatML prompt with one user message, and perhaps a system message."""

    def build(user: str, system: str = "You are a helpful assistant.", answer: str = "") -> Prompt:
        return Prompt(
            (
                Segment(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", control=True),
                Segment(user),
                Segment("<|im_end|>\n<|im_start|>assistant\n", control=True),
                Segment(answer),
            )
        )

    return build


@pytest.fixture(scope="session")
def answer() -> Callable[[Engine, Prompt, Sampling], Awaitable[list[Piece]]]:
    """Every piece of one run."""

    async def run(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[Piece]:
        async with aclosing(engine.generate(prompt, sampling)) as pieces:
            return [piece async for piece in pieces]

    return run


@pytest.fixture(scope="session")
def echo_options() -> dict[str, Any]:
    return {
        "rules": [
            {"match": "story", "text": STORY},
            {"match": "capital of France", "text": "Paris 🙂."},
            {"match": "Küche lamp", "text": f"<tool_call>\n{CALL}\n</tool_call>"},
            {"match": "hang", "text": "one two three", "hang_after": 1},
        ],
        "context": 2048,
        "block": 32,
    }


@pytest.fixture(scope="session")
def openvino_options(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Converted once for the whole session; accurate, else an answer may depend on what runs beside it."""
    pytest.importorskip("openvino_genai")
    folder = str(tmp_path_factory.mktemp("converted"))
    return {"model": str(smollm2), "context": 2048, "cache_dir": folder, "accurate": True}


STANDIN = Path(__file__).parent / "axera/standin/console.py"


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


@pytest.fixture
def card(tmp_path: Path, smollm2: Path, vocabulary: Tokenizer) -> Card:
    return Card(tmp_path / "card", smollm2, vocabulary.size)


@pytest.fixture(scope="session")
def axera_options(tmp_path_factory: pytest.TempPathFactory, smollm2: Path, vocabulary: Tokenizer) -> dict[str, Any]:
    card = Card(tmp_path_factory.mktemp("card") / "some", smollm2, vocabulary.size)
    card.script(
        answers=(
            {"contains": vocabulary.encode([(" story", False)]), "ids": vocabulary.encode([(STORY, False)])},
            {"contains": vocabulary.encode([(" France", False)]), "ids": vocabulary.encode([("Paris 🙂.", False)])},
        )
    )
    return card.options(context=1024)
