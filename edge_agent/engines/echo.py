"""The scripted engine: no model, deterministic, as fast or as slow as told. For tests, demos and benchmarks.

Its tokens are words of at most eight characters with the space before them; a longer word goes on in pieces of eight,
other white space stands alone. It answers with the last user message, unless a rule says otherwise.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Any, Final, Self

import voluptuous as vol

from edge_agent.engines.base import Capabilities, Dialect, FinishReason, Health, Piece, Prompt, Sampling, Usage
from edge_agent.engines.instance import instance
from edge_agent.engines.options import checked
from edge_agent.errors import ConfigError, ContextOverflow, EngineFailed, Unsupported

START, END, EOS = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_SPECIAL: Final = re.compile("|".join(map(re.escape, (START, END, EOS))))
_TOKEN: Final = re.compile(r" ?\S{1,8}|\s")
_CACHED_READS: Final = 16

_Token = tuple[str, bool]
"""A token's text and whether it is a special one."""


def _regex(value: Any) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except (re.error, TypeError) as error:
        raise vol.Invalid(f"not a regular expression: {error}") from error


_tokens = vol.All(int, vol.Range(min=0))
_rate = vol.All(vol.Coerce(float), vol.Range(min=0))
_RULE: Final = vol.Schema(
    {
        vol.Optional("match", default=""): _regex,
        "text": str,
        "fail": str,
        "fail_after": _tokens,
        "hang_after": _tokens,
        "crash_after": _tokens,
        "finish": vol.In(("stop", "length")),
    }
)
_OPTIONS: Final = vol.Schema(
    {
        vol.Optional("rules", default=list): [_RULE],
        vol.Optional("read_tps", default=0.0): _rate,
        vol.Optional("write_tps", default=0.0): _rate,
        vol.Optional("load_s", default=0.0): _rate,
        vol.Optional("context", default=4096): vol.All(int, vol.Range(min=2)),
        vol.Optional("parallel", default=4): vol.All(int, vol.Range(min=1)),
        vol.Optional("block", default=256): vol.All(int, vol.Range(min=1)),
        vol.Optional("prefix_cache", default=True): bool,
        vol.Optional("constrained", default=True): bool,
        vol.Optional("scores", default=True): bool,
    }
)


class EchoEngine:
    """Options: `rules`, `read_tps` and `write_tps` (tokens per second, 0 = at once), `load_s` and what it can do.

    A rule is the first whose `match` is found in the last user message. It writes `text` (by default the message), ends
    with `finish`, raises `fail` after `fail_after` tokens, or after so many tokens hangs or crashes the process.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options = checked(_OPTIONS, options)
        if any("crash_after" in rule for rule in options["rules"]) and "EDGE_AGENT_ENGINE_CHILD" not in os.environ:
            raise ConfigError("engine.options.rules: crash_after would end the agent; use it in a child process only")
        self.capabilities = Capabilities(
            context=options["context"],
            parallel=options["parallel"],
            constrained=options["constrained"],
            scores=options["scores"],
            prefix_cache=options["prefix_cache"],
            ignores=frozenset({"temperature", "top_p", "top_k", "seed"})
            | {f"{name}_penalty" for name in ("repetition", "presence", "frequency")},
        )
        self.dialect = Dialect(specials=(START, END, EOS), eos=END)
        self._slots = asyncio.Semaphore(options["parallel"])
        self._reads: deque[list[_Token]] = deque(maxlen=_CACHED_READS)
        self._running = 0

    async def __aenter__(self) -> Self:
        await asyncio.sleep(self._options["load_s"])
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._reads.clear()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        tokens = self._fitting(prompt)
        rule = self._rule(tokens)
        text = self._text(rule, sampling)
        room = min(sampling.max_tokens, self.capabilities.context - len(tokens))
        async with self._slot():
            usage = Usage(len(tokens), self._resident(tokens))
            async for done in self._read(tokens, usage.cached):
                yield Piece(read=done, usage=usage)
            words = _TOKEN.findall(text)
            written = 0
            async for word in self._write(words[:room], rule):
                written += 1
                yield Piece(word, tokens=1)
            self._remember([*tokens, *((word, False) for word in words[:written])])
        finish: FinishReason = rule.get("finish", "stop" if len(words) <= room else "length")
        yield Piece(finish=finish, usage=Usage(usage.prompt, usage.cached, written))

    async def prepare(self, prompt: Prompt) -> Usage:
        tokens = self._fitting(prompt)
        async with self._slot():
            usage = Usage(len(tokens), self._resident(tokens))
            async for _ in self._read(tokens, usage.cached):
                pass
        return usage

    async def score(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Prefer what the last user message contains; one share of the probability goes to everything else."""
        if not self.capabilities.scores:
            raise Unsupported("this engine does not weigh choices", param="edge.op")
        said = _last_user_text(self._fitting(prompt))
        weights = {choice: 10 if choice in said else 1 for choice in choices}
        return [math.log(weights[choice] / (sum(weights.values()) + 1)) for choice in choices]

    async def count(self, prompt: Prompt) -> int:
        return len(_tokenise(prompt))

    async def health(self) -> Health:
        return Health(ok=True, running=self._running)

    def _fitting(self, prompt: Prompt) -> list[_Token]:
        tokens = _tokenise(prompt)
        if len(tokens) >= self.capabilities.context:
            raise ContextOverflow(len(tokens), self.capabilities.context - 1)
        return tokens

    def _rule(self, tokens: list[_Token]) -> Mapping[str, Any]:
        said = _last_user_text(tokens)
        rule: Mapping[str, Any] = next((each for each in self._options["rules"] if each["match"].search(said)), {})
        return {"text": said, **rule}

    def _text(self, rule: Mapping[str, Any], sampling: Sampling) -> str:
        if sampling.constraint is None:
            return str(rule["text"])
        if not self.capabilities.constrained:
            raise Unsupported("this engine cannot constrain what it writes", param="response_format")
        return instance(sampling.constraint, rule["text"])

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._slots:
            self._running += 1
            try:
                yield
            finally:
                self._running -= 1

    async def _read(self, tokens: list[_Token], done: int) -> AsyncIterator[int]:
        yield done
        while done < len(tokens):
            step = min(self._options["block"], len(tokens) - done)
            await asyncio.sleep(step / self._options["read_tps"] if self._options["read_tps"] else 0)
            done += step
            self._remember(tokens[:done])
            yield done

    async def _write(self, words: list[str], rule: Mapping[str, Any]) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        pace = 1 / self._options["write_tps"] if self._options["write_tps"] else 0.0
        start = clock()
        for number, word in enumerate(words):
            await self._accident(number, rule)
            await asyncio.sleep(pace and max(0.0, start + (number + 1) * pace - clock()))
            yield word
        await self._accident(len(words), rule)

    async def _accident(self, written: int, rule: Mapping[str, Any]) -> None:
        if "fail" in rule and written == rule.get("fail_after", 0):
            raise EngineFailed(rule["fail"])
        if written == rule.get("crash_after"):
            os._exit(3)
        if written == rule.get("hang_after"):
            await asyncio.get_running_loop().create_future()

    def _resident(self, tokens: list[_Token]) -> int:
        return max((_shared(tokens, read) for read in self._reads), default=0)

    def _remember(self, tokens: list[_Token]) -> None:
        """Keep what was read or written, in place of what it continues."""
        if not self.capabilities.prefix_cache:
            return
        if self._reads and _shared(tokens, self._reads[-1]) == len(self._reads[-1]):
            self._reads.pop()
        self._reads.append(tokens)


def _tokenise(prompt: Prompt) -> list[_Token]:
    tokens: list[_Token] = []
    plain = ""
    for special, text in _stretches(prompt):
        if special:
            tokens += [(word, False) for word in _TOKEN.findall(plain)]
            tokens.append((text, True))
            plain = ""
        else:
            plain += text
    return tokens + [(word, False) for word in _TOKEN.findall(plain)]


def _stretches(prompt: Prompt) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    for segment in prompt.segments:
        end = 0
        for mark in _SPECIAL.finditer(segment.text) if segment.control else ():
            found += [(False, segment.text[end : mark.start()]), (True, mark[0])]
            end = mark.end()
        found.append((False, segment.text[end:]))
    return found


def _last_user_text(tokens: list[_Token]) -> str:
    """What stands between the last `<|im_start|>user` and the next special token; without any, everything."""
    marks, turns = [""], [""]
    for text, special in tokens:
        if special:
            marks.append(text)
            turns.append("")
        else:
            turns[-1] += text
    users = [turn for mark, turn in zip(marks, turns, strict=True) if mark == START and turn.startswith("user\n")]
    return users[-1].partition("\n")[2] if users else "".join(turns)


def _shared(left: list[_Token], right: list[_Token]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
