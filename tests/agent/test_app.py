"""The composition root: what it announces, what it shows of its configuration, and how it fails."""

import asyncio
import json
from pathlib import Path

import pytest

from edge_agent.app import _CLOSING_S, _GOODBYE_S, App, public
from edge_agent.config.settings import schema
from edge_agent.engines import process
from edge_agent.engines.axera import console, engine
from edge_agent.errors import ConfigError
from edge_agent.serving.supervisor import Patience
from edge_agent.shipped import shipped


def config(**values):
    return schema()({"node": "kitchen", "engine": {"name": "echo"}, "broker": {"port": 1}, **values})


def test_boots_sort_by_time(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    earlier = App(config()).boot
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_001_000_000)
    assert earlier < App(config()).boot


def test_the_configuration_is_shown_as_json_without_secrets():
    secret = {"port": 1, "username": "kit", "password": "hush"}
    shown = json.dumps(public(config(broker=secret, data_dir="/srv", engine={"name": "echo", "options": {"a": "key"}})))
    assert "hush" not in shown
    assert '"key"' not in shown
    values = json.loads(shown)
    assert (values["broker"]["username"], values["data_dir"]) == ("kit", "/srv")
    assert values["admin"]["clients"] == []


def test_an_engine_without_a_model_is_announced_by_its_own_name():
    assert App(config()).door._sender.model == "echo"
    assert App(config(model="/models/tiny.gguf", engine={"name": "openvino"})).door._sender.model == "tiny"


def test_systemd_waits_for_the_longest_good_stop():
    unit = shipped("systemd/edge-agent.service").read_text()
    longest = config().limits.drain_s + process.CANCEL_S + _GOODBYE_S + 2 * process.STOP_S
    assert int(unit.partition("TimeoutStopSec=")[2].split()[0]) > longest


async def test_a_fault_for_the_operator_comes_out_as_itself(monkeypatch):
    app = App(config())

    async def taken():
        raise ConfigError("the one line")

    monkeypatch.setattr(app.door, "run", taken)
    with pytest.raises(ConfigError, match="the one line"):
        await app.run()


async def test_a_configuration_that_the_engine_refuses_ends_the_node():
    with pytest.raises(ConfigError, match=r"read_tsp"):
        await App(config(engine={"name": "echo", "options": {"read_tsp": 1}})).run()


async def test_it_can_be_stopped_before_a_broker_was_ever_there(monkeypatch):
    monkeypatch.setattr("edge_agent.app._GOODBYE_S", 0.05)
    app = App(config(data_dir=str(Path.cwd())))
    await app.run(started=app.stop)
    assert asyncio.current_task() in asyncio.all_tasks()
    assert len(asyncio.all_tasks()) == 1


def test_the_watchdog_waits_longer_than_the_supervisor_takes_to_see_an_ill_engine_and_close_it():
    unit = shipped("systemd/edge-agent.service").read_text()
    patience = Patience()
    seen = patience.health_s + process.HEALTH_S + 1 + process.HEALTH_S
    closed = max(process.CANCEL_S + 2 * process.STOP_S, engine.STOP_RUN_S + sum(wait for _, wait in console.STOP_S))
    assert int(unit.partition("WatchdogSec=")[2].split()[0]) > seen + closed
    assert closed + _GOODBYE_S < _CLOSING_S
