"""Running a node, and checking what it would run with."""

import signal

import pytest
import yaml


def test_what_is_in_effect_is_shown_without_secrets(edge_agent, tmp_path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "agent.yaml").write_text(
        "engine: {name: echo}\nbroker: {host: broker.example, username: u, password_file: secret}\n"
    )
    done = edge_agent("check", "--config", str(tmp_path / "agent.yaml"), EDGE_AGENT_NODE="cellar")
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["node"], shown["broker"]["username"]) == ("cellar", "u")
    assert b"hunter2" not in done.stdout + done.stderr
    assert b"goes to broker.example in the clear" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("templates: {t: {messages: [{role: user, content: '{{'}]}}", "templates.t"),
        ("engine: {name: echo, options: {paralel: 2}}", "paralel"),
        ("engine: {name: abacus}", "abacus"),
        ("models: {m: {title: x}}", "models.m"),
    ],
)
def test_what_could_not_run_does_not_pass(edge_agent, tmp_path, wrong, told) -> None:
    (tmp_path / "agent.yaml").write_text(wrong)
    done = edge_agent("check", "--config", str(tmp_path / "agent.yaml"))
    assert (done.returncode, told in done.stderr.decode()) == (78, True)


def test_a_model_that_nobody_knows_does_not_pass(edge_agent, tmp_path) -> None:
    (tmp_path / "agent.yaml").write_text("model: gpt-17\n")
    assert edge_agent("check", "--config", str(tmp_path / "agent.yaml")).returncode == 66


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
