"""The engine: options and loading, prompts to runs of the console program, runs to pieces."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Any, Final, Self

import voluptuous as vol

from edge_agent.engines.axera import faults, program
from edge_agent.engines.axera.console import Console
from edge_agent.engines.axera.run import GROUP, Run
from edge_agent.engines.axera.stream import Event, Line, Mark, Ran
from edge_agent.engines.axera.tokenizer_address import TokenizerAddress
from edge_agent.engines.base import Capabilities, Dialect, Health, Piece, Prompt, Sampling, Segment, Usage
from edge_agent.engines.options import checked
from edge_agent.errors import ContextOverflow, DeviceLost, EngineFailed, EngineStalled, ModelError, Unsupported
from edge_agent.memory import resident_bytes
from edge_agent.models.tokenizer import Tokenizer

PROGRESS_S: Final = 1.0
FIRST_S: Final = 0.01
AGAIN_S: Final = 0.1
"""SIGINT is sent again until the prompt mark, soon and then less often: one that comes before a run begins is lost."""
STOP_RUN_S: Final = 10.0
_ASK_S: Final = 10.0
"""A program at its prompt takes a line at once; one that does not in this time hangs."""
_LOADING_S: Final = 14.0
"""A program that is killed while it loads may leave a wedged card: it gets so much more time to come to its prompt."""
_STRAY_MARKS: Final = 32
_PROBE: Final = "The quick brown fox jumps over the lazy dog."
_READ_TPS: Final = 14.0
_WEIGHT: Final = 0.3

_whole = vol.All(int, vol.Range(min=1))
_number = vol.All(vol.Coerce(float), vol.Range(min=0))
_OPTIONS: Final = vol.Schema(
    {
        vol.Required("model"): vol.All(str, vol.Length(min=1)),
        vol.Optional("binary", default=None): vol.Any(None, str),
        vol.Optional("variant", default=None): vol.Any(None, "console", "context"),
        vol.Optional("tokenizer", default=None): vol.Any(None, str),
        vol.Optional("flags", default=dict): {str: vol.Any(str, int)},
        vol.Optional("environment", default=dict): {str: str},
        vol.Optional("context", default=1024): vol.All(int, vol.Range(min=16, max=1 << 20)),
        vol.Optional("port", default=12345): vol.All(int, vol.Range(min=0, max=65535)),
        vol.Optional("load_s", default=180.0): _number,
        vol.Optional("silence_s", default=30.0): _number,
        "cache_dir": str,  # What every engine that loads a model is told; this one caches nothing.
        vol.Optional("temperature", default=0.0): _number,
        vol.Optional("top_k", default=10): _whole,
        vol.Optional("top_p", default=None): vol.Any(None, vol.All(vol.Coerce(float), vol.Range(min=0, max=1))),
        vol.Optional("repetition_penalty", default=None): vol.Any(None, _number),
        vol.Optional("penalty_window", default=20): _whole,
    }
)


class AxeraEngine:
    """Options: `model` (the folder as it is downloaded) and how its console program is run.

    `binary`, `tokenizer` and `flags` (by name) in place of what the folder suggests, `variant` (`console` or
    `context`), `environment` on top of the agent's, `context` as the model was compiled, `port` of the tokenizer
    address, `load_s` for the start, `silence_s` after which a run that does nothing has stalled. Sampling is fixed for
    the program's life: `temperature` (0, the default, is greedy), `top_k`, `top_p`, `repetition_penalty`,
    `penalty_window`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options = checked(_OPTIONS, options)
        sampling = {"temperature", "top_p", "top_k", "seed"}
        penalties = {f"{name}_penalty" for name in ("repetition", "presence", "frequency")}
        self.capabilities = Capabilities(context=options["context"], ignores=frozenset(sampling | penalties))
        self.read_tps = self.write_tps = 0.0
        """Tokens a second, as measured; the program says nothing while it reads."""
        self._slot = asyncio.Lock()
        self._idle = asyncio.Event()
        self._run: Run | None = None
        self._failure: EngineFailed | ModelError | None = EngineFailed("the engine is not started", code="unavailable")
        self._strays = 0
        self._watch = faults.Watch()

    @property
    def dialect(self) -> Dialect:
        facts = self._tokenizer.facts
        return Dialect(template=facts.template, specials=self._tokenizer.specials, bos=facts.bos, eos=facts.eos)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._marked: asyncio.Future[None] = self._loop.create_future()
        await asyncio.to_thread(self._load)
        self._console = Console(self._hear, self._ended)
        self._folder = tempfile.TemporaryDirectory(prefix="axera-")
        self._address.open()
        try:
            await self._start(Path(self._folder.name))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        loaded = self._marked.done()
        self._fail(EngineFailed("the engine was stopped"))
        if loaded:  # A run must end before `q` is read; at the prompt this does no harm.
            self._console.send(SIGINT)
        await self._console.stop(0.0 if loaded else _LOADING_S)
        await asyncio.to_thread(self._address.close)
        self._folder.cleanup()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        if sampling.constraint is not None:
            raise Unsupported("this engine cannot constrain what it writes", param=sampling.constraint.param)
        ids = self._fitting(prompt)
        usage, written = Usage(len(ids)), 0
        decoder = self._tokenizer.decoder()
        room = min(sampling.max_tokens, self.capabilities.context - len(ids))
        async with self._turn(ids) as run:
            while not run.first and not run.over:
                run.changed.clear()
                yield Piece(read=self._estimate(run), usage=usage)
                await self._news(run)
            yield Piece(read=len(ids), usage=usage)
            while True:
                run.changed.clear()
                self._check()
                new, finish = run.take(room, self._ends)
                written += len(new)
                text = decoder.feed(new)
                if finish:
                    break
                if new:
                    yield Piece(text, tokens=len(new))
                await self._news(run)
            last = Usage(len(ids), 0, written)
            yield Piece(text + decoder.finish(), tokens=len(new), finish=finish, usage=last)

    async def prepare(self, prompt: Prompt) -> Usage:
        """Nothing stays resident, so nothing is run."""
        return Usage(len(self._fitting(prompt)))

    async def score(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:  # noqa: ARG002 - the seam's
        raise Unsupported("this engine does not weigh choices", param="edge.op")

    async def count(self, prompt: Prompt) -> int:
        return len(self._encode(prompt))

    async def health(self) -> Health:
        if self._failure:
            why = self._failure.message if isinstance(self._failure, EngineFailed) else str(self._failure)
            return Health(ok=False, detail=why, lost=isinstance(self._failure, DeviceLost))
        memory = 0
        with suppress(OSError):  # It may have died this moment.
            memory = resident_bytes(self._console.pid)
        return Health(
            ok=True,
            memory=memory,
            running=int(self._run is not None),
            read_tps=self.read_tps,
            write_tps=self.write_tps,
        )

    def _load(self) -> None:
        self._tokenizer = tokenizer = Tokenizer.load(program.tokenizer_files(self._options))
        eos = tokenizer.encode([(tokenizer.facts.eos, True)])
        if len(eos) != 1:
            raise ModelError(f"{self._options['model']} does not name the token that ends an answer; fetch it again")
        self._ends = tokenizer.facts.eos_ids | set(eos)
        self._program = program.find(self._options, tokenizer.size)
        uids = self._program.variant == "context"
        self._address = TokenizerAddress(eos[0], self._options["port"], uids=uids)

    async def _start(self, folder: Path) -> None:
        """Load the model and answer a token, or raise why not."""
        config = json.dumps(program.post_config(self._options), indent=4)
        (folder / "post_config.json").write_text(config, encoding="utf-8")
        self._failure = None
        command = self._program.command(self._address.url)
        await self._console.start(command, folder, program.environment(self._options["environment"]))
        try:
            async with asyncio.timeout(self._options["load_s"]):
                await self._marked
                self._idle.set()
                async with aclosing(self.generate(Prompt((Segment(_PROBE),)), Sampling(max_tokens=1))) as pieces:
                    async for _ in pieces:
                        pass
        except TimeoutError:
            raise EngineStalled(f"the console program was not ready after {self._options['load_s']:g} s") from None

    def _encode(self, prompt: Prompt) -> list[int]:
        return self._tokenizer.encode((segment.text, segment.control) for segment in prompt.segments)

    def _fitting(self, prompt: Prompt) -> list[int]:
        ids = self._encode(prompt)
        if len(ids) >= self.capabilities.context:
            raise ContextOverflow(len(ids), self.capabilities.context - 1)
        return ids

    @asynccontextmanager
    async def _turn(self, ids: Sequence[int]) -> AsyncIterator[Run]:
        """A run under way; left before its end it is stopped, and the program at its prompt when this returns."""
        async with self._slot:
            await self._idle.wait()  # Whoever was cancelled twice has not waited for it.
            self._check()
            if self._program.variant == "context":
                await self._forget()
            run = self._run = Run(ids, self._loop.time())
            self._idle.clear()
            self._watch.run()
            self._console.write(self._address.offer(ids, lambda written: self._called(run, written)))
            try:
                yield run
            finally:
                if not run.over:
                    run.stopped = self._loop.time()
                    self._interrupt(run)
                await self._idle.wait()

    async def _forget(self) -> None:
        """Have a program that remembers its conversation forget it: every prompt here is a whole one."""
        self._marked = self._loop.create_future()
        self._console.write("reset")
        try:
            async with asyncio.timeout(self._options["silence_s"]):
                await self._marked
        except TimeoutError:
            self._fail(EngineStalled("the console program does not forget its conversation"))
            self._check()

    async def _news(self, run: Run) -> None:
        """Wait until something happens, or for so long that there is progress to tell; raises what has failed."""
        try:
            async with asyncio.timeout(PROGRESS_S):
                await run.changed.wait()
        except TimeoutError:
            if self._loop.time() - run.heard > self._patience(run):
                doing = "writing" if run.first else "reading" if run.asked else "starting"
                self._fail(EngineStalled(f"the console program has fallen silent while {doing}"))
        self._check()

    def _patience(self, run: Run) -> float:
        """How long this run may be silent."""
        silence_s = float(self._options["silence_s"])
        if not run.asked:
            return min(silence_s, _ASK_S)
        return silence_s if run.first else silence_s + 2 * len(run.ids) / (self.read_tps or _READ_TPS)

    def _estimate(self, run: Run) -> int:
        """The prompt tokens read so far, judged by the speed of reading: nothing tells."""
        if not run.asked:
            return 0
        read = int((self._loop.time() - run.asked) * (self.read_tps or _READ_TPS))
        return min(read, len(run.ids) - 1)

    def _interrupt(self, run: Run, again_s: float = FIRST_S) -> None:
        """Send SIGINT, again and again until the prompt mark."""
        if run.over or run.stopped is None:
            return
        if self._loop.time() - run.stopped > STOP_RUN_S:
            self._fail(EngineStalled(f"the console program did not stop writing within {STOP_RUN_S:g} s"))
            self._console.send(SIGKILL)
            return
        self._console.send(SIGINT)
        self._loop.call_later(again_s, self._interrupt, run, min(2 * again_s, AGAIN_S))

    def _called(self, run: Run, written: Sequence[int] | None) -> None:
        """The program has called the tokenizer address: for the prompt, or with what it has written."""
        now = self._loop.time()
        if run.over:
            return
        if written is None:
            run.asked = run.asked or now
        elif not run.written.take(written):
            self._fail(EngineFailed("the console program contradicts itself about what it has written"))
        elif run.asked and not run.first:
            run.first = now
            if not run.stopped:
                self.read_tps = _blend(self.read_tps, len(run.ids) + GROUP - 1, now - run.asked)
        run.news(now)

    def _hear(self, event: Event) -> None:
        """The program has printed something."""
        run = self._run
        match event:
            case Line(text):
                if fault := self._watch.line(text):
                    self._fail(fault)
            case Ran() if run and run.asked:
                run.ran = True
            case Mark() if not self._marked.done():
                self._marked.set_result(None)
            case Mark() if run and run.asked:
                if run.ran or run.written.ended:
                    self._end(run)
                else:
                    self._fail(EngineFailed("the console program has given up a prompt without an answer"))
            case Mark():
                self._strays += 1
                if self._strays > _STRAY_MARKS:
                    self._fail(EngineFailed("the console program no longer waits for its input"))

    def _end(self, run: Run) -> None:
        self._run, self._strays = None, 0
        self._address.withdraw()
        run.over = True
        now = self._loop.time()
        if run.first and not run.stopped and len(run.written.ids) > GROUP:
            self.write_tps = _blend(self.write_tps, len(run.written.ids) - GROUP, now - run.first)
        run.news(now)
        self._idle.set()

    def _ended(self, code: int, last: Sequence[str]) -> None:
        self._fail(faults.ended(code, last))

    def _fail(self, error: EngineFailed | ModelError) -> None:
        """No turn gets any further; the first reason stays."""
        self._failure = self._failure or error
        if not self._marked.done():
            self._marked.set_exception(self._failure)
            self._marked.exception()  # Seen, also if nobody waits for it any more.
        if self._run:
            self._end(self._run)
        self._idle.set()

    def _check(self) -> None:
        if self._failure:
            raise self._failure.with_traceback(None)


def _blend(mean: float, tokens: int, seconds: float) -> float:
    speed = tokens / max(seconds, 1e-6)
    return mean + _WEIGHT * (speed - mean) if mean else speed
