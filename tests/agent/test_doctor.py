"""The doctor finds what is wrong, and knows the remedy."""

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.cli.doctor import line
from edge_agent.config import Broker, Config, Engine
from edge_agent.doctor import Finding, examine
from edge_agent.mosquitto import free_port, private_broker


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A configuration in which everything works."""
    with private_broker(tmp_path_factory.mktemp("broker")) as port:
        data = tmp_path_factory.mktemp("data")
        yield Config(node="kitchen", broker=Broker(port=port), engine=Engine("echo"), data_dir=data)


def examined(config: Config) -> dict[str, Finding]:
    async def all_of_it() -> dict[str, Finding]:
        return {finding.name: finding async for finding in examine(config)}

    return asyncio.run(all_of_it())


def test_a_healthy_installation_has_no_fault(healthy) -> None:
    found = examined(healthy)
    assert list(found) == ["configuration", "broker", "agent", "model", "engine", "disk", "memory", "answer"]
    assert [each for each in found.values() if not each.ok] == []
    assert "shared subscriptions" in found["broker"].detail
    assert "5 tokens" in found["answer"].detail
    assert found["agent"].remedy == "edge-agent run starts it"


def test_a_broker_that_is_not_there_is_the_fault_and_hides_nothing_else(healthy) -> None:
    found = examined(replace(healthy, broker=Broker(port=free_port())))
    assert (found["broker"].ok, "agent" in found, found["answer"].ok) == (False, False, True)
    assert "Connection refused" in found["broker"].detail
    assert found["broker"].remedy


def test_a_broker_that_never_answers_is_a_fault(healthy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Broker(port=silent.getsockname()[1], timeout_s=1.0, protocol="5")
        assert not examined(replace(healthy, broker=broker))["broker"].ok


def test_a_model_that_is_not_here_comes_with_the_command_that_fetches_it(healthy, tmp_path) -> None:
    found = examined(replace(healthy, engine=Engine("openvino"), data_dir=tmp_path))
    assert found["model"] == Finding(
        "model", False, "smollm2-135m is not here, or has changed", "edge-agent download smollm2-135m"
    )
    assert "answer" not in found


def test_without_its_card_an_engine_is_not_asked_for_an_answer(healthy, tmp_path) -> None:
    found = examined(replace(healthy, engine=Engine("axera"), model=str(tmp_path)))
    assert (found["card"].ok, "on the PCI bus" in found["card"].detail) == (False, True)
    assert "tokenizer.json" in found["model files"].detail
    assert "answer" not in found


def test_an_engine_that_cannot_be_loaded_is_named(healthy) -> None:
    found = examined(replace(healthy, engine=Engine("no.such.module:Engine")))
    assert not found["engine"].ok
    assert "no.such.module:Engine" in found["engine"].detail
    assert "answer" not in found


def test_an_engine_that_does_not_answer_is_a_fault(healthy) -> None:
    broken = Engine("echo", {"rules": [{"fail": "out of order"}]})
    found = examined(replace(healthy, engine=broken))["answer"]
    assert (found.ok, "out of order" in found.detail) == (False, True)


def test_an_engine_that_hangs_is_a_fault(healthy) -> None:
    hanging = Engine("echo", {"rules": [{"hang_after": 0}]}, start_s=1.0)
    assert not examined(replace(healthy, engine=hanging))["answer"].ok


def test_too_small_a_machine_is_a_fault(healthy, tmp_path) -> None:
    model = tmp_path / "huge.gguf"
    with model.open("wb") as file:
        file.truncate(1 << 43)  # 8 TiB of nothing.
    found = examined(replace(healthy, engine=Engine("openvino"), model=str(model)))
    assert (found["disk"].ok, found["memory"].ok) == (False, False)
    assert found["memory"].remedy == "choose a smaller model"


def test_the_report_is_for_people_and_for_programs(healthy, tmp_path, capsys) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(f"engine: {{name: echo}}\nbroker: {{port: {healthy.broker.port}}}\ndata_dir: {tmp_path}\n")
    assert main(["doctor", "--config", str(file)]) == 0
    assert "✓ broker" in capsys.readouterr().out
    file.write_text(f"engine: {{name: echo}}\nbroker: {{port: {free_port()}}}\ndata_dir: {tmp_path}\n")
    assert main(["doctor", "--json", "--config", str(file)]) == 1
    report = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (report["broker"]["ok"], Path(report["configuration"]["detail"])) == (False, file)


@pytest.mark.parametrize(("ok", "remedy", "mark"), [(True, "", "✓"), (True, "do", "!"), (False, "do", "✗")])
def test_advice_and_faults_have_marks_of_their_own(ok, remedy, mark) -> None:
    shown = line(Finding("broker", ok, "detail", remedy))
    assert mark in shown
    assert shown.count("→ do") == bool(remedy)
