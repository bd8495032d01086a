"""The OpenAI objects of an answer, assembled from values; `created` is in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.chat.request import ToolCall


def usage(prompt: int, cached: int, completion: int) -> dict[str, Any]:
    """Count tokens: read, of those already resident, written."""
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
    calls: Sequence[ToolCall] = (),
    finish_reason: str = "stop",
    usage: Mapping[str, Any] | None = None,
    logprobs: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Assemble a whole answer; content is null when there are only calls, as OpenAI has it."""
    message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    choice = {"index": 0, "message": message, "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}
    body = {"id": id, "object": "chat.completion", "created": created, "model": model, "choices": [choice]}
    return body if usage is None else {**body, "usage": dict(usage)}


def chunk(
    id: str,  # noqa: A002 - OpenAI's name
    created: int,
    model: str,
    delta: Mapping[str, Any],
    finish_reason: str | None = None,
    *,
    logprobs: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Assemble one piece of a streamed answer."""
    choice: dict[str, Any] = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    if logprobs is not None:
        choice["logprobs"] = _logprobs(logprobs)
    return {"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [choice]}


def _logprobs(tokens: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": list(tokens)}
