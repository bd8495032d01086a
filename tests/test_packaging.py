"""The wheel has the agent and the files that travel with it, and runs without a clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel unpacked, away from the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder: Path) -> set[str]:
    there = (each.relative_to(ROOT / folder) for each in (ROOT / folder).rglob("*") if each.is_file())
    return {str(each) for each in there if "__pycache__" not in each.parts}


def test_the_wheel_has_every_module_and_every_shipped_file(installed) -> None:
    inside = {str(each.relative_to(installed / "edge_agent")) for each in (installed / "edge_agent").rglob("*")}
    assert files(Path("edge_agent")) - inside == set()
    assert {f"config_files/{each}" for each in files(Path("config"))} - inside == set()
    assert "config_files/mosquitto/demo.conf.in" in inside


def test_the_wheel_has_nothing_else(installed) -> None:
    assert {each.name.partition("-")[0] for each in installed.iterdir()} == {"edge_agent"}
    assert not [each for each in installed.rglob("*") if each.suffix in (".gguf", ".pyc")]


def test_the_licence_and_the_command_are_declared(installed) -> None:
    [info] = installed.glob("edge_agent-*.dist-info")
    assert (info / "licenses" / "LICENSE").is_file()
    assert "edge-agent = edge_agent.__main__:main" in (info / "entry_points.txt").read_text()


@pytest.mark.parametrize("command", [["--version"], ["download", "--list"], ["check"]])
def test_what_is_installed_runs_without_a_clone(installed, tmp_path, command) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv.pop(1)); "
        "from edge_agent import shipped; assert 'config_files' in str(shipped.shipped('models.yaml')); "
        "from edge_agent.cli import main; sys.exit(main())"
    )
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "EDGE_AGENT_ENGINE__NAME": "echo"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, installed, *command],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
