"""`edge-agent download` as a process of its own: killed, resumed, watched, behind a proxy; with its exit codes."""

import json
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_agent.models import download
from edge_agent.models.catalogue import File

MODEL, CONFIG = "weights/model.bin", "weights/config.json"
CONTENT = random.Random(5).randbytes(8 << 20)
PATIENCE_S = 60
CRASHES = Path(__file__).with_name("crashes.py")


@pytest.fixture
def environ(hub, tmp_path) -> dict[str, str]:
    """A configuration whose catalogue has one model, of our hub."""
    hub.files = {MODEL: CONTENT, CONFIG: b"{}"}
    source = {"kind": "hub", "repo": hub.repo, "revision": hub.revision, "files": [{"path": "weights/*"}]}
    entry = {"title": "Some model", "licence": "MIT", "context": 128, "engine": "openvino", "source": source}
    config = tmp_path / "agent.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(tmp_path), "models": {"some": entry}}))
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    given = {"EDGE_AGENT_CONFIG": str(config), "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
    return {**plain, **given, "TERM": "xterm", "COLUMNS": "100"}


@pytest.fixture
def home(hub, tmp_path):
    return download._home(hub.entry(File("weights/*")), tmp_path)


COMMAND = [sys.executable, "-m", "edge_agent", "download", "some"]


def run(environ: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, env={**environ, **more}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_it_prints_where_the_model_is_and_a_second_time_asks_nobody(environ, hub, home):
    for _ in range(2):
        done = run(environ)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{home}\n", "")
        assert (home / MODEL).read_bytes() == CONTENT
        assert hub.sent == len(CONTENT) + 2
        hub.closed.set()
        environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_it_goes_on_with_the_rest_alone(environ, hub, home, until, seed):
    cut = random.Random(seed).randrange(1 << 20, len(CONTENT))
    hub.fail(after=cut, hold=True)
    part = home.parent / ".partial" / home.name / "files" / f"{MODEL}.part"
    with subprocess.Popen(COMMAND, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert hub.held.wait(PATIENCE_S)
        until(lambda: part.exists() and part.stat().st_size == cut)
        process.send_signal(signal.SIGKILL)
    assert not home.exists(), "nothing half-written is where models are"
    hub.sent = 0
    assert run(environ).returncode == 0
    assert (home / MODEL).read_bytes() == CONTENT
    assert hub.asked == [(MODEL, 0), (MODEL, cut), (CONFIG, 0)]
    assert hub.sent == len(CONTENT) - cut + 2
    assert [path.suffix for path in (home.parent / ".partial").iterdir()] == [".lock"], "nothing is left over"


def test_a_crash_at_any_operation_on_the_disk_leaves_nothing_wrong_that_counts_as_right(environ, hub, tmp_path):
    files = {"a/runner": "#!/bin/sh", "a/model.bin": "weights" * 1000, "config.json": "{}"}
    hub.files = {name: content.encode() for name, content in files.items()}
    patterns = [{"path": "a/runner", "executable": True}, {"path": "*model.bin"}, {"path": "config.json"}]
    entry = yaml.safe_load((tmp_path / "agent.yaml").read_text())["models"]["some"]
    entry["source"]["files"] = patterns
    told = json.dumps({"work": str(tmp_path / "work"), "entry": entry, "files": files})
    done = subprocess.run(
        [sys.executable, CRASHES, told], env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 20, "crashes, that is"


def test_two_at_once_fetch_once(environ, hub, home):
    hub.fail(after=1000, hold=True)
    with subprocess.Popen(COMMAND, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert hub.held.wait(PATIENCE_S)
        with subprocess.Popen(COMMAND, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            hub.closed.set()  # The first is cut off and goes on by itself.
            told = [process.communicate(timeout=PATIENCE_S)[0].decode() for process in (first, second)]
    assert told == [f"{home}\n"] * 2
    assert hub.sent == len(CONTENT) + 2


def test_a_person_sees_how_far_it_is_and_may_stop_it(environ, hub, home):
    hub.fail(after=len(CONTENT) // 2, hold=True)
    ours, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, env=environ, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"4.2/8.4 MB" not in seen:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    os.close(ours)
    assert b"Some model" in seen
    assert not home.exists()
    hub.sent = 0
    assert run(environ).returncode == 0
    assert hub.sent == len(CONTENT) // 2 + 2


def test_a_proxy_is_gone_through(environ, hub, home):
    done = run(environ, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.address, NO_PROXY="")
    assert (done.returncode, done.stdout) == (0, f"{home}\n")
    assert all(path.startswith("http://hub.invalid/") for path in hub.paths)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 75, "me/some cannot be fetched now: "),
        ({"HF_HUB_OFFLINE": "1"}, 75, "me/some cannot be fetched now: "),
        ({"revision": "f" * 40}, 66, "me/some at 0123456789ab cannot be had: 404"),
        ({"sends": {CONFIG: b"[]"}}, 66, f"some: {CONFIG} is not the expected file"),
        ({"told": lambda each: {**each, "size": 10**15}}, 66, "MB free and has"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(environ, hub, change, code, said):
    for name, value in change.items():
        if not name.isupper():
            setattr(hub, name, value)
    done = run(environ, **{name: value for name, value in change.items() if name.isupper()})
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.startswith("edge-agent: ")
    assert done.stderr.count("\n") == 1
