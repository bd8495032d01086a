"""Keeps the engine alive: starts it, watches it, restarts it with growing patience, and gives up when that is vain."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from edge_agent.chat.template import choose
from edge_agent.engines.base import Engine, Health
from edge_agent.errors import ConfigError, DeviceLost, EngineFailed, EngineStalled, OperatorError
from edge_agent.serving.turn import Loaded

_LOG = logging.getLogger(__name__)


class Phase(Enum):
    """The life of an engine."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    """Broken, and waiting to be started again: clients are told `loading`."""
    FAILED = "failed"

    @property
    def announced(self) -> str:
        """The phase as the wire names it."""
        return "loading" if self is Phase.RECOVERING else self.value


class Sign(Enum):
    """What moves an engine from phase to phase."""

    LOADED = "loaded"
    BROKE = "broke"
    RETRY = "retry"
    GAVE_UP = "gave up"


TRANSITIONS: Final[Mapping[tuple[Phase, Sign], Phase]] = MappingProxyType(
    {
        (Phase.LOADING, Sign.LOADED): Phase.READY,
        (Phase.LOADING, Sign.BROKE): Phase.RECOVERING,
        (Phase.READY, Sign.BROKE): Phase.RECOVERING,
        (Phase.READY, Sign.GAVE_UP): Phase.FAILED,
        (Phase.RECOVERING, Sign.RETRY): Phase.LOADING,
        (Phase.RECOVERING, Sign.GAVE_UP): Phase.FAILED,
        (Phase.LOADING, Sign.GAVE_UP): Phase.FAILED,
        (Phase.FAILED, Sign.RETRY): Phase.LOADING,
        (Phase.FAILED, Sign.LOADED): Phase.READY,
        (Phase.FAILED, Sign.BROKE): Phase.FAILED,
        (Phase.FAILED, Sign.GAVE_UP): Phase.FAILED,
    }
)


def brief(why: str) -> str:
    """The first line of a reason, bounded: what everybody may read, while the log has it whole."""
    return why.strip().partition("\n")[0][:256]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits for what. Seconds."""

    start_s: float = 600.0
    restarts: int = 5
    """More failures than this within the window, and the supervisor gives up."""
    window_s: float = 300.0
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    failed_s: float = 300.0
    """From giving up to the next try: a network or a disk may have come back."""
    health_s: float = 5.0
    """Between two looks at an engine; two bad ones in a row mean it has stalled."""


class Supervisor:
    """Owns the engine. `loaded` is the ready one, or None; `changed` is called after every move and every look.

    `template` is the operator's choice of chat template, None for the model's own.
    """

    def __init__(
        self,
        create: Callable[[], Awaitable[Engine]],
        template: str | None,
        patience: Patience,
        changed: Callable[[], None],
    ) -> None:
        self._create = create
        self._template = template
        self._patience = patience
        self._changed = changed
        self._failures: deque[float] = deque()
        self._broken: asyncio.Future[EngineFailed] | None = None
        self._ordered = asyncio.Event()
        self.phase = Phase.LOADING
        self.why = ""
        self.loaded: Loaded | None = None
        self.health = Health(ok=False)
        self.restarts = 0

    async def run(self) -> None:
        """Keep an engine running until cancelled; one that has failed is tried again now and then, or by `reload`.

        One whose device is lost waits for `reload`.
        """
        while True:
            self._ordered.clear()
            patience: float | None = self._patience.failed_s
            try:
                await self._live()
            except DeviceLost as error:
                self._move(Sign.GAVE_UP, error.message)
                patience = None  # To load a card that is wedged again and again does it no good.
            except OperatorError as error:
                self._move(Sign.GAVE_UP, str(error))
                if isinstance(error, ConfigError):
                    raise  # No patience mends a configuration.
            except EngineFailed as error:
                self._move(Sign.BROKE, error.message)
            except Exception as error:  # noqa: BLE001 - an engine from anywhere must not take the agent along
                _LOG.exception("the engine raised what no engine should")
                self._move(Sign.BROKE, f"{type(error).__name__}: {error}")
            if self.phase is Phase.RECOVERING:
                await self._recover()
            if self.phase is Phase.FAILED:
                await self._linger(patience)

    def broke(self, loaded: Loaded, error: EngineFailed) -> None:
        """Report that a turn saw this engine fail; the first report counts, and no other turn goes there."""
        if loaded is self.loaded and self._broken:
            self.loaded = None
            self._broken.set_result(error)

    def reload(self) -> None:
        """Close the engine and start a new one, as an operator asks; former failures are forgiven."""
        self._failures.clear()
        self._ordered.set()
        if self.loaded is not None:
            self.broke(self.loaded, EngineFailed("reloading", code="unavailable"))

    def unavailable(self) -> EngineFailed:
        """What to tell a request that cannot be served now."""
        retry = None if self.phase is Phase.FAILED else 2.0
        why = f": {self.why}" if self.why else ""
        return EngineFailed(f"the engine is {self.phase.announced}{why}", code="unavailable", retry_after_s=retry)

    async def _live(self) -> None:
        engine = await self._create()
        try:
            async with asyncio.timeout(self._patience.start_s):
                await engine.__aenter__()
        except TimeoutError:
            raise EngineStalled(f"not ready after {self._patience.start_s:g} s") from None
        try:
            self._broken = asyncio.get_running_loop().create_future()
            self.loaded = Loaded(engine, *choose(engine.dialect, self._template))
            self._move(Sign.LOADED)
            raise await self._watch(engine, self._broken)
        finally:
            self.loaded = None
            await engine.__aexit__(None, None, None)

    async def _watch(self, engine: Engine, broken: asyncio.Future[EngineFailed]) -> EngineFailed:
        bad = 0
        while True:
            self.health = await engine.health()
            if self.health.lost:
                return DeviceLost(self.health.detail)
            bad = 0 if self.health.ok else bad + 1
            if bad >= 2:
                return EngineStalled(self.health.detail or "the engine does not answer")
            self._changed()
            done, _ = await asyncio.wait([broken], timeout=self._patience.health_s if not bad else 1.0)
            if done:
                return broken.result()

    async def _linger(self, patience_s: float | None) -> None:
        """Stay failed for a while, or until an operator orders otherwise."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._ordered.wait()
                self._move(Sign.RETRY)

    async def _recover(self) -> None:
        now = time.monotonic()
        self._failures.append(now)
        self.restarts += 1
        while self._failures[0] < now - self._patience.window_s:
            self._failures.popleft()
        if len(self._failures) > self._patience.restarts:
            self._move(Sign.GAVE_UP, f"{len(self._failures)} failures in a row; the last: {self.why}")
            return
        delay = min(self._patience.backoff_s * 2 ** (len(self._failures) - 1), self._patience.backoff_max_s)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
        self._move(Sign.RETRY, self.why)

    def _move(self, sign: Sign, why: str = "") -> None:
        self.phase = TRANSITIONS[self.phase, sign]
        self.why = brief(why)
        level = {Sign.GAVE_UP: logging.ERROR, Sign.BROKE: logging.WARNING}.get(sign, logging.INFO)
        _LOG.log(level, "engine is %s", self.phase.value, extra={"why": why} if why else {})
        self._changed()
