"""The errors of Edge Agent, one tree, by remedy.

WireError                    what a client is told, with a code of the wire (wire.py)
├── RequestRefused           the client must change the request
├── ContextOverflow          … make the prompt shorter: says by how many tokens
├── Unsupported              … ask another engine: this one cannot
└── EngineFailed             … try again: the engine died, stalled or is not up
    ├── EngineStalled        it still runs but neither reads nor writes
    └── DeviceLost           … later: only the person at the host can bring the device back
OperatorError                the person at the host must act; printed as one line
├── ConfigError              … correct the configuration: names file, path and what is allowed
├── BrokerError              … look at the broker, its address or its credentials
├── NodeNameTaken            … give one of two agents another node name
└── ModelError               … fetch the model again, or free some disk
    └── ModelUnreachable     … look at the network, or try again later
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from edge_agent.wire import WireError

E = TypeVar("E", bound=Exception)


class RequestRefused(WireError):
    """The request as it stands cannot be served."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(code, message, param=param)


class ContextOverflow(WireError):
    """The prompt leaves no room in the model's context."""

    def __init__(self, prompt_tokens: int, limit: int) -> None:
        over = prompt_tokens - limit
        super().__init__(
            "context_overflow",
            f"the prompt has {prompt_tokens} tokens and at most {limit} fit: {over} over",
            param="messages",
            prompt_tokens=prompt_tokens,
            limit_tokens=limit,
            tokens_over=over,
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit
        self.over = over


class Unsupported(WireError):
    """The engine in use cannot do this."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__("unsupported", message, param=param)


class EngineFailed(WireError):
    """The engine died, refused to load or broke its protocol."""

    def __init__(self, message: str, *, code: str = "engine_failed", retry_after_s: float | None = None) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)


class EngineStalled(EngineFailed):
    """The engine still runs but made no progress for too long."""


class DeviceLost(EngineFailed):
    """The device is out of order, and starting the engine again does not help: a person must reset it."""


class OperatorError(Exception):
    """Something only the person at the host can mend. `exit_code` is the process's."""

    exit_code: ClassVar[int] = 1


class ConfigError(OperatorError):
    """The configuration is wrong."""

    exit_code: ClassVar[int] = 78  # EX_CONFIG of sysexits.h


class BrokerError(OperatorError):
    """The broker cannot be reached or refuses us."""

    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE


class NodeNameTaken(OperatorError):
    """Another agent runs under this node's name."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


class ModelError(OperatorError):
    """The model's files are missing, damaged or do not fit."""

    exit_code: ClassVar[int] = 66  # EX_NOINPUT


class ModelUnreachable(ModelError):
    """The model could not be fetched this time."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL


def first(group: BaseExceptionGroup[E]) -> E:
    """Return the first error of a group: what a task group raised, in one word."""
    error = group.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error
