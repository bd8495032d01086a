"""How probable a model finds given endings of a prompt, exactly, with a prefix cache in the way.

The runtime tells the log-probability of prompt tokens it reads (`echo`), but reads none that are resident, and what is
resident is up to its block manager. What is missing is drawn: a grammar forces the token's text, sampling at a very
high temperature splits it in every way the vocabulary knows, and the log-probability reported with a drawn token is
the model's own, before grammar and temperature.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import openvino_genai

from edge_agent.engines.openvino.expressions import literal
from edge_agent.engines.openvino.worker import Output, Step
from edge_agent.errors import Unsupported
from edge_agent.models.tokenizer import Tokenizer

_DRAWS: Final = 32
_ATTEMPTS: Final = 32
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
        drawn: list[float] = []
        while len(drawn) < len(ending) - len(told):
            text, tokens = self._whole(ending[len(drawn) :])
            drawn += await self._drawn([*prompt, *ending[: len(drawn)]], text, tokens)
        return sum(drawn) + sum(told[len(drawn) + len(told) - len(ending) :])

    def _whole(self, ids: list[int]) -> tuple[str, list[int]]:
        """Give the first tokens that end with a character, and their text: a grammar forces whole characters."""
        decoder = self._tokenizer.decoder()
        text = ""
        for count, id_ in enumerate(ids, 1):
            text += decoder.feed([id_])
            if not decoder.pending:
                return text, ids[:count]
        raise Unsupported("a choice that ends inside a character cannot be weighed", param="edge.choices")

    async def _drawn(self, ids: list[int], text: str, tokens: list[int]) -> list[float]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = len(tokens)
        config.logprobs = 1
        config.do_sample = True
        config.temperature = _HOT
        config.num_return_sequences = 1 if tokens[1:] else _DRAWS  # A grammar leads several sequences one token far.
        config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=f"root ::= {literal(text)}")
        for seed in range(1, _ATTEMPTS + 1):
            config.rng_seed = seed
            outputs = (await self._run(ids, config)).outputs
            if tokens[1:]:  # One sequence, told step by step.
                outputs = (functools.reduce(_joined, outputs),)
            for output in outputs:
                if output.ids == tokens:
                    return output.logprobs
        raise Unsupported(f"the runtime never wrote {text!r} as the choice has it", param="edge.choices")


def _joined(left: Output, right: Output) -> Output:
    return Output(left.ids + right.ids, left.logprobs + right.logprobs, right.finish)
