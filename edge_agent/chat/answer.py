"""The OpenAI objects of an answer, assembled from values; `created` is in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """Count tokens: read, written, and how many of those read were already resident."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def completion(
    id: str,  # noqa: A002 - OpenAI's name
    created: int,
    model: str,
    content: str,
    *,
    reasoning: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    finish_reason: str = "stop",
    usage: Mapping[str, Any] | None = None,
    logprobs: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Assemble a whole answer. Calls are OpenAI's objects; content is null when there is nothing but calls."""
    message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = list(calls)
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, **_logprobs(logprobs)}
    body = {"id": id, "object": "chat.completion", "created": created, "model": model, "choices": [choice]}
    return body if usage is None else {**body, "usage": dict(usage)}


def chunk(
    id: str,  # noqa: A002 - OpenAI's name
    created: int,
    model: str,
    delta: Mapping[str, Any],
    finish_reason: str | None = None,
    *,
    logprobs: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Assemble one piece of a streamed answer."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason, **_logprobs(logprobs)}
    return {"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [choice]}


def _logprobs(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"logprobs": {"content": list(tokens)}} if tokens else {}
