"""What happens to a request, told to the door it came through, in order. `Done` or `Failed` is the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.chat.request import ToolCall
from edge_agent.engines.base import Usage
from edge_agent.wire import WireError


@dataclass(frozen=True, slots=True)
class Accepted:
    """Admitted, with `position` requests ahead of it and an estimate of the wait, if there is one."""

    position: int
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """Still waiting; the position changed."""

    position: int
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The engine has read so many tokens of the prompt."""

    read: int
    prompt: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Something written: an OpenAI delta (`content`, `reasoning_content` or `tool_calls`)."""

    delta: Mapping[str, Any]
    logprobs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_s: float = 0.0
    first_token_s: float = 0.0
    """From the start of the run to the first token."""
    total_s: float = 0.0
    """From arrival to the end."""
    write_tps: float = 0.0
    """Tokens a second after the first one."""

    def rounded(self) -> dict[str, float]:
        return {
            "queue_s": round(self.queue_s, 4),
            "first_token_s": round(self.first_token_s, 4),
            "total_s": round(self.total_s, 4),
            "tokens_per_s": round(self.write_tps, 2),
        }


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer."""

    content: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=lambda: Usage(0))
    timings: Timings = field(default_factory=Timings)
    logprobs: tuple[Mapping[str, Any], ...] = ()
    scores: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, and why."""

    error: WireError


Event = Accepted | Queued | Progress | Delta | Done | Failed
Emit = Callable[[Event], None]
