"""The seam: what a runtime must do to be an engine of Edge Agent.

A new chip is one class with these methods, a line in `registry.ENGINES` and a run of the conformance suite
(`tests/agent/engines/test_contract.py`). Engines may be used from one event loop only, and block it never.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from edge_agent.chat.prompt import Constraint, Dialect, Prompt, Segment

__all__ = [
    "Capabilities",
    "Constraint",
    "Dialect",
    "Engine",
    "FinishReason",
    "Health",
    "Piece",
    "Prompt",
    "Sampling",
    "Segment",
    "Usage",
]

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the engine writes.

    None means the model's default; what a runtime cannot set is named in `Capabilities.ignores`, and the answer says
    so.
    """

    max_tokens: int
    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: int = 0
    """How many alternatives to report with every token; 0 for none."""
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read, how many of those were already resident, tokens written."""

    prompt: int
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A step of an answer. Text never ends inside a character.

    The first piece of every run has `read` set and the prompt counted in `usage`; the last one has `finish` and the
    whole `usage`.
    """

    text: str = ""
    tokens: int = 0
    """Tokens written since the piece before, special ones included."""
    read: int | None = None
    """While reading: prompt tokens done so far, out of `usage.prompt`."""
    finish: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[Mapping[str, Any], ...] = ()
    """OpenAI's logprobs content items, one per token, if asked for."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runtime can do with this model; known once it is loaded."""

    context: int
    """Prompt and answer together, in tokens."""
    parallel: int = 1
    """Turns it can interleave."""
    constrained: bool = False
    scores: bool = False
    logprobs: bool = False
    prefix_cache: bool = False
    ignores: frozenset[str] = frozenset()
    """Fields of `Sampling` the runtime cannot set."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the engine lives, in words for an operator, and the memory it holds in bytes."""

    ok: bool
    detail: str = ""
    memory: int = 0
    running: int = 0
    lost: bool = False
    """Whether only a person can help: see `errors.DeviceLost`."""
    read_tps: float = 0.0
    write_tps: float = 0.0
    """Tokens a second, where the engine measures that itself; 0 says nothing."""


class Engine(Protocol):
    """A runtime with a model resident.

    Built as `Engine(options)` where options is the mapping `engine.options` of the configuration, checked by the engine
    itself. Raises `errors.EngineFailed` for a runtime that died or refused to load (`errors.DeviceLost` if to start it
    again is vain), `errors.ContextOverflow` for a prompt that does not fit (before anything runs),
    `errors.Unsupported` for what `capabilities` denies.
    """

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def dialect(self) -> Dialect: ...

    async def __aenter__(self) -> Self:
        """Load, answer one token, and only then return: ready means ready."""

    async def __aexit__(self, *exc: object) -> None:
        """Free the device; running turns end with `EngineFailed`."""

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Read, then write.

        Closing the generator stops the device: within a token while writing, within a block while reading; when
        `aclose` returns, the device is idle again as far as this turn goes.
        """

    async def prepare(self, prompt: Prompt) -> Usage:
        """Make the prompt resident for later turns that begin with it. Cancelling stops it within a block."""

    async def score(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """The natural logarithm of the probability of each choice, written in full, after the prompt."""

    async def count(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""

    async def health(self) -> Health: ...
