"""The one thread that owns the pipeline: it steps while something runs, sleeps otherwise, and never meets asyncio."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino
import openvino_genai

from edge_agent.engines.base import FinishReason
from edge_agent.engines.openvino.residency import Reading, Residency
from edge_agent.errors import EngineFailed, RequestRefused, Unsupported
from edge_agent.wire import WireError

_LONG_S: Final = 0.1
_BREATH_S: Final = 0.002
"""A step holds the interpreter. After a long one the loop's thread is let in, to see to orders, pings and pieces: else
it gets in for a line or two between steps, and the engine seems dead while it reads."""
_NOTICE_S: Final = 1.0
_log = logging.getLogger(__name__)

_FINISH: Final[dict[Any, FinishReason]] = {
    openvino_genai.GenerationFinishReason.STOP: "stop",
    openvino_genai.GenerationFinishReason.LENGTH: "length",
}


@dataclass(frozen=True, slots=True)
class Output:
    """What one sequence gained in one step."""

    ids: list[int]
    logprobs: list[float]
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn gained in one step of the pipeline."""

    read: int
    cached: int
    outputs: tuple[Output, ...]
    ended: bool


class Turn:
    """One sequence group in the pipeline, seen from the event loop."""

    def __init__(self, ids: Sequence[int], config: Any) -> None:
        self.ids = list(ids)
        self.config = config
        self.steps: asyncio.Queue[Step | WireError] = asyncio.Queue()
        self.idle = asyncio.Event()
        self.handle: Any = None
        self.reading = Reading(len(self.ids), 0)
        self.open: int | None = None
        self.written: list[int] = []

    async def next(self) -> Step:
        """The next step; raises what ended the turn, `EngineFailed` only when the whole runtime did."""
        step = await self.steps.get()
        if isinstance(step, WireError):
            raise step
        return step


class Worker:
    """Runs turns; `submit` and `cancel` are called on the event loop, everything else happens on the thread."""

    def __init__(self, load: Callable[[], tuple[Any, Residency]], budget: int) -> None:
        self.running: dict[int, Turn] = {}
        self.held: list[Turn] = []
        self._budget = budget
        self._noticed = 0.0
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self.failure: str | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="openvino", daemon=True)

    @property
    def alive(self) -> bool:
        return self.failure is None and self._thread.is_alive()

    async def start(self) -> None:
        """Load on the thread; raises what loading raised."""
        self._thread.start()
        await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """End the thread and free the device; running turns fail."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, turn: Turn) -> None:
        self._inbox.put(lambda: self._add(turn))

    async def cancel(self, turn: Turn) -> None:
        """Stop a turn; returns when the pipeline has let go of it."""
        self._inbox.put(lambda: self._drop(turn))
        await turn.idle.wait()

    def _run(self) -> None:
        try:
            self._pipeline, self._residency = self._load()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits for `start` gets it
            self._post(functools.partial(self._ready.set_exception, error))
            return
        self._post(lambda: self._ready.set_result(None))
        going = True
        while going:
            try:
                going = self._take()
                if going and self._pipeline.has_non_finished_requests():
                    self._step()
            except Exception as error:  # noqa: BLE001 - no end of this thread may go unseen
                # After a failed step the pipeline refuses every other: only a new process helps.
                _log.exception("the runtime failed")
                self._fail(f"the runtime failed: {str(error).partition(chr(10))[0] or type(error).__name__}")
        self._fail("the engine was stopped")
        del self._pipeline

    def _take(self) -> bool:
        """Do what the event loop asks; wait for it only when there is nothing to step."""
        idle = bool(self.failure) or not self._pipeline.has_non_finished_requests()
        while True:
            try:
                order = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()
            idle = False

    def _add(self, turn: Turn) -> None:
        if self.failure:
            self._end(turn, EngineFailed(self.failure))
            return
        found = self._residency.lookup(turn.ids)
        turn.reading, turn.open = Reading(len(turn.ids), found.tokens), found.open
        if found.open is not None and any(other.open == found.open for other in self.running.values()):
            self.held.append(turn)  # See residency.py: side by side they would spoil each other.
            return
        number = next(self._numbers)
        try:
            tensor = openvino.Tensor(np.array([turn.ids], np.int64))
            turn.handle = self._pipeline.add_request(number, tensor, turn.config)
        except Exception:  # noqa: BLE001 - whatever the binding raises, nothing has run yet
            _log.exception("the runtime refused a request")
            self._end(turn, RequestRefused("the runtime refuses this request; the engine's log says why"))
        else:
            self.running[number] = turn

    def _drop(self, turn: Turn) -> None:
        if turn in self.held:
            self.held.remove(turn)
            self._end(turn, None)
        elif turn in self.running.values():
            turn.handle.cancel()
            self._end(turn, None)

    def _step(self) -> None:
        reading = [turn for turn in self.running.values() if not turn.written and turn.reading.wants]
        left = self._budget - (len(self.running) - len(reading))
        shares: dict[int, int] = {}
        for turn in reading:
            shares[id(turn)] = share = max(0, min(left, turn.reading.wants))
            left -= share
        began = time.monotonic()
        self._pipeline.step()
        gains = [(turn, self._collect(turn, shares.get(id(turn), 0))) for turn in list(self.running.values())]
        for turn, step in gains:
            if step.ended and not turn.written:
                self._end(turn, Unsupported("the engine's cache is too small for this request; raise its cache_gb"))
            elif step.ended:
                self._end(turn, step)
        if self.held and time.monotonic() - self._noticed >= _NOTICE_S:
            # They wait for a pipeline that does step: whoever watches over a stall must know.
            self._noticed = time.monotonic()
            gains += [(turn, Step(0, turn.reading.cached, (), ended=False)) for turn in self.held]
        self._post(functools.partial(_deliver, [(turn, step) for turn, step in gains if not step.ended]))
        if time.monotonic() - began > _LONG_S:
            time.sleep(_BREATH_S)

    def _collect(self, turn: Turn, share: int) -> Step:
        outputs = []
        while turn.handle.can_read():
            for output in turn.handle.read().values():
                finish = _FINISH.get(output.finish_reason)
                outputs.append(Output(list(output.generated_ids), list(output.generated_log_probs), finish))
        if not turn.written:
            turn.reading.step(share, wrote=bool(outputs))
        for output in outputs:
            turn.written += output.ids
        ended = turn.handle.get_status() != openvino_genai.GenerationStatus.RUNNING
        return Step(turn.reading.done, turn.reading.cached, tuple(outputs), ended)

    def _end(self, turn: Turn, last: Step | WireError | None) -> None:
        self.running = {number: other for number, other in self.running.items() if other is not turn}
        if turn.written and not turn.config.echo and turn.config.num_return_sequences == 1:
            self._residency.store([*turn.ids, *turn.written][:-1])  # The last token written is never read.
        elif turn.handle is not None:
            self._residency.store(turn.ids[: turn.reading.done])

        self._post(functools.partial(_tell, turn, last))
        waiting, self.held = self.held, []
        for other in waiting:
            self._add(other)

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why
        for turn in list(self.running.values()):
            self._end(turn, EngineFailed(why))

    def _post(self, call: Callable[[], Any]) -> None:
        self._loop.call_soon_threadsafe(call)


def _tell(turn: Turn, last: Step | WireError | None) -> None:
    if last is not None:
        turn.steps.put_nowait(last)
    turn.idle.set()


def _deliver(gains: list[tuple[Turn, Step]]) -> None:
    for turn, step in gains:
        turn.steps.put_nowait(step)
