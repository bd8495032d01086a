"""The service: planned, put in place, taken away; the units as systemd itself judges them."""

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent import service as services
from edge_agent.cli import main
from edge_agent.cli import service as command
from edge_agent.engines.axera import card
from edge_agent.errors import ConfigError, ModelError, NodeNameTaken, OperatorError
from edge_agent.service import UNIT, Order, Remove, Service, Write
from edge_agent.shipped import shipped

PROGRAM = ["/opt/edge agent/bin/edge-agent"]
ROOTS = pwd.getpwuid(0).pw_dir
EXPOSURE = 2.0
"""What `systemd-analyze security` may find at most, from 0 to 10."""


class Systemd:
    """A service manager as far as the service goes: what is enabled, what runs, what it was told."""

    def __init__(self) -> None:
        self.enabled = False
        self.state = "inactive"
        self.orders: list[str] = []
        self.refuses = ""

    def __call__(self, arguments) -> tuple[int, str]:
        words = [word for word in arguments if not word.startswith(("--user", "--root", "--now", "--no-block"))]
        match words:
            case ["is-enabled", _]:
                return (0, "enabled") if self.enabled else (1, "disabled")
            case ["show", _, "--property=ActiveState", "--value"]:
                return 0, self.state
            case ["show", _, facts]:
                names = facts.removeprefix("--property=").split(",")
                known = {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": self.state, "MainPID": "7"}
                return 0, "\n".join(f"{name}={known.get(name, '')}" for name in names)
        self.orders.append(" ".join(arguments))
        if self.refuses in words:
            return 1, "Unit is masked."
        self.enabled = {"enable": True, "disable": False}.get(words[0], self.enabled)
        self.state = {"restart": "activating", "disable": "inactive"}.get(words[0], self.state)
        return 0, ""


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def person(tmp_path, systemd):
    """One person's service, on a systemd that answers as it should."""
    (tmp_path / "run/systemd").mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return Service(user=True, environ=environ, ctl=systemd)


@pytest.fixture
def image(tmp_path, systemd):
    """The machine's service, below a folder."""
    (tmp_path / "etc/edge-agent").mkdir(parents=True)
    return Service(root=tmp_path, ctl=systemd)


def carry_out(service: Service, steps) -> list[str]:
    for step in steps:
        service.perform(step)
    return [str(step) for step in steps]


def configured(folder: Path, text: str) -> None:
    (folder / "etc/edge-agent/agent.yaml").write_text(text)


def tree(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


def test_it_is_written_enabled_and_started_and_the_second_time_nothing_is(person, systemd) -> None:
    steps = person.install(None, PROGRAM)
    assert [type(step) for step in steps] == [Write, Order, Order, Order]
    carry_out(person, steps)
    assert systemd.orders == [
        "--user daemon-reload",
        f"--user enable {UNIT}",
        f"--user restart --no-block {UNIT}",
    ]
    assert person.install(None, PROGRAM) == []


def test_another_installation_or_configuration_restarts_it(person, systemd, tmp_path) -> None:
    carry_out(person, person.install(None, PROGRAM))
    file = tmp_path / "my $own %file.yaml"
    file.write_text("engine: {name: echo}\n")
    systemd.state, systemd.orders = "active", []
    carry_out(person, person.install(file, PROGRAM))
    assert [each.split()[1] for each in systemd.orders] == ["daemon-reload", "restart"]
    text = person.unit.read_text()
    assert f'ExecStart="/opt/edge agent/bin/edge-agent" --config "{tmp_path}/my $$own %%file.yaml" run' in text
    assert person.settings() == file


def test_uninstall_takes_away_what_install_made_and_nothing_else(image, tmp_path) -> None:
    configured(tmp_path, "model: qwen2.5-1.5b-gptq-int4-axera\n")
    (tmp_path / "etc/systemd/system/edge-agent.service.d").mkdir(parents=True)
    own = tmp_path / "etc/systemd/system/edge-agent.service.d/override.conf"
    own.write_text("[Service]\nNice=5\n")
    before = tree(tmp_path)
    carry_out(image, image.install(None, PROGRAM))
    assert {"unit", "card"} == {"unit" if path.endswith(UNIT) else "card" for path in tree(tmp_path) - before}
    carry_out(image, image.uninstall())
    assert tree(tmp_path) == before
    assert image.uninstall() == []
    own.unlink()
    own.parent.rmdir()
    before = tree(tmp_path)
    carry_out(image, image.install(None, PROGRAM))
    carry_out(image, image.uninstall())
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("engine", "drop_in", "device"),
    [
        ("{name: axera}", "axera.conf", "DeviceAllow=/dev/msg_userdev rw"),
        ("{name: openvino, options: {device: GPU}}", "gpu.conf", "DeviceAllow=char-drm rw"),
    ],
)
def test_the_configured_device_is_let_through_as_long_as_it_is_configured(
    image, tmp_path, engine, drop_in, device
) -> None:
    configured(tmp_path, f"engine: {engine}\n")
    carry_out(image, image.install(None, PROGRAM))
    placed = image.unit.parent / f"{UNIT}.d" / drop_in
    assert device in placed.read_text()
    configured(tmp_path, "engine: {name: echo}\n")
    assert Remove(placed) in image.install(None, PROGRAM)
    carry_out(image, image.install(None, PROGRAM))
    assert not placed.parent.exists()


def test_files_beside_the_settings_become_credentials(image, tmp_path) -> None:
    (tmp_path / "etc/edge-agent/broker-password").write_text("hush")
    (tmp_path / "etc/edge-agent/ca.pem").write_text("certificate")
    configured(
        tmp_path,
        "broker: {username: u, password_file: broker-password, tls: {ca: ca.pem}}\nengine: {name: echo}\n",
    )
    carry_out(image, image.install(None, PROGRAM))
    found = re.findall(r"^LoadCredential=(.*)$", image.unit.read_text(), re.MULTILINE)
    assert found == [f"{name}:/etc/edge-agent/{name}" for name in ("broker-password", "ca.pem")]


def test_settings_that_would_not_run_are_refused_before_anything_is_changed(image, tmp_path, systemd) -> None:
    configured(tmp_path, "engine: {nam: echo}\n")
    with pytest.raises(ConfigError, match="did you mean name"):
        image.install(None, PROGRAM)
    assert (tree(tmp_path) - {"etc", "etc/edge-agent", "etc/edge-agent/agent.yaml"}, systemd.orders) == (set(), [])


def test_a_unit_of_somebody_elses_is_left_alone(person) -> None:
    person.unit.parent.mkdir(parents=True)
    person.unit.write_text("[Service]\nExecStart=/usr/bin/mine\n")
    for refused in (lambda: person.install(None, PROGRAM), person.uninstall):
        with pytest.raises(OperatorError, match="not of our making"):
            refused()
    assert "mine" in person.unit.read_text()
    assert person.settings() is None
    assert person.facts()["LoadState"] == "loaded", "but it may be looked at"


@pytest.mark.parametrize("home", ["/home/anna/venv/bin/edge-agent", f"{ROOTS}/.local/bin/edge-agent"])
def test_what_the_service_could_not_see_is_refused_with_two_ways_out(systemd, tmp_path, home) -> None:
    with pytest.raises(OperatorError, match=r"/opt/edge-agent .*--user"):
        Service(ctl=systemd).install(None, [home])
    file = tmp_path / "agent.yaml"
    file.write_text("engine: {name: echo}\n")
    [write, *_] = Service(root=tmp_path, ctl=systemd).install(file, [home])
    assert f"ExecStart={home} --config /agent.yaml run\n" in write.text


def test_without_systemd_or_the_right_to_order_it_a_line_says_so(tmp_path, systemd) -> None:
    with pytest.raises(OperatorError, match="systemd does not run this machine"):
        Service(run=tmp_path, ctl=systemd).check(orders=False)
    with pytest.raises(OperatorError, match="systemd does not run for this person"):
        Service(user=True, environ={"HOME": str(tmp_path)}, ctl=systemd).check(orders=True)
    (tmp_path / "systemd/system").mkdir(parents=True)
    with pytest.raises(OperatorError, match=r"only root.*--user"):
        Service(run=tmp_path, uid=1000, ctl=systemd).check(orders=True)
    Service(run=tmp_path, uid=1000, ctl=systemd).check(orders=False)
    Service(run=tmp_path, uid=0, ctl=systemd).check(orders=True)


def test_without_systemctl_a_line_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match="no systemd here"):
        services.systemctl(["is-enabled", UNIT])


def test_what_systemd_refuses_is_told_with_the_order(person, systemd) -> None:
    systemd.refuses = "enable"
    with pytest.raises(OperatorError, match=r"systemctl --user enable edge-agent.service: Unit is masked"):
        carry_out(person, person.install(None, PROGRAM))


def test_a_dry_run_shows_all_and_changes_nothing(image, tmp_path, systemd, capsys) -> None:
    before = tree(tmp_path)
    command.install(image, None, user=False, dry_run=True)
    shown = capsys.readouterr().out
    assert f"would write {tmp_path}/etc/systemd/system/{UNIT}\n" in shown
    assert "    Type=notify\n" in shown
    assert f"would run systemctl --root={tmp_path} enable {UNIT}\n" in shown
    assert (tree(tmp_path), systemd.orders) == (before, [])


def test_the_status_is_systemds_and_the_nodes_own(person, tmp_path, capsys) -> None:
    assert command.status(person) == 1
    assert "not installed" in capsys.readouterr().out
    (tmp_path / "config/edge-agent").mkdir(parents=True)
    (tmp_path / "config/edge-agent/agent.yaml").write_text("broker: {port: 1}\nengine: {name: echo}\n")
    carry_out(person, person.install(None, PROGRAM))
    assert command.status(person) == 1
    shown = capsys.readouterr().out
    assert f"unit     {person.unit}, enabled\nsystemd  activating" in shown
    assert "process 7" in shown
    assert "node     cannot reach the broker" in shown


needs_systemctl = pytest.mark.skipif(not shutil.which("systemctl"), reason="no systemctl on this machine")
needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")


@needs_systemctl
def test_the_real_systemctl_enables_and_disables_it_below_another_root(tmp_path, capsys) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    before = tree(tmp_path)
    assert main(["service", "install", "--root", str(tmp_path)]) == 0
    link = tmp_path / "etc/systemd/system/multi-user.target.wants" / UNIT
    assert link.is_symlink()
    assert main(["service", "status", "--root", str(tmp_path)]) == 0
    assert f"{UNIT}, enabled" in capsys.readouterr().out
    assert main(["service", "install", "--root", str(tmp_path)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["service", "uninstall", "--root", str(tmp_path)]) == 0
    assert tree(tmp_path) == before


def analyze(*arguments, **environ) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    environ = {**os.environ, **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@needs_analyze
@pytest.mark.parametrize("engine", ["echo", "axera"])
def test_systemd_finds_no_fault_in_the_unit(image, tmp_path, engine) -> None:
    configured(tmp_path, f"engine: {{name: {engine}}}\n")
    carry_out(image, image.install(None))
    done = analyze("verify", "--man=no", image.unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_systemd_finds_no_fault_in_a_persons_unit(person, tmp_path) -> None:
    carry_out(person, person.install(None))
    done = analyze("--user", "verify", "--man=no", person.unit, XDG_RUNTIME_DIR=str(tmp_path / "run"))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
@pytest.mark.parametrize("engine", ["echo", "axera"])
def test_the_unit_exposes_little_even_with_a_card(image, tmp_path, engine) -> None:
    configured(tmp_path, f"engine: {{name: {engine}}}\n")
    carry_out(image, image.install(None))
    done = analyze("security", "--offline=true", "--no-pager", image.unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze rates running units only")
    [exposure] = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE


@pytest.mark.parametrize("name", [UNIT, "edge-agent.user.service"])
def test_what_only_a_person_can_mend_is_not_tried_again(name) -> None:
    codes = re.findall(r"^RestartPreventExitStatus=(.*)$", shipped(f"systemd/{name}").read_text(), re.MULTILINE)
    mended = (ModelError, NodeNameTaken, ConfigError)
    assert set(codes[0].split()) == {"2", *(str(error.exit_code) for error in mended)}


def test_the_drop_in_the_rule_and_the_doctor_know_the_same_nodes() -> None:
    let_in = re.findall(r"^DeviceAllow=/dev/(\w+) rw$", shipped("systemd/axera.conf").read_text(), re.MULTILINE)
    [rule] = shipped("udev").iterdir()
    [named] = re.findall(r'KERNEL=="([^"]+)"', rule.read_text())
    assert tuple(let_in) == tuple(named.split("|")) == card.NODES
    assert rule.name > "axcl_host.rules", "the last rule has the last word"
