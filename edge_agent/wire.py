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
from typing import Any, Final, NoReturn

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

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


# Codes ---------------------------------------------------------------------------------------------------------------


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
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, Any] = _EMPTY,
    ) -> None:
        super().__init__(message)
        self.code = CODES[code]
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.details = dict(details)

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
        name, message, param = error.get("code"), str(error.get("message", "")), error.get("param")
        if not isinstance(name, str) or name not in CODES:
            name, message = "internal", f"{name}: {message}"
        retry = body.get("retry_after_s")
        details = {k: v for k, v in error.items() if k not in ("message", "type", "code", "param")}
        return cls(
            name,
            message,
            param=param if isinstance(param, str) else None,
            retry_after_s=retry if _is_number(retry) else None,
            details=details,
        )

    def text(self) -> str:
        """The one line a text client gets."""
        return f"error: {self.code.name}: {' '.join(self.message.split())}"


# Topics --------------------------------------------------------------------------------------------------------------


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
    """The topics below one root, written and read."""

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        if not all(is_segment(part) for part in root.split("/")):
            raise WireError("invalid_request", f"the topic root {root!r} must match {_SEGMENT.pattern}", param="root")
        self.root = root
        self.base = f"{root}/{VERSION}"

    def request(self, target: str, client: str, rid: str) -> str:
        return self._join("req", target, client, rid)

    def cancel(self, client: str, rid: str) -> str:
        return self._join("cancel", client, rid)

    def admin(self, node: str, client: str, rid: str) -> str:
        return self._join("admin", node, client, rid)

    def out(self, client: str) -> str:
        return self._join("out", client)

    def presence(self, node: str, kind: str) -> str:
        """The retained topic of a node's `status`, `info` or `state`."""
        return self._join("node", node, kind)

    def requests_to(self, target: str) -> str:
        """The filter for every request to a node or to the pool."""
        return f"{self.base}/req/{target}/+/+"

    def shared(self, group: str = DEFAULT_ROOT) -> str:
        """The shared subscription of the pool."""
        return f"$share/{group}/{self.requests_to(POOL)}"

    def cancels(self) -> str:
        return f"{self.base}/cancel/+/+"

    def admins_of(self, node: str) -> str:
        return f"{self.base}/admin/{node}/+/+"

    def presences(self) -> str:
        return f"{self.base}/node/+/+"

    def parse(self, topic: str) -> Address:
        """Read a topic; raises `WireError` when it is none of ours."""
        prefix, sep, rest = topic.partition(f"{self.base}/")
        parts = rest.split("/") if sep and not prefix else [""]
        if all(is_segment(part) for part in parts):
            match parts:
                case ["req", target, client, rid]:
                    return Address("req", target, client, rid)
                case ["admin", node, client, rid]:
                    return Address("admin", node, client, rid)
                case ["cancel", client, rid]:
                    return Address("cancel", client=client, rid=rid)
                case ["out", client]:
                    return Address("out", client=client)
                case ["node", node, ("status" | "info" | "state") as kind]:
                    return Address(kind, node)
        raise WireError("invalid_request", f"not a topic of {self.base}", param="topic")

    def _join(self, *segments: str) -> str:
        for segment in segments:
            if not is_segment(segment):
                raise WireError("invalid_request", f"{segment!r} does not match {_SEGMENT.pattern}", param="topic")
        return "/".join((self.base, *segments))


# JSON ----------------------------------------------------------------------------------------------------------------


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; `WireError` for what no peer could read: NaN, infinities, lone surrogates."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("internal", f"cannot be written as JSON: {error}") from error


def loads(payload: bytes) -> dict[str, Any]:
    """One JSON object; `WireError` for whatever else stands there, however deep, long or odd."""
    try:
        text = payload.decode()
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if "\\u" in text:  # Half a surrogate pair can be read but never answered: refuse it here.
            json.dumps(value, ensure_ascii=False).encode()
        shallow = _depth_within(value, MAX_DEPTH)
    except RecursionError:
        shallow = False
    except UnicodeError as error:
        raise WireError("bad_json", f"not UTF-8: {error.reason} at position {error.start}") from error
    except ValueError as error:
        raise WireError("bad_json", f"not JSON: {error}") from error
    if not shallow:
        raise WireError("bad_json", f"nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise WireError("bad_json", f"expected a JSON object, got {type(value).__name__}")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:24]} is no number of JSON")
    return value


def _depth_within(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        below = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in below for item in items if isinstance(item, (dict, list))]
        if not level:
            return True
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Messages -------------------------------------------------------------------------------------------------------------


def decode_cancel(payload: bytes) -> str | None:
    """The node to keep, if the cancel spares one; an empty payload spares none."""
    keep = loads(payload).get("keep") if payload else None
    if keep is not None and not (isinstance(keep, str) and is_segment(keep)):
        raise WireError("invalid_request", "must be a node's name", param="keep")
    return keep


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of an answer: an OpenAI object (or error, or status) under its `edge` stamp."""

    rid: str
    seq: int
    kind: str
    node: str
    boot: str
    body: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """What else the `edge` object says: timings, ignored parameters, probabilities."""
    final: bool = False

    def encode(self) -> bytes:
        stamp = {
            "v": PROTOCOL,
            "rid": self.rid,
            "seq": self.seq,
            "kind": self.kind,
            "node": self.node,
            "boot": self.boot,
            "final": self.final,
        }
        return dumps({**self.body, "edge": {**self.extra, **stamp}})

    def error(self) -> WireError:
        return WireError.from_body(self.body)


def decode_reply(payload: bytes) -> Reply:
    """Read one message of an answer; unknown kinds are passed on, for a newer node may have more to say."""
    body = loads(payload)
    edge = body.pop("edge", None)
    if not isinstance(edge, dict):
        raise WireError("bad_json", "a reply without an `edge` object")
    stamp = {name: edge.pop(name, None) for name in ("rid", "seq", "kind", "node", "boot", "final")}
    edge.pop("v", None)
    wrong = [n for n in ("rid", "kind", "node", "boot") if not isinstance(stamp[n], str)]
    wrong += [] if _is_whole(stamp["seq"]) and 0 <= stamp["seq"] < 1 << 53 else ["seq"]
    wrong += [] if isinstance(stamp["final"], bool) else ["final"]
    if wrong:
        raise WireError("bad_json", f"a reply whose edge.{wrong[0]} is missing or wrong")
    return Reply(**stamp, body=body, extra=edge)


# Presence ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Info:
    """The retained capability card. Byte-stable across restarts: nothing measured belongs here."""

    node: str
    software: str
    model: str
    engine: str
    template: str
    context: int
    limits: Mapping[str, int]
    capabilities: Mapping[str, Any]
    protocol: int = PROTOCOL
    min_protocol: int = MIN_PROTOCOL


@dataclass(frozen=True, slots=True)
class State:
    """The retained state of a node, at most one a second. Speeds in tokens/s, times in seconds, memory in bytes."""

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
    return dumps({name: dict(sorted(v.items())) if isinstance(v, Mapping) else v for name, v in sorted(card.items())})


def decode_info(payload: bytes) -> Info:
    """Read a capability card; refuses one whose node requires a newer protocol, saying which side to upgrade."""
    info: Info = _card(Info, payload)
    if not is_segment(info.node):
        raise WireError("bad_json", "an info card without a usable `node`")
    if info.min_protocol > PROTOCOL or info.protocol < MIN_PROTOCOL:
        side = "this side" if info.min_protocol > PROTOCOL else f"the node {info.node}"
        supported = [*range(info.min_protocol, info.protocol + 1)]
        raise WireError("unsupported_version", f"upgrade {side}", details={"supported": supported})
    return info


def decode_state(payload: bytes) -> State:
    """Read a node's state. A phase of a newer protocol is kept as it is: it is not `ready`."""
    state: State = _card(State, payload)
    return state


def _card(cls: Any, payload: bytes) -> Any:
    body, known = loads(payload), {}
    for each in fields(cls):
        if (value := body.get(each.name)) is None:
            if each.default is MISSING:
                raise WireError("bad_json", f"`{each.name}` is missing", param=each.name)
            continue
        if not _TYPES[str(each.type)](value):
            raise WireError("bad_json", f"`{each.name}` must be {each.type}", param=each.name)
        known[each.name] = value
    return cls(**known)


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_whole,
    "float": _is_number,
    "Mapping[str, int]": lambda value: isinstance(value, dict) and all(map(_is_whole, value.values())),
    "Mapping[str, Any]": lambda value: isinstance(value, dict),
}
