"""The wire `edge_agent/v1`: topics, requests, replies, codes and presence. Bytes in, values out.

This file exists twice, and says so: `edge_agent/wire.py` is the original and `custom_components/edge_agent/wire.py`
the same bytes, because Home Assistant installs only the component's folder (docs/decisions/0002). `script/sync-wire`
copies it. It uses the standard library alone, knows no clock, no socket and no MQTT library, and runs on Python 3.11.

Every decoder returns a value or raises `WireError`; there is no third way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, TypeVar

PROTOCOL: Final = 1
MIN_PROTOCOL: Final = 1
VERSION: Final = "v1"
DEFAULT_ROOT: Final = "edge_agent"
POOL: Final = "any"
MAX_DEPTH: Final = 64
ONLINE: Final = "online"
OFFLINE: Final = "offline"

ADMIN_OPS: Final = ("reload", "drain", "shutdown", "config", "log-level")
PHASES: Final = ("loading", "ready", "draining", "failed")
KINDS: Final = ("accepted", "queued", "progress", "chunk", "final", "error")
_STAMP: Final = ("rid", "seq", "kind", "node", "boot", "final")

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Code:
    """One way a request can fail: its name on the wire, its HTTP twin and what a client may do about it."""

    name: str
    http: int
    type: str
    retryable: bool
    meaning: str


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        name: Code(name, http, type_, retryable, meaning)
        for name, http, type_, retryable, meaning in (
            ("bad_json", 400, "invalid_request_error", False, "the payload is neither JSON nor UTF-8 text"),
            ("invalid_request", 400, "invalid_request_error", False, "a field is wrong; `param` names it"),
            ("unauthorized", 401, "authentication_error", False, "no valid key"),
            ("forbidden", 403, "permission_error", False, "this client may not do this"),
            ("model_not_found", 404, "invalid_request_error", False, "the node does not serve this model"),
            ("expired", 408, "timeout_error", False, "past its deadline, or nothing is stored to resume"),
            ("id_conflict", 409, "invalid_request_error", False, "this id belongs to another request, which goes on"),
            ("too_large", 413, "invalid_request_error", False, "the payload exceeds the node's limit"),
            ("context_overflow", 413, "invalid_request_error", False, "the prompt exceeds the model's context"),
            ("busy", 429, "rate_limit_error", True, "the backlog is full"),
            ("rate_limited", 429, "rate_limit_error", True, "this client has too many requests waiting"),
            ("cancelled", 499, "cancelled_error", False, "the client, or the node's operator, stopped it"),
            ("internal", 500, "server_error", False, "a fault of the agent itself; its log says more"),
            ("unsupported", 501, "invalid_request_error", False, "this engine cannot do what the request asks"),
            ("engine_failed", 502, "server_error", True, "the engine died or stalled in mid-answer"),
            ("unavailable", 503, "server_error", True, "the engine is not ready"),
            ("draining", 503, "server_error", True, "the node is stopping"),
            ("unsupported_version", 505, "invalid_request_error", False, "the node does not speak this version"),
        )
    }
)


class WireError(Exception):
    """A refusal or failure in the words of the wire: raised by decoders, published by doors, raised by clients."""

    def __init__(
        self, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.code = CODES[code]
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.details = details

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    def body(self) -> dict[str, Any]:
        """The OpenAI error object; `details` stand beside the four standard keys."""
        error = {"message": self.message, "type": self.code.type, "code": self.code.name, "param": self.param}
        body: dict[str, Any] = {"error": {**self.details, **error}}
        if self.retry_after_s is not None:
            body["retry_after_s"] = self.retry_after_s
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> WireError:
        """The error in a reply's body. A code of a newer protocol reads as `internal`, its name kept in the text."""
        error = body.get("error")
        if not isinstance(error, Mapping):
            raise WireError("bad_json", "an error reply without an `error` object")
        name, message, param = error.get("code"), str(error.get("message") or ""), error.get("param")
        if not isinstance(name, str) or name not in CODES:
            name, message = "internal", f"{name}: {message}"
        failure = cls(name, message, param=param if isinstance(param, str) else None)
        failure.retry_after_s = retry if _is_number(retry := body.get("retry_after_s")) else None
        failure.details = {k: v for k, v in error.items() if k not in ("message", "type", "code", "param")}
        return failure

    def text(self) -> str:
        """The one line a text client gets."""
        return f"error: {self.code.name}: {' '.join(self.message.split())}"


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic says. `kind` is `req`, `out`, `cancel`, `admin`, `status`, `info` or `state`."""

    kind: str
    node: str = ""
    """The node, or the target of a request: `any` or a node."""
    client: str = ""
    rid: str = ""


def is_segment(text: str) -> bool:
    """Whether text may stand between two slashes of a topic."""
    return _SEGMENT.fullmatch(text) is not None


class Topics:
    """The topics below one root, written and read. `+` as a segment makes a filter of any of them."""

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        if not all(map(is_segment, root.split("/"))):
            raise WireError("invalid_request", f"{root!r}: every level must match {_SEGMENT.pattern}", param="root")
        self.base = f"{root}/{VERSION}"

    def request(self, target: str, client: str, rid: str) -> str:
        return self._join(self.base, "req", target, client, rid)

    def cancel(self, client: str, rid: str) -> str:
        return self._join(self.base, "cancel", client, rid)

    def admin(self, node: str, client: str, rid: str) -> str:
        return self._join(self.base, "admin", node, client, rid)

    def out(self, client: str) -> str:
        return self._join(self.base, "out", client)

    def presence(self, node: str, kind: str) -> str:
        """Return the retained topic of a node's `status`, `info` or `state`."""
        return self._join(self.base, "node", node, kind)

    def shared(self, group: str = DEFAULT_ROOT) -> str:
        """The filter by which the members of a pool share its requests."""
        return f"$share/{group}/{self.request(POOL, '+', '+')}"

    def parse(self, topic: str) -> Address:
        """Read a topic; raises `WireError` when it is none of ours."""
        parts = topic.removeprefix(f"{self.base}/").split("/") if topic.startswith(f"{self.base}/") else [""]
        if all(map(is_segment, parts)):
            match parts:
                case [("req" | "admin") as kind, node, client, rid]:
                    return Address(kind, node, client, rid)
                case ["cancel", client, rid]:
                    return Address("cancel", client=client, rid=rid)
                case ["out", client]:
                    return Address("out", client=client)
                case ["node", node, ("status" | "info" | "state") as kind] if node != POOL:
                    return Address(kind, node)
        raise WireError("invalid_request", f"not a topic of {self.base}", param="topic")

    @staticmethod
    def _join(base: str, *segments: str) -> str:
        for segment in segments:
            if segment != "+" and not is_segment(segment):
                raise WireError("invalid_request", f"{segment!r} does not match {_SEGMENT.pattern}", param="topic")
        return "/".join((base, *segments))


def dumps(value: Any, *, ordered: bool = False) -> bytes:
    """Compact UTF-8 JSON; `WireError` for what no peer could read: NaN, infinities, lone surrogates."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=ordered, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("internal", f"cannot be written as JSON: {error}") from error


def loads(payload: bytes) -> dict[str, Any]:
    """One JSON object; `WireError` for whatever else stands there, however deep, long or odd."""
    try:
        text = payload.decode()
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_number)
        if "\\u" in text:  # Half a surrogate pair can be read but never answered: refuse it here.
            json.dumps(value, ensure_ascii=False).encode()
        shallow = _depth_within(value, MAX_DEPTH)
    except RecursionError:
        shallow = False
    except ValueError as error:  # JSON, UTF-8 and surrogate errors alike
        raise WireError("bad_json", f"not JSON in UTF-8: {error}") from error
    if not shallow:
        raise WireError("bad_json", f"nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise WireError("bad_json", f"expected a JSON object, got {type(value).__name__}")
    return value


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:24]} is no number of JSON")
    return int(text) if text.lstrip("-").isdigit() else value  # Finite, so none overflows a float later.


def _depth_within(value: Any, limit: int) -> bool:
    level: list[Any] = [[value]]
    for _ in range(limit + 1):
        below = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in below for item in items if isinstance(item, (dict, list))]
        if not level:
            return True
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 63


def decode_cancel(payload: bytes) -> str | None:
    """The node to keep, if the cancel spares one; an empty payload spares none."""
    keep = loads(payload).get("keep") if payload else None
    if keep is not None and not (isinstance(keep, str) and is_segment(keep)):
        raise WireError("invalid_request", "must be a node's name", param="keep")
    return keep


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of an answer: an OpenAI object, a status or an error, stamped by its `edge` object."""

    rid: str
    seq: int
    kind: str
    node: str
    boot: str
    final: bool
    body: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else `edge` says: timings, ignored parameters, probabilities."""

    def encode(self) -> bytes:
        stamp = {name: getattr(self, name) for name in _STAMP}
        return dumps({**self.body, "edge": {**self.extra, "v": PROTOCOL, **stamp}})

    def error(self) -> WireError:
        return WireError.from_body(self.body)


def decode_reply(payload: bytes) -> Reply:
    """Read one message of an answer; an unknown kind is passed on, for a newer node may have more to say."""
    body = loads(payload)
    edge = body.pop("edge", None)
    if not isinstance(edge, dict):
        raise WireError("bad_json", "a reply without an `edge` object", param="edge")
    if edge.get("v") not in (None, PROTOCOL):
        raise WireError("unsupported_version", f"a reply of protocol {str(edge['v'])[:20]}", param="edge.v")
    extra = {name: value for name, value in edge.items() if name not in ("v", *_STAMP)}
    return _read(Reply, {**{name: edge.get(name) for name in _STAMP}, "body": body, "extra": extra})


@dataclass(frozen=True, slots=True)
class Info:
    """The retained capability card. Byte-stable across restarts: nothing measured belongs here."""

    node: str
    software: str
    model: str
    engine: str
    template: str
    context: int
    limits: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    protocol: int = PROTOCOL
    min_protocol: int = MIN_PROTOCOL


@dataclass(frozen=True, slots=True)
class State:
    """The retained state of a node. Speeds in tokens/s, times in seconds, memory in bytes, `room` in requests."""

    boot: str
    phase: str
    why: str = ""
    running: int = 0
    queued: int = 0
    room: int = 0
    read_tps: float = 0.0
    write_tps: float = 0.0
    first_token_s: float = 0.0
    cache_hits: float = 0.0
    memory: int = 0
    pool: str = "shared"


def encode_presence(value: Info | State) -> bytes:
    """Keys sorted at every level, so that equal values are equal bytes."""
    card = {each.name: getattr(value, each.name) for each in fields(value)}
    return dumps({k: dict(v) if isinstance(v, Mapping) else v for k, v in card.items()}, ordered=True)


def decode_info(payload: bytes) -> Info:
    """Read a capability card; one that needs another protocol is refused, saying which side to upgrade."""
    info = _read(Info, loads(payload))
    if info.min_protocol > PROTOCOL or info.protocol < MIN_PROTOCOL:
        side = "this side" if info.min_protocol > PROTOCOL else f"the node {info.node}"
        spoken = [*range(info.min_protocol, info.protocol + 1)[:9]]
        raise WireError("unsupported_version", f"upgrade {side}", supported=spoken)
    return info


def decode_state(payload: bytes) -> State:
    """Read a node's state. A phase of a newer protocol is kept as it is: it is not `ready`."""
    return _read(State, loads(payload))


def _read(cls: type[_T], given: Mapping[str, Any]) -> _T:
    """Build a message from JSON, every field of the right type; None stands for a missing one."""
    known = {}
    for each in fields(cls):  # type: ignore[arg-type]
        value = given.get(each.name)
        if value is None and each.default is not MISSING:
            continue
        if not _CHECKS[str(each.type)](value) or (each.name in ("rid", "node") and not is_segment(str(value))):
            raise WireError("bad_json", f"`{each.name}` is missing or no proper {each.type}", param=each.name)
        known[each.name] = value
    return cls(**known)


_T = TypeVar("_T")
_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and _is_number(value),
    "float": _is_number,
    "Mapping[str, Any]": lambda value: isinstance(value, dict),
}
