from __future__ import annotations

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


@pytest.fixture(scope="session")
def axera_options(make_card: Callable[..., Any], vocabulary: Tokenizer) -> dict[str, Any]:
    card = make_card()
    card.script(
        answers=(
            {"contains": vocabulary.encode([(" story", False)]), "ids": vocabulary.encode([(STORY, False)])},
            {"contains": vocabulary.encode([(" France", False)]), "ids": vocabulary.encode([("Paris 🙂.", False)])},
        )
    )
    return card.options(context=1024)
