"""How probable a model finds given endings of a prompt, exactly, with a prefix cache in the way.

The runtime tells the log-probability of prompt tokens it reads (`echo`), but reads none that are resident, and what is
resident is up to its block manager. What is missing is drawn: a grammar forces the token's text, sampling at a very
high temperature splits it in every way the vocabulary knows, and the log-probability reported with a drawn token is
the model's own, before grammar and temperature.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import openvino_genai

from edge_agent.engines.openvino.grammar import literal
from edge_agent.engines.openvino.worker import Step
from edge_agent.errors import EngineFailed
from edge_agent.models.tokenizer import Tokenizer

_DRAWS: Final = 32
_ATTEMPTS: Final = 8
_HOT: Final = 1e4


class Scorer:
    """Weighs endings with the help of `run`, which runs one turn to its end."""

    def __init__(self, run: Callable[[Sequence[int], Any], Awaitable[Step]], tokenizer: Tokenizer) -> None:
        self._run = run
        self._tokenizer = tokenizer

    async def score(self, prompt: list[int], endings: Sequence[list[int]]) -> list[float]:
        """Give the sum of natural log-probabilities of each ending's tokens after the prompt."""
        return [await self._ending(prompt, ending) for ending in endings]

    async def _ending(self, prompt: list[int], ending: list[int]) -> float:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.logprobs = 1
        config.echo = True
        step = await self._run([*prompt, *ending], config)
        # One value per token that was read, and one for the token that was written after them.
        told = [value for output in step.outputs for value in output.logprobs][:-1][-len(ending) :]
        missing = len(ending) - len(told)
        drawn = [await self._drawn([*prompt, *ending[:i]], ending[i]) for i in range(missing)]
        return sum(drawn) + sum(told)

    async def _drawn(self, ids: list[int], token: int) -> float:
        try:
            text = self._tokenizer.bytes_of(token).decode()
        except UnicodeDecodeError as error:
            raise EngineFailed("a choice splits a character in two where the prompt is resident") from error
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.logprobs = 1
        config.do_sample = True
        config.temperature = _HOT
        config.num_return_sequences = _DRAWS
        config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=f"root ::= {literal(text)}")
        for seed in range(1, _ATTEMPTS + 1):
            config.rng_seed = seed
            for output in (await self._run(ids, config)).outputs:
                if output.ids == [token]:
                    return output.logprobs[0]
        raise EngineFailed(f"the runtime never wrote the token {text!r}")
