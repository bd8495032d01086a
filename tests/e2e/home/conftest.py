"""A real Home Assistant with the demonstration home, a real broker and real agents, one of each for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from home import agents, furnish
from home.broker import HOME, Broker, broker
from home.frontend import JSON, Home
from home.homeassistant import PROGRAM, HomeAssistant, home_assistant
from home.process import Process

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if not PROGRAM.exists():
                item.add_marker(pytest.mark.skip(reason="no Home Assistant here: script/setup home"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and (folder := item.session.stash.get(LOGS, None)):
        for log in sorted(folder.glob("*.log")):
            report.sections.append((log.name, log.read_text(encoding="utf-8", errors="replace")[-6000:]))
    return report


LOGS = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all processes of the home have their folders and logs."""
    request.session.stash[LOGS] = folder = tmp_path_factory.mktemp("home")
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mqtt(place: Path) -> AsyncIterator[Broker]:
    async with broker(place) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def homeassistant(place: Path, mqtt: Broker) -> AsyncIterator[HomeAssistant]:
    """Home Assistant, furnished and connected to the broker."""
    async with home_assistant(place / "homeassistant") as running:
        await furnish.furnish(running.home)
        await furnish.connect_mqtt(running.home, mqtt.login(HOME))
        yield running


@pytest.fixture
def home(homeassistant: HomeAssistant) -> Home:
    return homeassistant.home


@dataclass(frozen=True)
class Node:
    """An agent that was discovered and set up, and what Home Assistant made of it."""

    name: str
    file: Path
    process: Process
    entry: JSON
    agent: str
    task: str


SetUp = Callable[[Path], AbstractAsyncContextManager[Node]]


@pytest.fixture(scope="session")
def set_up(homeassistant: HomeAssistant) -> SetUp:
    """Run the node of a configuration and have it set up: `async with set_up(file) as node`."""

    @asynccontextmanager
    async def start(file: Path) -> AsyncIterator[Node]:
        home = homeassistant.home
        async with agents.serving(file) as process:
            entry = await furnish.set_up(home, file.stem)
            [agent] = await furnish.entities(home, entry, "conversation")
            [task] = await furnish.entities(home, entry, "ai_task")
            yield Node(file.stem, file, process, entry, agent, task)

    return start


RULES: list[dict[str, Any]] = [
    {
        "match": "turn on the desk lamp",
        "text": '<tool_call>{"name": "intent__HassTurnOn", "arguments": {"name": "Desk Lamp"}}</tool_call>',
    },
    {"match": "story", "text": "Once upon a time there was a lamp. It was lit every evening, and it never complained."},
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scripted(set_up: SetUp, place: Path, mqtt: Broker) -> AsyncIterator[Node]:
    """A node whose engine says what `RULES` tell, at a speed that lets its answers come in pieces."""
    engine = {"name": "echo", "options": {"rules": RULES, "write_tps": 100, "context": 16384}}
    file = agents.configured(place, "scripted", mqtt.login(), engine=engine)
    async with set_up(file) as node:
        yield node


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real(set_up: SetUp, place: Path, mqtt: Broker, smollm2: Path) -> AsyncIterator[Node]:
    """A node with SmolLM2-135M."""
    file = agents.configured(place, "real", mqtt.login(), model=str(smollm2))
    async with set_up(file) as node:
        yield node
