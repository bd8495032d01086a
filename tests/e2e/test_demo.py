"""The demo as a newcomer sees it, with the scripted engine and with the real model; nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parents[2] / "script" / "demo.py"


@pytest.fixture
def demo(tmp_path) -> Callable[..., Iterator[subprocess.Popen[str]]]:
    """`script/demo.py` with a folder for its files that can be looked into, and without anyone's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_AGENT_")}
    environ = {**kept, "TMPDIR": str(tmp_path), "HOME": str(tmp_path / "home"), "PYTHONPATH": str(DEMO.parents[1])}

    @contextmanager
    def start(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, DEMO, *arguments],
            env={**environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def belongings(folder: Path) -> list[str]:
    """Processes that were started for this demo, and its folders."""
    lines = (" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder) in line] + [str(each) for each in folder.glob("edge-agent-demo-*")]


def test_a_question_is_asked_and_answered_and_nothing_stays(demo, tmp_path) -> None:
    with demo("--ask", "Is anyone there?", EDGE_AGENT_ENGINE__NAME="echo") as running:
        shown, _ = running.communicate(timeout=60)
    assert running.returncode == 0, shown
    assert re.search(r"✓ broker +mosquitto on 127\.0\.0\.1:\d+\n✓ agent +echo on echo, ready after", shown)
    assert "\n> Is anyone there?\n\nIs anyone there?\n\nfirst token " in shown
    assert "4 written" in shown or "3 written" in shown
    assert belongings(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_kept_can_be_used_until_a_signal_and_is_then_gone(demo, tmp_path, number) -> None:
    with demo("--keep", EDGE_AGENT_ENGINE__NAME="echo") as running:
        lines = iter(running.stdout.readline, "")
        paste = next(line for line in lines if "mosquitto_rr" in line)
        asked = subprocess.run(["sh", "-c", paste], capture_output=True, text=True, timeout=30, check=False)
        assert (asked.returncode, asked.stdout.strip()) == (0, "Name three fruits."), asked.stderr
        assert len(belongings(tmp_path)) == 3
        running.send_signal(number)
        assert running.wait(15) == 130  # In good order; later would be by force.
    assert belongings(tmp_path) == []


def test_a_failure_shows_the_log_of_what_failed(demo, tmp_path) -> None:
    with demo(EDGE_AGENT_ENGINE__NAME="echo", EDGE_AGENT_ENGINE__OPTIONS="{frob: 1}") as running:
        shown, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "✗" in shown
    assert "frob" in shown
    assert "Traceback" not in shown
    assert belongings(tmp_path) == []


def test_the_real_model_answers(demo, smollm2, tmp_path) -> None:
    with demo("--ask", "What is the capital of France?", EDGE_AGENT_MODEL=str(smollm2)) as running:
        shown, _ = running.communicate(timeout=110)
    assert running.returncode == 0, shown
    assert "Paris" in shown
    assert re.search(r"first token \d+\.\d\d s · \d+\.\d tokens/s · \d+ prompt tokens, 0 of them cached", shown)
    assert belongings(tmp_path) == []
