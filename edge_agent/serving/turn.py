"""One request being answered: render the prompt, drive the engine, read its text for calls and stops, tell the door."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from edge_agent.chat import constraint as constraints
from edge_agent.chat import tools
from edge_agent.chat.request import ChatRequest, Message, ToolCall
from edge_agent.chat.stops import StopFinder
from edge_agent.chat.template import ChatTemplate
from edge_agent.chat.trim import drop_oldest, droppable
from edge_agent.engines.base import Engine, FinishReason, Piece, Prompt, Sampling, Usage
from edge_agent.errors import ContextOverflow, EngineStalled, Unsupported
from edge_agent.serving.events import Delta, Done, Emit, Progress, Timings
from edge_agent.serving.meter import Meter
from edge_agent.wire import WireError

_Logprobs = tuple[Mapping[str, Any], ...]
_Tell = Callable[[Mapping[str, Any], _Logprobs], None]
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine that is ready, and the chat template its model is spoken to with."""

    engine: Engine
    template_name: str
    template: ChatTemplate


@dataclass(frozen=True, slots=True)
class Rules:
    """What the node's configuration says about every turn."""

    max_tokens: int = 512
    """Tokens to write when a request does not say."""
    stall_s: float = 60.0
    """An engine that neither reads nor writes for so long has stalled."""


class Turn:
    """Answers one request once. `deadline` is on the monotonic clock."""

    def __init__(self, request: ChatRequest, rules: Rules, meter: Meter, emit: Emit, deadline: float) -> None:
        self.request = request
        self.produced = False
        """Whether the client has been told any of the answer, as streams are: another try would repeat it."""
        self._rules = rules
        self._meter = meter
        self._emit = emit
        self._deadline = deadline

    async def run(self, loaded: Loaded) -> Done:
        """Answer the request on this engine; raises `WireError` for every way in which it fails."""
        match self.request.edge.op:
            case "prepare":
                prompt = self._render(loaded, self.request.messages, generate=False)
                return Done("", usage=await loaded.engine.prepare(prompt))
            case "score":
                return await self._score(loaded)
            case _:
                return await self._chat(loaded)

    async def _score(self, loaded: Loaded) -> Done:
        if not loaded.engine.capabilities.scores:
            raise Unsupported("this engine cannot score", param="edge.op")
        prompt = self._render(loaded, self.request.messages)
        choices = self.request.edge.choices
        logprobs = await loaded.engine.score(prompt, choices)
        best = max(logprobs)
        weights = [math.exp(logprob - best) for logprob in logprobs]
        scores = tuple(
            {"choice": choice, "logprob": logprob, "probability": weight / math.fsum(weights)}
            for choice, logprob, weight in zip(choices, logprobs, weights, strict=True)
        )
        usage = Usage(await loaded.engine.count(prompt))
        return Done(choices[logprobs.index(best)], usage=usage, scores=scores)

    async def _chat(self, loaded: Loaded) -> Done:
        request, engine = self.request, loaded.engine
        constraint = constraints.build(request)
        enforced = engine.capabilities.constrained
        sampling = Sampling(
            max_tokens=request.max_tokens or self._rules.max_tokens,
            logprobs=0 if request.logprobs is None or not engine.capabilities.logprobs else max(1, request.logprobs),
            constraint=constraint if enforced else None,
            **{name: getattr(request, name) for name in _SAMPLING},
        )
        if constraint and not enforced and constraint.calls is None:
            done = await self._checked(loaded, sampling)
        else:
            done = (await self._fitted(loaded, sampling, request.messages, self._tell)).done()
        return replace(done, ignored=self._ignored(engine))

    async def _checked(self, loaded: Loaded, sampling: Sampling) -> Done:
        """Let an engine that obeys no constraint write, hold its answer back and check it; it may try twice."""
        request, messages = self.request, self.request.messages
        for last in (False, True):
            told: list[tuple[Mapping[str, Any], _Logprobs]] = []
            answer = await self._fitted(loaded, sampling, messages, lambda *delta, told=told: told.append(delta))
            problem = constraints.violation(request, answer.raw)
            if not problem:
                break
            if last:
                raise Unsupported(f"the model's answer does not fit: {problem}", param="response_format")
            messages = (*messages, *constraints.repair(request, answer.raw, problem))
        done = answer.done()
        if not done.calls and (found := constraints.extract_json(done.content)) is not None:
            done, told = replace(done, content=found), [({"content": found}, ())]
        for delta in told:
            self._tell(*delta)
        return done

    async def _fitted(self, loaded: Loaded, sampling: Sampling, messages: Sequence[Message], tell: _Tell) -> _Answer:
        """Write an answer, dropping the oldest turns first if the request allows it and they do not fit."""
        try:
            return await self._write(loaded.engine, self._render(loaded, messages), sampling, tell)
        except ContextOverflow as overflow:
            if not self.request.edge.trim or not droppable(messages):
                raise
            shorter = await self._trimmed(loaded, messages, overflow.limit)
        return await self._write(loaded.engine, self._render(loaded, shorter), sampling, tell)

    async def _trimmed(self, loaded: Loaded, messages: Sequence[Message], limit: int) -> Sequence[Message]:
        """Drop as few turns as it takes; found by halving, for to render and count a long conversation takes time."""
        fewest, most = 1, droppable(messages)
        while fewest < most:
            middle = (fewest + most) // 2
            if await loaded.engine.count(self._render(loaded, drop_oldest(messages, middle))) > limit:
                fewest = middle + 1
            else:
                most = middle
            await asyncio.sleep(0)  # An engine may count without waiting for anything.
        return drop_oldest(messages, most)

    def _render(self, loaded: Loaded, messages: Sequence[Message], *, generate: bool = True) -> Prompt:
        today = time.strftime("%Y-%m-%d")
        return loaded.template.render(messages, self.request.tools, generate=generate, today=today)

    async def _write(self, engine: Engine, prompt: Prompt, sampling: Sampling, tell: _Tell) -> _Answer:
        free = sampling.constraint is None or sampling.constraint.calls is not None
        thinking = free and prompt.text.rstrip().endswith("<think>")
        if thinking and sampling.constraint:
            sampling = replace(sampling, constraint=replace(sampling.constraint, thinking=True))
        answer = _Answer(self.request, tell, thinking=thinking)
        loop, stall_s = asyncio.get_running_loop(), self._rules.stall_s
        try:
            async with aclosing(engine.generate(prompt, sampling)) as pieces, asyncio.timeout(stall_s) as guard:
                async for piece in pieces:
                    guard.reschedule(loop.time() + stall_s)
                    if piece.read is not None and piece.usage is not None:
                        self._reading(piece.read, piece.usage)
                    if answer.take(piece):
                        break
        except TimeoutError:
            raise EngineStalled(f"the engine neither read nor wrote for {stall_s:g} s") from None
        answer.end()
        return answer

    def _reading(self, read: int, usage: Usage) -> None:
        left = usage.prompt - max(read, usage.cached)
        if time.monotonic() + self._meter.reading_s(left) > self._deadline:
            raise WireError("expired", f"reading {left} more tokens takes longer than the deadline allows")
        self._emit(Progress(read, usage.prompt))

    def _tell(self, delta: Mapping[str, Any], logprobs: _Logprobs = ()) -> None:
        self.produced = self.request.stream
        self._emit(Delta(delta, logprobs))

    def _ignored(self, engine: Engine) -> tuple[str, ...]:
        asked = [name for name in _SAMPLING if getattr(self.request, name) is not None]
        deaf = [name for name in asked if name in engine.capabilities.ignores]
        if self.request.logprobs is not None and not engine.capabilities.logprobs:
            deaf.append("logprobs")
        return (*self.request.ignored, *deaf)


class _Answer:
    """What the engine has written so far: counted, searched for stops, read for reasoning and calls."""

    def __init__(self, request: ChatRequest, tell: _Tell, *, thinking: bool) -> None:
        callable_tools = () if request.tool_choice == "none" else [tool.name for tool in request.tools]
        forced = request.tool_choice if request.tool_choice in callable_tools else None
        self._tell = tell
        self._stops = StopFinder(request.stop)
        self._parser = tools.AnswerParser(callable_tools, forced=forced, thinking=thinking)
        self._one_call = not request.parallel_tool_calls
        self._complete = False
        self._text: list[str] = ["<think>"] if thinking else []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._untold: list[Mapping[str, Any]] = []
        self._finish: FinishReason = "stop"
        self._usage = Usage(0)
        self._written = 0
        self._started = self._first = self._last = time.monotonic()

    @property
    def raw(self) -> str:
        """All that was written, reasoning and calls included."""
        return "".join(self._text)

    def take(self, piece: Piece) -> bool:
        """Take in one piece; True when the answer is complete."""
        if piece.usage is not None:
            self._usage = piece.usage
        if piece.tokens:
            self._last = time.monotonic()
            if not self._written:
                self._first = self._last
            self._written += piece.tokens
        self._untold.extend(piece.logprobs)
        text, stopped = self._stops.feed(piece.text) if piece.text else ("", False)
        if piece.finish and not stopped:
            text += self._stops.flush()
            self._finish = piece.finish
        if text:
            self._text.append(text)
            self._read(self._parser.feed(text))
        return self._complete or stopped or piece.finish is not None

    def end(self) -> None:
        """Give out what was held back."""
        self._read(self._parser.finish())
        self._logprobs.extend(self._untold)

    def done(self) -> Done:
        writing = self._last - self._first
        return Done(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            calls=tuple(ToolCall(id_, name, "".join(parts)) for id_, name, parts in self._calls),
            finish_reason="tool_calls" if self._calls else self._finish,
            usage=replace(self._usage, completion=self._written),
            timings=Timings(
                first_token_s=self._first - self._started,
                total_s=self._last - self._started,
                write_tps=(self._written - 1) / writing if self._written > 1 and writing > 0 else 0.0,
            ),
            logprobs=tuple(self._logprobs),
        )

    def _read(self, events: Iterable[tools.Event]) -> None:
        for event in events:
            if self._complete:
                return
            match event:
                case tools.Text(text):
                    self._content.append(text)
                    self._say({"content": text})
                case tools.Reasoning(text):
                    self._reasoning.append(text)
                    self._say({"reasoning_content": text})
                case tools.CallStart(index, name):
                    id_ = f"call_{secrets.token_hex(8)}"
                    self._calls.append((id_, name, []))
                    function = {"name": name, "arguments": ""}
                    self._say({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]})
                case tools.CallArguments(index, fragment):
                    self._calls[index][2].append(fragment)
                    self._say({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]})
                case tools.CallEnd():
                    self._complete = self._one_call

    def _say(self, delta: Mapping[str, Any]) -> None:
        told, self._untold = tuple(self._untold), []
        self._logprobs.extend(told)
        self._tell(delta, told)
