from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF: the file that EDGE_AGENT_TEST_MODEL names, or the catalogue's, fetched once."""
    if given := os.environ.get("EDGE_AGENT_TEST_MODEL"):
        return Path(given)
    from edge_agent.models import catalogue, download  # noqa: PLC0415 - only runs without the variable need them

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-agent"
    found = download.ensure(catalogue.load()["smollm2-135m"], cache)
    return found if found.is_file() else next(found.glob("*.gguf"))
