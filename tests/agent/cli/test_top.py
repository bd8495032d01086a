"""The live view of the nodes, and an operator's orders."""

import pytest
import yaml
from rich.console import Console

from edge_agent.cli.top import table
from edge_agent.client import NodeView
from edge_agent.wire import Info, State


def picture(*views: NodeView) -> list[str]:
    console = Console(width=160)
    with console.capture() as shown:
        console.print(table({view.name: view for view in views}))
    return [line.split() for line in shown.get().splitlines()]


def test_every_node_has_a_line_by_name() -> None:
    state = State("b", "ready", "", 2, 3, 29, 900.0, 31.5, 0.42, 0.75, 512_000_000, "shared")
    info = Info("attic", "1", "smollm2", "openvino", "chatml", 8192, {}, {})
    head, *rows = picture(NodeView("cellar"), NodeView("attic", True, state, info), NodeView("barn", True))
    assert head == [
        "node",
        "phase",
        "run",
        "wait",
        "room",
        "tok/s",
        "first",
        "cached",
        "memory",
        "pool",
        "model",
        "why",
    ]
    assert rows[0] == ["attic", "ready", "2", "3", "29", "31.5", "0.42", "s", "75%", "512", "MB", "shared", "smollm2"]
    assert rows[1:] == [["barn", "loading"], ["cellar", "offline"]]


def test_a_node_cannot_drive_the_terminal() -> None:
    state = State("b", "fail\x1b[2Jed", "[bold]\x1b]0;x\x07why")
    [_, row] = picture(NodeView("attic", True, state))
    assert row[1] == "fail[2Jed"
    assert row[-1] == "[bold]]0;xwhy"


def test_no_node_is_said() -> None:
    assert "no node has been on this broker" in " ".join(picture()[1])


def test_top_without_a_terminal_prints_one_picture(answered) -> None:
    done = answered("top")
    assert done.returncode == 0
    assert [b"kitchen", b"ready"] in [line.split()[:2] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("agent")
def test_top_on_a_terminal_lives_until_ctrl_c(typing) -> None:
    with typing("top") as terminal:
        terminal.until(b"kitchen")
        terminal.interrupt()
        assert terminal.end()[0] == 0


def test_an_operator_reads_the_configuration(edge_agent, agent) -> None:
    done = edge_agent("admin", "kitchen", "config", "--name", "operator")
    assert yaml.safe_load(done.stdout)["node"] == "kitchen"
    assert (
        edge_agent("admin", "kitchen", "log-level", "info", "--name", "operator").stdout
        == b"kitchen: log-level: done\n"
    )


def test_nobody_else_gives_orders(edge_agent, agent) -> None:
    done = edge_agent("admin", "kitchen", "shutdown", "--name", "anna")
    assert (done.returncode, done.stderr[:22]) == (1, b"edge-agent: forbidden:")
    assert agent.poll() is None
