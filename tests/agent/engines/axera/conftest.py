from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from edge_agent.engines.axera import console, engine
from edge_agent.models.tokenizer import Tokenizer

PATIENCE_S = 20


@pytest.fixture(scope="session", autouse=True)
def one_tokenizer() -> Iterator[None]:
    """Load each tokenizer once for all engines of these tests: it takes longer than the stand-in's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "load", functools.cache(Tokenizer.load))
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping takes no long time where the program does not want to stop."""
    monkeypatch.setattr(console, "STOP_S", ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGKILL, 0.3)))
    monkeypatch.setattr(engine, "_LOADING_S", 0.0)


@pytest.fixture
def until() -> Callable:
    """Wait for what another process does: `await until(lambda: …)`."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - other processes tell nobody
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told, and silence noticed, many times a second."""
    monkeypatch.setattr(engine, "PROGRESS_S", 0.02)


@pytest.fixture(autouse=True)
def orphans() -> Iterator[None]:
    """No test may leave a process behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not left
