from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


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
