"""The composition root: builds one node out of its configuration, runs it, and takes it down in good order."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent import __version__, resident
from edge_agent.chat import named
from edge_agent.chat.named import NamedTemplate
from edge_agent.config import Config
from edge_agent.doors.mqtt import MqttDoor, Node
from edge_agent.doors.mqtt.admin import Operations
from edge_agent.engines.base import Engine
from edge_agent.errors import ConfigError, ModelError, OperatorError, first
from edge_agent.memory import resident_bytes
from edge_agent.models import download
from edge_agent.models.catalogue import Entry
from edge_agent.notify import Notifier
from edge_agent.serving.backlog import Backlog
from edge_agent.serving.scheduler import Job, Scheduler
from edge_agent.serving.supervisor import Patience, Phase, Supervisor
from edge_agent.serving.turn import Rules
from edge_agent.wire import Info, State

_LOG = logging.getLogger(__name__)
_GOODBYE_S: Final = 5.0
_CLOSING_S: Final = 40.0
"""An engine is closed, the broker hears goodbye: what every phase and every stop may take besides its own time."""
_LIMITS: Final = ("request_bytes", "chunk_bytes", "final_bytes", "max_tokens", "timeout_s", "max_timeout_s")
_CAPABILITIES: Final = ("constrained", "logprobs", "parallel", "prefix_cache", "scores")
_MEMORY_STEP: Final = 16 << 20
"""Memory is announced in steps, so that a quiet node keeps quiet."""


class App:
    """One node. `run` serves until `stop` is called, a signal comes or its broker name turns out to be taken."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self.config = config
        self.boot = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(2)}"  # Sorts by time for `Presence`.
        self._stopping = asyncio.Event()
        self._failure: OperatorError | None = None
        self._model, self._engine = resident.name(config), resident.engine_name(config)
        self._systemd, self._told, self._percent = Notifier(environ), Phase.LOADING, 0
        patience = Patience(config.engine.start_s, config.engine.restarts, config.engine.restart_window_s)
        self._patience = dataclasses.replace(patience, health_s=self._systemd.interval_s(patience.health_s))
        self.supervisor = Supervisor(self._create, config.template, self._patience, self._engine_changed)
        self.scheduler = Scheduler(
            Backlog[Job](config.backlog.size, config.backlog.per_client),
            self.supervisor,
            Rules(config.limits.max_tokens, config.engine.stall_s),
            self._changed,
        )
        node = Node(config.node, self.boot, self._model, self._phase, self._room, self._describe)
        operations = Operations(self._reload, self.scheduler.refuse, self.stop, lambda: public(config))
        self.door = MqttDoor(config, node, self.scheduler, _named(config.templates), operations)

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve; raises `OperatorError` for what only a person can mend. `started` is called once signals are heard."""
        self._report()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            async with asyncio.TaskGroup() as house:
                keeper = house.create_task(self._keep(), name="supervisor")
                server = house.create_task(self.scheduler.run(), name="scheduler")
                door = house.create_task(self.door.run(), name="mqtt door")
                started()
                await self._stopping.wait()
                await self.scheduler.drain(self.config.limits.drain_s)
                self.door.close()
                if self.door.connected.is_set():  # A broker that is away hears no goodbye: the last will speaks for us.
                    await asyncio.wait([door], timeout=_GOODBYE_S)
                for task in (door, server, keeper):
                    task.cancel()
        except* OperatorError as group:
            self._failure = first(group)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Drain, say goodbye and end `run`; the second time, without patience for what still runs."""
        if self._stopping.is_set():
            self.scheduler.halt()
        elif running := self.scheduler.running:
            _LOG.info("stopping; %d answers may take %g s, or stop again", running, self.config.limits.drain_s)
        else:
            _LOG.info("stopping")
        self._systemd.stopping("stopping", self.config.limits.drain_s + _CLOSING_S)
        self._stopping.set()

    def _reload(self) -> None:
        """Load the model anew, and take requests again after a drain."""
        self.scheduler.admit()
        self.supervisor.reload()

    async def _keep(self) -> None:
        """Keep the engine; a configuration that cannot be run ends the node, in good order."""
        try:
            await self.supervisor.run()
        except ConfigError as error:
            self._failure = error
            self.stop()

    async def _create(self) -> Engine:
        _LOG.info("loading %s", self._model)
        return resident.engine(self.config, await asyncio.to_thread(self._fetch))

    def _fetch(self) -> Path | None:
        model = resident.model(self.config)
        return download.ensure(model, self.config.data_dir, self._going_on) if isinstance(model, Entry) else model

    def _going_on(self, done: int, total: int) -> None:
        """Call off a download once the node is to stop; one that gets on may take its time."""
        if self._stopping.is_set():
            raise ModelError("the node was stopped while its model was being fetched")
        percent, self._percent = self._percent, 100 * done // total if total else 0
        if self._percent > percent:
            self._systemd.busy(f"fetching {self._model}, {self._percent} %", self._bound_s())

    def _phase(self) -> str:
        return "draining" if self.scheduler.draining else self.supervisor.phase.announced

    def _room(self) -> int:
        return self.scheduler.backlog.room if self._phase() == "ready" else 0

    def _describe(self, shared: bool) -> tuple[State, Info | None]:
        scheduler, meter = self.scheduler, self.scheduler.meter
        memory = resident_bytes() + self.supervisor.health.memory
        state = State(
            boot=self.boot,
            phase=self._phase(),
            why=self.supervisor.why,
            running=scheduler.running,
            queued=len(scheduler.backlog),
            room=self._room(),
            read_tps=_figures(meter.read_tps),
            write_tps=_figures(meter.write_tps),
            first_token_s=_figures(meter.first_token_s),
            cache_hits=round(meter.cache_hits, 2),
            memory=memory - memory % _MEMORY_STEP,
            pool="shared" if shared else "alone",
        )
        return state, self._card()

    def _card(self) -> Info | None:
        loaded, limits = self.supervisor.loaded, self.config.limits
        if loaded is None:
            return None
        can = loaded.engine.capabilities
        return Info(
            node=self.config.node,
            software=__version__,
            model=self._model,
            engine=self._engine,
            template=loaded.template_name,
            context=can.context,
            limits={name: getattr(limits, name) for name in _LIMITS},
            capabilities={name: getattr(can, name) for name in _CAPABILITIES},
        )

    def _changed(self) -> None:
        self.door.changed()

    def _engine_changed(self) -> None:
        self.scheduler.wake()
        self._report()

    def _report(self) -> None:
        """Tell systemd of a move, and of a look that found the engine well: nothing else feeds its watchdog."""
        phase, why, before = self.supervisor.phase, self.supervisor.why, self._told
        self._told = phase
        if phase is not Phase.READY:
            self._systemd.busy(f"{phase.announced} {self._model}" + (f": {why}" if why else ""), self._bound_s())
        elif before is not Phase.READY:
            self._systemd.ready(f"ready: {self._model}")
        elif self.supervisor.health.ok:
            self._systemd.well()

    def _bound_s(self) -> float | None:
        """How long the supervisor may be busy before its next move; a failed engine may wait for a person."""
        if self.supervisor.phase is Phase.FAILED:
            return None
        return self._patience.backoff_max_s + self._patience.start_s + _CLOSING_S


def public(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON, without what is secret."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value) if each.repr}
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    shown: dict[str, Any] = plain(config)
    return shown


def _named(templates: Mapping[str, Any]) -> dict[str, NamedTemplate]:
    return {name: named.build(name, body) for name, body in templates.items()}


def _figures(value: float) -> float:
    """Two significant figures: what a node measures of itself is no better than that, and changes less often."""
    return float(f"{value:.2g}")
