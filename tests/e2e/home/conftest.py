"""A real Home Assistant with the demonstration home, a real broker and real agents, one of each for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from home import furnish
from home.frontend import Home
from home.homeassistant import PROGRAM, HomeAssistant, home_assistant

from edge_agent.mosquitto import private_broker

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


@pytest.fixture(scope="session")
def mqtt_port(place: Path) -> Iterator[int]:
    with private_broker(place) as port:
        yield port


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def homeassistant(place: Path, mqtt_port: int) -> AsyncIterator[HomeAssistant]:
    """Home Assistant, furnished and connected to the broker."""
    async with home_assistant(place / "homeassistant") as running:
        await furnish.furnish(running.home)
        await furnish.connect_mqtt(running.home, mqtt_port)
        yield running


@pytest.fixture
def home(homeassistant: HomeAssistant) -> Home:
    return homeassistant.home
