"""The service's commands as typed; what they do is in tests/agent/test_service.py."""

import pytest

from edge_agent.cli import main
from edge_agent.cli.service import _node


@pytest.mark.usefixtures("agent")
def test_the_status_ends_with_what_the_node_says_of_itself(config, reached) -> None:
    reached("kitchen", "ready")
    assert _node(config).startswith("kitchen is ready; 0 running, 0 queued, ")


def test_a_node_that_does_not_run_is_told_with_its_broker(port, tmp_path) -> None:
    (tmp_path / "agent.yaml").write_text(f"node: cellar\nbroker: {{port: {port}}}\n")
    assert _node(tmp_path / "agent.yaml") == f"cellar is not on the broker at 127.0.0.1:{port}"


@pytest.mark.parametrize("verb", ["install", "status", "uninstall"])
def test_every_verb_explains_itself_and_refuses_a_root_for_a_person(verb, tmp_path, capsys) -> None:
    assert main(["service", verb, "--help"]) == 0
    assert f"edge-agent service {verb}" in capsys.readouterr().out
    assert main(["service", verb, "--user", "--root", str(tmp_path)]) == 1
    assert "not for a person's" in capsys.readouterr().err


def test_settings_named_on_the_command_line_are_the_services_own(tmp_path, capsys) -> None:
    (tmp_path / "agent.yaml").write_text("engine: {name: echo}\n")
    command = ["service", "install", "--dry-run", "--root", str(tmp_path / "image")]
    assert main([*command, "--config", str(tmp_path / "agent.yaml")]) == 0
    assert f"--config {tmp_path}/agent.yaml run\n" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [tmp_path / "agent.yaml"]
