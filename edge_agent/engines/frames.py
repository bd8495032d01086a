"""What the agent and an engine's process say to each other: length-prefixed JSON, and the values in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from edge_agent import errors
from edge_agent.engines.base import Capabilities, Constraint, Dialect, Piece, Prompt, Sampling, Segment, Usage
from edge_agent.errors import ContextOverflow, EngineFailed, OperatorError, RequestRefused, Unsupported
from edge_agent.wire import WireError

MAX_FRAME: Final = 16 << 20
"""Bytes of one frame; far above the largest request, far below what memory notices."""
WINDOW: Final = 64
"""Pieces of one answer that may be under way: a slow reader stops its own turn, never the memory or its neighbours."""

_OPERATOR_ERRORS: Final = {kind.__name__: kind for kind in OperatorError.__subclasses__()}


class FrameError(Exception):
    """The other side broke the protocol; nothing it says can be trusted any more."""


def pack(value: Mapping[str, Any]) -> bytes:
    """Write one frame; raises `RequestRefused` for a request larger than `MAX_FRAME`."""
    data = json.dumps(value, separators=(",", ":")).encode()
    if len(data) > MAX_FRAME:
        raise RequestRefused(f"{len(data)} bytes; the engine's process takes {MAX_FRAME}", code="too_large")
    return len(data).to_bytes(4, "big") + data


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read the next frame; None at the end of the stream."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_FRAME:
            raise FrameError(f"a frame of {size} bytes; {MAX_FRAME} are allowed")
        value = json.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except ValueError as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FrameError("a frame that is no object")
    return value


def piece_out(piece: Piece) -> list[Any]:
    """Write a piece as a short list: this is the hot path."""
    usage = piece.usage and [piece.usage.prompt, piece.usage.cached, piece.usage.completion]
    return [piece.text, piece.tokens, piece.read, piece.finish, usage, piece.logprobs]


def piece_in(value: list[Any]) -> Piece:
    """Read a piece."""
    text, tokens, read_, finish, usage, logprobs = value
    return Piece(text, tokens, read_, finish, usage and Usage(*usage), tuple(logprobs))


def prompt_out(prompt: Prompt) -> list[list[Any]]:
    """Write a prompt as pairs of text and whether it is control text."""
    return [[segment.text, segment.control] for segment in prompt.segments]


def prompt_in(value: list[list[Any]]) -> Prompt:
    """Read a prompt."""
    return Prompt(tuple(Segment(text, control) for text, control in value))


def sampling_in(value: dict[str, Any]) -> Sampling:
    """Read what `dataclasses.asdict` wrote."""
    constraint = value["constraint"]
    return Sampling(**{**value, "constraint": constraint and Constraint(**constraint)})


def ready_out(capabilities: Capabilities, dialect: Dialect) -> dict[str, Any]:
    """Write what a loaded engine can do and how its model speaks."""
    plain = {**asdict(capabilities), "ignores": sorted(capabilities.ignores)}
    return {"capabilities": plain, "dialect": asdict(dialect)}


def ready_in(value: dict[str, Any]) -> tuple[Capabilities, Dialect]:
    """Read the same."""
    capabilities, dialect = value["capabilities"], value["dialect"]
    return (
        Capabilities(**{**capabilities, "ignores": frozenset(capabilities["ignores"])}),
        Dialect(**{**dialect, "specials": tuple(dialect["specials"])}),
    )


def error_out(error: BaseException) -> dict[str, Any]:
    """Any exception in words that cross the process border; one that is not in the tree of `errors` is a fault here."""
    if isinstance(error, WireError):
        return error.body()
    if isinstance(error, OperatorError):
        return {"operator": type(error).__name__, "message": str(error)}
    return WireError(
        "internal", f"the engine failed in this request ({type(error).__name__}); its log says more"
    ).body()


def error_in(body: dict[str, Any]) -> Exception:
    """The exception again, of the type it had where that type is in the tree of `errors`."""
    if "operator" in body:
        return _OPERATOR_ERRORS.get(body["operator"], errors.ConfigError)(body["message"])
    error = WireError.from_body(body)
    match error.code.name:
        case "context_overflow" if {"prompt_tokens", "limit_tokens"} <= error.details.keys():
            return ContextOverflow(error.details["prompt_tokens"], error.details["limit_tokens"])
        case "unsupported":
            return Unsupported(error.message, param=error.param)
        case "engine_failed" | "unavailable" as code:
            return EngineFailed(error.message, code=code, retry_after_s=error.retry_after_s)
        case "invalid_request" as code:
            return RequestRefused(error.message, param=error.param, code=code)
    return error
