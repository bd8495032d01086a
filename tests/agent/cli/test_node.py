"""Running a node, and checking what it would run with."""

import signal

import pytest
import yaml

from edge_agent.cli import main


def test_what_is_in_effect_is_shown_without_secrets(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "agent.yaml").write_text(
        "engine: {name: echo}\nbroker: {host: broker.example, username: u, password_file: secret}\n"
    )
    monkeypatch.setenv("EDGE_AGENT_NODE", "cellar")
    assert main(["check", "--config", str(tmp_path / "agent.yaml")]) == 0
    printed = capsys.readouterr()
    shown = yaml.safe_load(printed.out)
    assert (shown["node"], shown["broker"]["username"]) == ("cellar", "u")
    assert "hunter2" not in printed.out + printed.err
    assert "goes to broker.example in the clear" in printed.err


@pytest.mark.parametrize(
    ("wrong", "told", "code"),
    [
        ("templates: {t: {messages: [{role: user, content: '{{'}]}}", "templates.t", 78),
        ("engine: {name: echo, options: {paralel: 2}}", "paralel", 78),
        ("engine: {name: abacus}", "abacus", 78),
        ("models: {m: {title: x}}", "models.m", 78),
        ("model: gpt-17", "gpt-17", 66),
    ],
)
def test_what_could_not_run_does_not_pass(tmp_path, capsys, wrong, told, code) -> None:
    (tmp_path / "agent.yaml").write_text(wrong)
    assert main(["check", "--config", str(tmp_path / "agent.yaml")]) == code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_node_in_good_order(started, reached, number) -> None:
    name = f"short-lived-{number:d}"
    with started("run", EDGE_AGENT_NODE=name) as running:
        reached(name, "ready")
        running.send_signal(number)
        assert running.wait(20) == 0
    reached(name, "offline")


def test_a_name_that_is_taken_is_one_line_and_an_exit_code(edge_agent, agent) -> None:
    done = edge_agent("run")
    assert done.returncode == 73
    assert b"edge-agent: another agent calls itself kitchen" in done.stderr
    assert b"Traceback" not in done.stderr
    assert agent.poll() is None
