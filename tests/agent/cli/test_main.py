"""Errors are one line, exit codes are as documented."""

import re

import pytest

from edge_agent.cli import _explain, _globals_first, main
from edge_agent.errors import BrokerError, ConfigError, EngineFailed, ModelError, NodeNameTaken
from edge_agent.wire import WireError

COMMANDS = ("run", "ask", "chat", "check", "doctor", "download", "top", "admin", "bench", "service")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys) -> None:
    assert main([command, "--help"]) == 0
    assert f"edge-agent {command}" in capsys.readouterr().out


def test_without_a_command_the_help_is_printed(capsys) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert all(command in shown.out for command in COMMANDS)
    assert shown.err == ""


def test_the_version_is_told(capsys) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"edge-agent \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (["frob"], "No such command 'frob'. (edge-agent --help tells more)"),
        (["ask", "--frob"], "No such option: --frob (edge-agent ask --help tells more)"),
        (["ask"], "is empty"),
        (["ask", "hi", "--var", "a=1"], "--var"),
        (["ask", "hi", "--template", "t", "--var", "a"], "'a' is not NAME=VALUE"),
        (["ask", "hi", "--broker", "host:port"], "'host:port' is not HOST or HOST:PORT"),
        (["ask", "hi", "--name", "a/b"], "--name"),
        (["ask", "hi", "--node", "#"], "--node"),
        (["ask", "hi", "--schema", "/nowhere.json"], "No such file"),
        (["ask", "hi", "--max-tokens", "0"], "--max-tokens"),
        (["ask", "hi", "--temperature", "hot"], "--temperature"),
        (["admin", "kitchen", "explode"], "'explode' is not one of"),
        (["admin", "kitchen", "log-level"], "LEVEL"),
        (["admin", "kitchen", "drain", "debug"], "LEVEL"),
        (["bench", "nothing"], "'nothing' is not one of"),
    ],
)
def test_what_is_typed_wrong_is_told_in_one_line(typed, complaint, capsys) -> None:
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert said.startswith("edge-agent: ")
    assert complaint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ConfigError("agent.yaml: node: wrong"), "agent.yaml: node: wrong", 78),
        (BrokerError("gone"), "gone", 69),
        (NodeNameTaken("taken"), "taken", 73),
        (ModelError("damaged"), "damaged", 66),
        (WireError("model_not_found", "no,\nnot here"), "model_not_found: no, not here", 1),
        (EngineFailed("died", retry_after_s=2.0), "engine_failed: died; try again in 2 s", 75),
        (ExceptionGroup("a", [ExceptionGroup("b", [ValueError("x"), NodeNameTaken("taken")])]), "taken", 73),
    ],
)
def test_a_failure_has_its_exit_code_and_its_remedy(error, said, code) -> None:
    assert _explain(error) == (said, code)


def test_a_fault_of_the_program_is_called_one() -> None:
    said, code = _explain(ExceptionGroup("tasks", [KeyError("missing")]))
    assert (code, "KeyError: 'missing'" in said, "--debug" in said) == (70, True, True)


def test_every_problem_of_a_configuration_is_a_line(tmp_path, capsys) -> None:
    (tmp_path / "agent.yaml").write_text("nodee: x\nbroker: {port: 0}\n")
    assert main(["check", "--config", str(tmp_path / "agent.yaml")]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("edge-agent: ") for line in lines)


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ConfigError):
        main(["check", "--debug", "--config", "/nowhere.yaml"])


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["run", "--config", "x"], ["--config", "x", "run"]),
        (["run", "--config=x", "--debug"], ["--config=x", "--debug", "run"]),
        (["--debug", "ask", "-", "--stats"], ["--debug", "ask", "-", "--stats"]),
        (["ask", "--", "--debug", "--config"], ["ask", "--", "--debug", "--config"]),
        (["ask", "--config"], ["--config", "ask"]),
    ],
)
def test_options_of_the_program_may_follow_the_command(typed, read) -> None:
    assert _globals_first(typed) == read


def test_no_broker_is_an_exit_code_of_its_own(edge_agent) -> None:
    done = edge_agent("ask", "hi", "--broker", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (69, b"")
    assert done.stderr.startswith(b"edge-agent: cannot reach the broker at 127.0.0.1:1")
    assert done.stderr.count(b"\n") == 1


def test_nobody_there_is_worth_another_try(answered) -> None:
    done = answered("ask", "hi", "--node", "cellar")
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.startswith(b"edge-agent: unavailable: the node cellar is not online")
