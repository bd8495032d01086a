"""What systemd is told: a real agent process, and a real datagram socket in the place of systemd's."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from edge_agent.app import App
from edge_agent.config.settings import schema
from edge_agent.notify import Notifier

PATIENCE_S = 30
WATCHDOG_US = 300_000


class Manager:
    """Hears what is sent to its socket, one datagram at a time."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(PATIENCE_S)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def until(self, **fields: str) -> list[dict[str, str]]:
        """Everything that comes before a datagram with these fields, and that datagram."""
        heard = [self.hear()]
        while not fields.items() <= heard[-1].items():
            heard.append(self.hear())
        return heard

    def is_silent(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request, tmp_path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@edge-agent-{secrets.token_hex(8)}"


@pytest.fixture
def manager(tmp_path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the engine's mood is kept; it starts well, and loads once `loaded` is there."""
    (tmp_path / "mood").write_text("well")
    return tmp_path


def change(folder: Path, mood: str) -> None:
    (folder / "new").write_text(mood)
    (folder / "new").replace(folder / "mood")


@contextmanager
def agent(folder: Path, manager: Manager, **sections) -> Iterator[subprocess.Popen]:
    """An agent whose broker is away, as its service manager starts it."""
    sections = {"engine": {"name": "moody:Moody", "options": {"folder": str(folder)}}, **sections}
    conf = folder / "agent.yaml"
    conf.write_text(yaml.safe_dump({"node": "kitchen", "data_dir": str(folder), "broker": {"port": 1}, **sections}))
    told = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(WATCHDOG_US)}
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-m", "edge_agent", "run", "--config", conf]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stderr=log, env={**os.environ, **told, "PYTHONPATH": path}) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


def test_ready_is_said_once_the_model_is_and_not_before(folder, manager) -> None:
    with agent(folder, manager):
        first = manager.hear()
        assert first["STATUS"] == "loading moody:Moody"
        assert int(first["EXTEND_TIMEOUT_USEC"]) > 600e6
        assert manager.is_silent(0.5)
        (folder / "loaded").touch()
        assert manager.hear() == {"READY": "1", "STATUS": "ready: moody:Moody"}


def test_a_healthy_idle_engine_feeds_the_watchdog_at_every_look(folder, manager) -> None:
    (folder / "loaded").touch()
    with agent(folder, manager):
        manager.until(READY="1")
        assert [manager.hear() for _ in range(5)] == [{"WATCHDOG": "1"}] * 5
        assert (folder / "looks").read_text().splitlines()[:5] == ["well"] * 5


def test_an_engine_that_says_it_is_ill_starves_the_watchdog_until_another_is_well(folder, manager) -> None:
    (folder / "loaded").touch()
    with agent(folder, manager):
        manager.until(READY="1")
        manager.hear()
        (folder / "loaded").unlink()
        change(folder, "ill")
        heard = [{"WATCHDOG": "1"}, *manager.until(STATUS="loading moody:Moody: it is ill")]
        fed = sum(each == {"WATCHDOG": "1"} for each in heard)
        assert fed == (folder / "looks").read_text().splitlines().count("well")
        assert int(heard[-1]["WATCHDOG_USEC"]) > 600e6, "what the supervisor does about it has a time of its own"
        change(folder, "well")
        manager.until(STATUS="loading moody:Moody: it is ill")
        (folder / "loaded").touch()
        back = manager.until(STATUS="ready: moody:Moody")
        assert back[-1]["WATCHDOG_USEC"] == str(WATCHDOG_US)
        assert {"WATCHDOG": "1"} not in back
        assert "READY" not in back[-1]
        assert manager.hear() == {"WATCHDOG": "1"}


def test_an_engine_whose_health_hangs_starves_the_watchdog_though_the_agent_lives(folder, manager) -> None:
    (folder / "loaded").touch()
    with agent(folder, manager) as running:
        manager.until(READY="1")
        change(folder, "silent")
        while not manager.is_silent(3 * WATCHDOG_US / 1e6):
            pass
        assert (folder / "looks").read_text().splitlines()[-1] == "silent"
        assert running.poll() is None


def test_an_engine_that_waits_for_a_person_is_not_ended_by_the_watchdog(folder, manager) -> None:
    (folder / "loaded").touch()
    with agent(folder, manager):
        manager.until(READY="1")
        change(folder, "lost")
        assert manager.until(STATUS="failed moody:Moody: it is lost")[-1]["WATCHDOG_USEC"] == "0"
        assert manager.is_silent(3 * WATCHDOG_US / 1e6)


def test_a_start_that_fails_is_never_ready_and_says_why(folder, manager) -> None:
    with agent(folder, manager, engine={"name": "openvino"}, model=str(folder / "none.gguf")) as running:
        assert running.wait(PATIENCE_S) == 66, "one of the codes that the unit does not restart"
        assert manager.is_silent(0.1)


def test_a_stop_is_said_with_the_time_it_may_take(folder, manager) -> None:
    (folder / "loaded").touch()
    with agent(folder, manager, limits={"drain_s": 100}) as running:
        manager.until(READY="1")
        running.send_signal(signal.SIGTERM)
        assert int(manager.until(STOPPING="1")[-1]["EXTEND_TIMEOUT_USEC"]) > 100e6
        assert running.wait(PATIENCE_S) == 0


def test_a_download_that_gets_on_is_given_its_time_and_one_that_does_not_is_not(folder, manager) -> None:
    config = schema()({"model": "smollm2-135m", "data_dir": str(folder), "broker": {"port": 1}})
    app = App(config, {"NOTIFY_SOCKET": manager.address})
    for done in (10, 20, 20, 20, 30):
        app._going_on(done, 1000)
    heard = [manager.hear() for _ in range(3)]
    assert [each["STATUS"] for each in heard] == [f"fetching smollm2-135m, {percent} %" for percent in (1, 2, 3)]
    assert all(int(each["EXTEND_TIMEOUT_USEC"]) > 600e6 for each in heard)
    assert manager.is_silent(0.05)


def test_both_kinds_of_sockets_are_reached(address) -> None:
    manager = Manager(address)
    Notifier({"NOTIFY_SOCKET": address}).ready("ready:\nboth lines")
    assert manager.hear() == {"READY": "1", "STATUS": "ready: both lines"}
    manager.close()


def test_without_a_manager_nobody_is_told_and_nothing_fails(tmp_path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(environ)
        notifier.busy("loading", 1)
        notifier.ready("ready")
        notifier.well()
        notifier.stopping("stopping", 1)


@pytest.mark.parametrize(
    ("environ", "interval"), [({}, 5.0), ({"WATCHDOG_PID": "1"}, 5.0), ({"WATCHDOG_PID": ""}, 1.0)]
)
def test_the_engine_is_looked_at_often_enough_for_the_watchdog_and_only_for_our_own(
    environ, interval, tmp_path
) -> None:
    if environ.get("WATCHDOG_PID") == "":
        environ = {"WATCHDOG_PID": str(os.getpid())}
    given = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "3000000", **environ} if environ else {}
    assert Notifier(given).interval_s(5.0) == interval
