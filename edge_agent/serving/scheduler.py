"""The only place where turns meet the engine: as many at once as it has slots, the rest in the backlog."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.chat.request import ChatRequest
from edge_agent.errors import DeviceLost, EngineFailed
from edge_agent.serving.backlog import Backlog, Key, Priority, Ticket
from edge_agent.serving.events import Accepted, Done, Emit, Failed, Queued
from edge_agent.serving.meter import Meter
from edge_agent.serving.supervisor import Phase, Supervisor, brief
from edge_agent.serving.turn import Loaded, Rules, Turn
from edge_agent.wire import WireError

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2
_NOTICE_S = 1.0
_TOKEN_BYTES = 4
"""Of a prompt, by and large; in any language, for scripts with long bytes have short words."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request and the door's ear for it."""

    request: ChatRequest
    emit: Emit


@dataclass(slots=True, eq=False)
class _Run:
    """A turn on the engine, and why it was stopped, if it was: told as its failure, or None to run it again."""

    ticket: Ticket[Job]
    task: asyncio.Task[None] | None = None
    started: bool = False
    stopped: bool = False
    verdict: WireError | None = None


class Scheduler:
    """Admits, runs, cancels and drains. `changed` is called whenever its counts do."""

    def __init__(
        self, backlog: Backlog[Job], supervisor: Supervisor, rules: Rules, changed: Callable[[], None]
    ) -> None:
        self.backlog = backlog
        self.meter = Meter()
        self.draining = False
        self._supervisor = supervisor
        self._rules = rules
        self._changed = changed
        self._running: dict[Key, _Run] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._noticed = 0.0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def slots(self) -> int:
        loaded = self._supervisor.loaded
        return loaded.engine.capabilities.parallel if loaded else 0

    def submit(self, key: Key, job: Job, timeout_s: float) -> None:
        """Admit a request, or raise the reason why not: draining, unavailable, busy, rate_limited or expired."""
        if self.draining:
            raise _stopping()
        if self._supervisor.phase is not Phase.READY and not self._recovering:
            raise self._supervisor.unavailable()
        if timeout_s <= 0:
            raise WireError("expired", "its deadline had passed when it came")
        now = time.monotonic()
        ticket = Ticket(key, job, _priority(job.request), now, now + timeout_s)
        self.backlog.offer(ticket, retry_after_s=round(max(1.0, self._wait_s(len(self.backlog))), 1))
        ticket.position = self.backlog.ahead_of(key) + max(0, self.running + 1 - self.slots)
        wait, reading = self._wait_s(ticket.position), self._reading_s(job.request)
        if wait + reading / 2 > timeout_s:  # Half: only the engine knows how many tokens there are.
            self.backlog.remove(key)
            why = f"about {wait + reading:.0f} s of work goes before its first word, the deadline is {timeout_s:g} s"
            raise WireError("expired", why)
        job.emit(Accepted(ticket.position, round(wait + reading, 2) or None))
        self.wake()

    def cancel(self, key: Key, verdict: WireError) -> bool:
        """Stop a request, waiting or running; it ends as `verdict`. False when it is not here."""
        if ticket := self.backlog.remove(key):
            self._end(ticket, Failed(verdict))
        elif run := self._running.get(key):
            self._stop(run, verdict)
        else:
            return False
        return True

    def wake(self) -> None:
        """Look at the backlog again: something changed."""
        self.meter.suppose(self._supervisor.health.read_tps, self._supervisor.health.write_tps)
        self._wake.set()
        self._changed()

    async def run(self) -> None:
        """Serve until cancelled; then every request here ends as `draining`."""
        try:
            async with asyncio.TaskGroup() as turns:
                while True:
                    self._wake.clear()
                    self._expire()
                    self._dispatch(turns)
                    self._notice()
                    try:
                        async with asyncio.timeout(self._patience()):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            self._refuse_waiting(_stopping())
            for run in self._running.values():  # Tasks that were cancelled before their first step.
                self._end(run.ticket, Failed(_stopping()))

    def refuse(self) -> None:
        """Admit nothing more and send away those waiting, so that they can go to another node."""
        self.draining = True
        self._refuse_waiting(_stopping())
        self._changed()

    async def drain(self, grace_s: float) -> None:
        """Stop admitting and wait until nothing runs; what still runs after the grace is stopped."""
        self.refuse()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            self.halt()
            await self._idle.wait()

    def halt(self) -> None:
        """Stop what runs, now."""
        for run in list(self._running.values()):
            self._stop(run, _stopping("the node stopped before the answer was complete"))

    def admit(self) -> None:
        """Take requests again after `refuse`."""
        self.draining = False
        self._changed()

    @property
    def _recovering(self) -> bool:
        """Whether a broken engine is being restarted: requests may wait for it, as those put back do."""
        return self._supervisor.restarts > 0 and self._supervisor.phase in (Phase.LOADING, Phase.RECOVERING)

    def _reading_s(self, request: ChatRequest) -> float:
        """Estimate how long an engine that keeps nothing resident reads before its first word; 0 for any other."""
        loaded = self._supervisor.loaded
        if loaded is None or loaded.engine.capabilities.prefix_cache or request.edge.op != "chat":
            return 0.0
        parts = [*(message.content for message in request.messages), *map(str, request.tools)]
        return self.meter.reading_s(sum(len(part.encode()) for part in parts) // _TOKEN_BYTES)

    def _wait_s(self, ahead: int) -> float:
        return self.meter.wait_s(ahead, self.slots)

    def _patience(self) -> float | None:
        """How long to wait for something to happen: a deadline passes, and those waiting are told their place."""
        deadline = self.backlog.next_deadline()
        return None if deadline is None else min(max(0.0, deadline - time.monotonic()), _NOTICE_S)

    def _expire(self) -> None:
        if self._supervisor.phase is Phase.FAILED:
            self._refuse_waiting(self._supervisor.unavailable())
        for ticket in self.backlog.expire(time.monotonic()):
            self._end(ticket, Failed(WireError("expired", "its deadline passed while it was waiting")))

    def _refuse_waiting(self, error: WireError) -> None:
        for ticket in self.backlog:
            self.backlog.remove(ticket.key)
            self._end(ticket, Failed(error))

    def _dispatch(self, turns: asyncio.TaskGroup) -> None:
        loaded = self._supervisor.loaded
        while loaded and (best := self.backlog.best()) is not None:
            if len(self._running) >= self.slots:
                self._preempt(best)
                return
            ticket = self.backlog.take()
            if ticket is None:
                return
            run = self._running[ticket.key] = _Run(ticket)
            self._idle.clear()
            run.task = turns.create_task(self._serve(run, loaded), name=f"turn {'/'.join(ticket.key)}")
            self._changed()

    def _preempt(self, best: Priority) -> None:
        """Interrupt a running `prepare`, which yields to any chat; what it has read stays read."""
        if best is not Priority.PREPARE:
            for run in self._running.values():
                if run.ticket.priority is Priority.PREPARE and not run.stopped:
                    self._stop(run, None)
                    return

    def _stop(self, run: _Run, verdict: WireError | None) -> None:
        run.verdict = run.verdict or verdict  # A `prepare` may be cancelled while it is being interrupted.
        if not run.stopped:
            run.stopped = True
            if run.started and run.task:  # Cancelled before its first step, a task would never reach its `finally`.
                run.task.cancel()

    def _notice(self) -> None:
        """Tell those waiting where they stand, at most once a second."""
        now = time.monotonic()
        if now - self._noticed < _NOTICE_S:
            return
        self._noticed = now
        busy = max(0, self.running + 1 - self.slots)
        for ticket, ahead in self.backlog.positions():
            if ahead + busy != ticket.position:
                ticket.position = ahead + busy
                wait = self._wait_s(ticket.position) + self._reading_s(ticket.job.request)
                ticket.job.emit(Queued(ticket.position, round(wait, 2) or None))

    async def _serve(self, run: _Run, loaded: Loaded) -> None:
        ticket, run.started = run.ticket, True
        outcome: Done | Failed | None = Failed(_stopping("the node stopped before the answer was complete"))
        try:
            if not run.stopped:
                outcome = await self._outcome(ticket, loaded)
        except asyncio.CancelledError:
            if not run.stopped:
                raise
        finally:
            if run.stopped:
                outcome = Failed(run.verdict) if run.verdict else None
            del self._running[ticket.key]
            if not self._running:
                self._idle.set()
            if outcome is None and not self.draining:
                self.backlog.put_back(ticket)
            else:
                self._end(ticket, outcome or Failed(_stopping()))
            self.wake()

    async def _outcome(self, ticket: Ticket[Job], loaded: Loaded) -> Done | Failed | None:
        """Run the turn; None when it is to be run again: the engine broke before the client was told anything."""
        started = time.monotonic()
        turn = Turn(ticket.job.request, self._rules, self.meter, ticket.job.emit, ticket.deadline)
        try:
            async with asyncio.timeout(ticket.deadline - started):
                return self._done(await turn.run(loaded), ticket, started)
        except TimeoutError:
            return Failed(WireError("expired", "its deadline passed before the answer was complete"))
        except EngineFailed as error:
            self._supervisor.broke(loaded, error)
            ticket.attempts += 1
            hope = ticket.attempts < _ATTEMPTS and not isinstance(error, DeviceLost)
            again = hope and not turn.produced and not self.draining
            told = EngineFailed(brief(error.message), code=error.code.name, retry_after_s=error.retry_after_s)
            return None if again else Failed(told)
        except WireError as error:
            return Failed(error)
        except Exception:  # noqa: BLE001 - the last word: a client is never left without an answer
            _LOG.exception("a turn failed", extra={"rid": ticket.key[1], "client": ticket.client})
            return Failed(WireError("internal", "the agent failed; its log says more"))

    def _done(self, done: Done, ticket: Ticket[Job], started: float) -> Done:
        now = time.monotonic()
        if ticket.job.request.edge.op == "chat":
            self.meter.record(done.usage, done.timings.first_token_s, done.timings.total_s)
        timings = replace(done.timings, queue_s=started - ticket.arrived, total_s=now - ticket.arrived)
        return replace(done, timings=timings)

    def _end(self, ticket: Ticket[Job], outcome: Done | Failed) -> None:
        ticket.job.emit(outcome)
        self._changed()


def _priority(request: ChatRequest) -> Priority:
    return Priority.PREPARE if request.edge.op == "prepare" else Priority[request.edge.priority.upper()]


def _stopping(message: str = "the node is stopping") -> WireError:
    return WireError("draining", message, retry_after_s=1.0)
