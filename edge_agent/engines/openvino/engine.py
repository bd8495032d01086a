"""The engine: options and loading, prompts to token ids, token ids to pieces."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import openvino
import openvino_genai
import voluptuous as vol

from edge_agent.engines.base import Capabilities, Dialect, FinishReason, Health, Piece, Prompt, Sampling, Usage
from edge_agent.engines.openvino.conversion import converted
from edge_agent.engines.openvino.grammar import ebnf
from edge_agent.engines.openvino.residency import Residency
from edge_agent.engines.openvino.scoring import Scorer
from edge_agent.engines.openvino.worker import Step, Turn, Worker
from edge_agent.engines.options import checked
from edge_agent.errors import ContextOverflow, ModelError, Unsupported
from edge_agent.models.tokenizer import Tokenizer

_CONTEXT: Final = 8192
_BLOCK: Final = {"CPU": 32}
"""Tokens of one block of the prefix cache; 16 on every other device."""

_OPTIONS: Final = vol.Schema(
    {
        vol.Required("model"): vol.All(str, vol.Length(min=1)),
        vol.Optional("device", default="CPU"): vol.All(str, vol.Upper),
        vol.Optional("context", default=None): vol.Any(None, vol.All(int, vol.Range(min=64, max=1 << 20))),
        vol.Optional("parallel", default=4): vol.All(int, vol.Range(min=1, max=64)),
        vol.Optional("cache_gb", default=1): vol.All(int, vol.Range(min=1, max=256)),
        vol.Optional("max_batched_tokens", default=None): vol.Any(None, vol.All(int, vol.Range(min=16, max=8192))),
        vol.Optional("threads", default=None): vol.Any(None, vol.All(int, vol.Range(min=1, max=1024))),
        vol.Optional("cache_dir", default=None): vol.Any(None, str),
        vol.Optional("accurate", default=False): bool,
    }
)


class OpenVinoEngine:
    """Options: `model` (a .gguf file or an OpenVINO folder) and how to run it.

    `device` (CPU or GPU), `context` in tokens (by default the model's, at most 8,192), `parallel` turns, `cache_gb` for
    keys and values, `max_batched_tokens` read in one step (a step cannot be interrupted; by default what two cores read
    in less than half a second), `threads`, `cache_dir` for the converted model, `accurate` for slower arithmetic in
    which an answer does not depend on what runs beside it.

    Temperature None is the model's own default, and greedy where its files name none; so are the other None values.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options = checked(_OPTIONS, options)
        if options["device"].startswith("NPU"):
            raise Unsupported(
                "the openvino engine runs on CPU and GPU; on an NPU the runtime neither batches nor cancels"
            )
        self._block = _BLOCK.get(options["device"], 16)
        self._worker: Worker

    @property
    def capabilities(self) -> Capabilities:
        own = self._tokenizer.facts.context or _CONTEXT
        return Capabilities(
            context=min(self._options["context"] or min(own, _CONTEXT), own),
            parallel=self._options["parallel"],
            constrained=True,
            scores=True,
            prefix_cache=True,
        )

    @property
    def dialect(self) -> Dialect:
        facts = self._tokenizer.facts
        return Dialect(template=facts.template, specials=self._tokenizer.specials, bos=facts.bos, eos=facts.eos)

    async def __aenter__(self) -> Self:
        self._batch = self._options["max_batched_tokens"] or _step_tokens(Path(self._options["model"]))
        self._worker = Worker(self._load, self._batch)
        await self._worker.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._worker.stop()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        ids = self._fitting(prompt)
        decoder = self._tokenizer.decoder()
        written = 0
        async with self._turn(ids, self._config(sampling, self.capabilities.context - len(ids))) as turn:
            while True:
                step = await turn.next()
                if not written:
                    yield Piece(read=step.read, usage=Usage(len(ids), step.cached))
                gained = [id_ for output in step.outputs for id_ in output.ids]
                written += len(gained)
                text = decoder.feed(gained)
                if step.ended:
                    break
                if gained:
                    yield Piece(text, tokens=len(gained))
        finish: FinishReason = step.outputs[-1].finish or "stop"
        usage = Usage(len(ids), step.cached, written)
        yield Piece(text + decoder.finish(), tokens=len(gained), finish=finish, usage=usage)

    async def prepare(self, prompt: Prompt) -> Usage:
        ids = self._fitting(prompt)
        whole = ids[: len(ids) // self._block * self._block]  # No open block: residency.py says why.
        step = await self._run(whole, self._config(Sampling(max_tokens=1), 1)) if whole else None
        return Usage(len(ids), step.cached if step else 0)

    async def score(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        ids = self._fitting(prompt)
        endings = [self._tokenizer.encode([(choice, False)]) for choice in choices]
        longest = len(ids) + max(map(len, endings), default=0)
        if longest >= self.capabilities.context:
            raise ContextOverflow(longest, self.capabilities.context - 1)
        return await Scorer(self._run, self._tokenizer).score(ids, endings)

    async def count(self, prompt: Prompt) -> int:
        return len(self._encode(prompt))

    async def health(self) -> Health:
        busy = len(self._worker.running) + len(self._worker.held)
        return Health(ok=self._worker.alive, detail=self._worker.failure or "", running=busy)

    def _encode(self, prompt: Prompt) -> list[int]:
        return self._tokenizer.encode((segment.text, segment.control) for segment in prompt.segments)

    def _fitting(self, prompt: Prompt) -> list[int]:
        ids = self._encode(prompt)
        if len(ids) >= self.capabilities.context:
            raise ContextOverflow(len(ids), self.capabilities.context - 1)
        return ids

    async def _run(self, ids: Sequence[int], config: Any) -> Step:
        """Run a turn to its end; its last step carries every output."""
        outputs: list[Any] = []
        async with self._turn(ids, config) as turn:
            while True:
                step = await turn.next()
                outputs += step.outputs
                if step.ended:
                    return Step(step.read, step.cached, tuple(outputs), ended=True)

    @asynccontextmanager
    async def _turn(self, ids: Sequence[int], config: Any) -> AsyncIterator[Turn]:
        turn = Turn(ids, config)
        self._worker.submit(turn)
        try:
            yield turn
        finally:
            if not turn.idle.is_set():
                await self._worker.cancel(turn)

    def _config(self, sampling: Sampling, room: int) -> Any:
        default = self._defaults
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = min(sampling.max_tokens, room)
        config.stop_token_ids = set(self._tokenizer.facts.eos_ids)
        temperature = sampling.temperature
        if temperature is None:
            temperature = default.temperature if default.do_sample else 0.0
        if temperature > 0:
            config.do_sample = True
            config.temperature = temperature
            config.top_p = default.top_p if sampling.top_p is None else sampling.top_p
            config.top_k = default.top_k if sampling.top_k is None else sampling.top_k
            config.rng_seed = secrets.randbits(31) if sampling.seed is None else sampling.seed % (1 << 31)
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            value = getattr(sampling, name)
            setattr(config, name, getattr(default, name) if value is None else value)
        if sampling.constraint is not None:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=ebnf(sampling.constraint))
        return config

    def _load(self) -> tuple[Any, Residency]:
        """Load, compare the tokenizers and answer one token; on the worker's thread."""
        options = self._options
        model = Path(options["model"])
        self._tokenizer = Tokenizer.load(model)
        folder = converted(model, options["cache_dir"] and Path(options["cache_dir"]))
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = options["cache_gb"]
        scheduler.max_num_batched_tokens = self._batch
        scheduler.max_num_seqs = max(options["parallel"], 32)
        scheduler.enable_prefix_caching = True
        properties: dict[str, Any] = {} if options["threads"] is None else {"INFERENCE_NUM_THREADS": options["threads"]}
        if options["accurate"]:  # Else a CPU with instructions for it computes in bf16 and quantised activations.
            properties["EXECUTION_MODE_HINT"] = "ACCURACY"
        if options["device"] != "CPU":  # Kernels for a GPU take long to compile; those for a CPU are not kept.
            properties["CACHE_DIR"] = str(folder / "kernels")
        try:
            pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, options["device"], properties)
        except RuntimeError as error:
            raise ModelError(f"{model} cannot be loaded: {error}") from error
        self._defaults = pipeline.get_config()
        self._compare(pipeline.get_tokenizer())
        blocks = self._warm_up(pipeline)
        return pipeline, Residency(blocks, self._block)

    def _compare(self, theirs: Any) -> None:
        """Refuse a model whose own tokenizer reads differently: its prompts would not be what it was trained on."""
        probe = "".join(self._tokenizer.specials[:3]) + "It's 21.5 °C, isn't it?\n\tYES  日本 🙂"
        ours = self._tokenizer.encode([(probe, True)])
        if ours != theirs.encode(probe, add_special_tokens=False).input_ids.data[0].tolist():
            raise ModelError(f"{self._options['model']}: the runtime's tokenizer and the model's disagree")

    def _warm_up(self, pipeline: Any) -> int:
        """Answer one token, which compiles the kernels; the share of the cache it took tells the number of blocks."""
        config = self._config(Sampling(max_tokens=1), 1)
        handle = pipeline.add_request(0, openvino.Tensor(np.array([[0]], np.int64)), config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        if not handle.can_read():
            raise ModelError(f"{self._options['model']} wrote nothing; cache_gb may be too small for it")
        share: float = pipeline.get_metrics().max_cache_usage
        return max(1, round(100 / max(share, 1e-3)))


def _step_tokens(model: Path) -> int:
    """Tokens to read in one step; two cores take 0.36 s for 256 of a 98 MB model and 0.31 s for 32 of a 1.1 GB one."""
    files = model.glob("*.bin") if model.is_dir() else [model] if model.exists() else []
    size = sum(file.stat().st_size for file in files)
    return max(32, min(256, 25_000_000_000 // max(1, size) // 32 * 32))
