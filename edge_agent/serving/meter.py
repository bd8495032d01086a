"""What the node knows of its own speed: running means from which waits are estimated and deadlines judged."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.engines.base import Usage

_WEIGHT = 0.2
_MIN_READ = 32
"""Prompts shorter than this say more about the engine's first token than about its reading."""


@dataclass(slots=True)
class Meter:
    """Exponential means over finished runs. 0 means not measured yet."""

    read_tps: float = 0.0
    write_tps: float = 0.0
    first_token_s: float = 0.0
    run_s: float = 0.0
    cached_tokens: int = 0
    prompt_tokens: int = 0

    def record(self, usage: Usage, first_token_s: float, run_s: float) -> None:
        """Take in one finished run, timed from its start."""
        self.prompt_tokens += usage.prompt
        self.cached_tokens += usage.cached
        self.first_token_s = _blend(self.first_token_s, first_token_s)
        self.run_s = _blend(self.run_s, run_s)
        fresh = usage.prompt - usage.cached
        if fresh >= _MIN_READ and first_token_s > 0:
            self.read_tps = _blend(self.read_tps, fresh / first_token_s)
        if usage.completion > 1 and run_s > first_token_s:
            self.write_tps = _blend(self.write_tps, (usage.completion - 1) / (run_s - first_token_s))

    def suppose(self, read_tps: float, write_tps: float) -> None:
        """Believe what the engine says of itself, until a run here has been measured."""
        self.read_tps = self.read_tps or read_tps
        self.write_tps = self.write_tps or write_tps

    @property
    def cache_hits(self) -> float:
        """Share of the prompt tokens that were resident, since the start."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def wait_s(self, ahead: int, slots: int) -> float:
        """Estimate the wait behind `ahead` requests; 0 while nothing is measured."""
        return self.run_s * ahead / max(1, slots)

    def reading_s(self, tokens: int) -> float:
        """Estimate the time to read so many tokens; 0 while nothing is measured."""
        return tokens / self.read_tps if self.read_tps else 0.0


def _blend(mean: float, sample: float) -> float:
    return sample if not mean else mean + _WEIGHT * (sample - mean)
