"""A scheduler with its supervisor and the echo engine, on the virtual clock."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edge_agent.chat.request import parse
from edge_agent.engines.base import Engine
from edge_agent.engines.echo import EchoEngine
from edge_agent.envelope import decode_edge
from edge_agent.serving.backlog import Backlog, Key
from edge_agent.serving.events import Delta, Done, Event, Failed
from edge_agent.serving.scheduler import Job, Scheduler
from edge_agent.serving.supervisor import Patience, Supervisor
from edge_agent.serving.turn import Rules
from edge_agent.wire import WireError


class House:
    """Serving, and what it said of each request."""

    def __init__(self, create: Callable[[], Engine], size: int, share: int, rules: Rules, patience: Patience) -> None:
        async def made() -> Engine:
            return create()

        self.events: defaultdict[str, list[Event]] = defaultdict(list)
        self.changed = asyncio.Event()
        self.supervisor = Supervisor(made, None, patience, self._engine_changed)
        self.scheduler = Scheduler(Backlog[Job](size, share), self.supervisor, rules, self.changed.set)
        self.order: list[str] = []
        self._rids = map(str, itertools.count(1))

    def _engine_changed(self) -> None:
        self.scheduler.wake()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(3600):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def ask(self, text: str, *, client: str = "anna", timeout_s: float = 600.0, edge: Any = None, **body: Any) -> Key:
        """Submit a request; its key is what the other methods take."""
        key = (client, next(self._rids))
        body = {"messages": [{"role": "user", "content": text}], **body}
        request = parse(body, decode_edge(edge))

        def heard(event: Event) -> None:
            if isinstance(event, Done | Failed):
                self.order.append(text)
            self.events[key[1]].append(event)
            self.changed.set()

        self.scheduler.submit(key, Job(request, heard), timeout_s)
        return key

    def of(self, key: Key, kind: type[Event]) -> list[Any]:
        return [event for event in self.events[key[1]] if isinstance(event, kind)]

    async def first(self, key: Key, kind: type[Event]) -> Any:
        await self.until(lambda: self.of(key, kind))
        return self.of(key, kind)[0]

    async def end(self, key: Key) -> Done | Failed:
        """The last event of a request; that there is one, and only one, is part of the promise."""
        await self.until(lambda: self.of(key, Done | Failed))
        [last] = self.of(key, Done | Failed)
        assert self.events[key[1]][-1] is last
        return last

    async def code(self, key: Key) -> str:
        end = await self.end(key)
        assert isinstance(end, Failed), end
        return end.error.code.name

    def text(self, key: Key) -> str:
        """What was streamed."""
        return "".join(delta.delta.get("content", "") for delta in self.of(key, Delta))

    def refused(self, text: str, **how: Any) -> WireError:
        with pytest.raises(WireError) as refusal:
            self.ask(text, **how)
        return refusal.value


@pytest.fixture
async def house(monkeypatch):
    """Open houses: `await house(engine options, …)`, ready unless told otherwise."""
    monkeypatch.setattr(time, "monotonic", asyncio.get_running_loop().time)
    tasks: list[asyncio.Task[None]] = []

    async def open_house(
        options: Mapping[str, Any] | None = None,
        *,
        create: Callable[[], Engine] | None = None,
        ready: bool = True,
        size: int = 32,
        share: int = 32,
        rules: Rules | None = None,
        patience: Patience | None = None,
    ) -> House:
        made = House(
            create or (lambda: EchoEngine({"parallel": 1, **(options or {})})),
            size,
            share,
            rules or Rules(),
            patience or Patience(),
        )
        made.tasks = [asyncio.create_task(made.supervisor.run()), asyncio.create_task(made.scheduler.run())]
        tasks.extend(made.tasks)
        if ready:
            await made.until(lambda: made.supervisor.loaded)
        return made

    yield open_house
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
