"""The request envelope: bytes become the OpenAI body, not yet validated, and the `edge` object, validated.

The `edge` object is what a request may ask for beyond OpenAI's fields; both doors read it here. The OpenAI body itself
is validated in `chat.request`. The dataclass below is also the source of the table in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from edge_agent.wire import MIN_PROTOCOL, PROTOCOL, WireError, dumps, loads

OPS: Final = ("chat", "prepare", "score", "resume")
PRIORITIES: Final = ("voice", "normal", "batch")
FORMATS: Final = ("json", "text")
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


def _option(default: Any, allowed: str, check: Callable[[Any], bool], meaning: str) -> Any:
    metadata = {"allowed": allowed, "check": check, "meaning": meaning}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _one_of(names: tuple[str, ...]) -> tuple[str, Callable[[Any], bool]]:
    return " ".join(f"`{name}`" for name in names), lambda value: isinstance(value, str) and value in names


def _between(low: float, high: float, kind: Any = int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool) and bool(low <= value <= high)

    return check


_BOOL: Final = ("true or false", lambda value: isinstance(value, bool))
_TEXT: Final = ("a string", lambda value: isinstance(value, str))
_OBJECT: Final = ("an object", lambda value: isinstance(value, dict))


@dataclass(frozen=True, slots=True)
class Edge:
    """The `edge` object of a request. Each field carries its default, what is allowed and what it means."""

    v: int = _option(PROTOCOL, "1", lambda v: v == PROTOCOL and not isinstance(v, bool), "protocol version")
    op: str = _option("chat", *_one_of(OPS), "what to do")
    priority: str = _option("normal", *_one_of(PRIORITIES), "who goes first in the backlog")
    timeout_s: float | None = _option(None, "0.1 to 86400", _between(0.1, 86400, (int, float)), "deadline from arrival")
    ack: bool = _option(False, *_BOOL, "ask for `accepted`, `queued` and `progress`, also without `stream`")
    flush_ms: int = _option(
        50, "0 to 5000", _between(0, 5000), "gather text this long between chunks; 0 sends every token"
    )
    max_msg_bytes: int | None = _option(None, "256 to 1048576", _between(256, 1 << 20), "no message larger than this")
    final_text: bool = _option(True, *_BOOL, "repeat the whole text in the last message of a stream")
    format: str = _option("json", *_one_of(FORMATS), "`text`: one reply of bare text")
    trim: bool = _option(False, *_BOOL, "drop the oldest turns of a conversation that exceeds the context")
    template: str | None = _option(None, *_TEXT, "a named template of the agent's configuration")
    vars: Mapping[str, Any] = _option(EMPTY, *_OBJECT, "data for that template, never template source")
    defs: Mapping[str, Any] = _option(EMPTY, *_OBJECT, "JSON Schema definitions for `$ref`; never part of the prompt")
    choices: tuple[str, ...] = _option(
        (),
        "1 to 256 strings",
        lambda v: isinstance(v, list) and 0 < len(v) <= 256 and all(isinstance(c, str) and c for c in v),
        "`score`: what to weigh",
    )
    boot: str | None = _option(None, *_TEXT, "`resume`: the boot that answered")
    seq: int = _option(-1, "-1 or more", _between(-1, 1 << 53), "`resume`: the last `seq` seen")


_EDGE: Final[Mapping[str, Field[Any]]] = {each.name: each for each in fields(Edge)}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived: the OpenAI body, not yet validated, and the `edge` object, validated."""

    body: Mapping[str, Any]
    edge: Edge
    plain: bool = False
    """Sent as bare text, so answered as bare text."""

    def encode(self) -> bytes:
        if self.plain and is_plain(text := str(self.body["messages"][0]["content"]).encode()):
            return text  # Text that begins with a brace has to travel as JSON; `edge.format` says the rest.
        changed = {name: getattr(self.edge, name) for name, each in _EDGE.items()}
        edge = {k: dict(v) if isinstance(v, Mapping) else v for k, v in changed.items() if not _is_default(_EDGE[k], v)}
        return dumps({**self.body, "edge": edge} if edge else self.body)


def _is_default(option: Field[Any], value: Any) -> bool:
    return bool(value == (option.default if option.default is not MISSING else EMPTY))


def is_plain(payload: bytes) -> bool:
    """Text in, text out: whatever does not begin with a brace is one user message."""
    return not payload.startswith(b"{")


def decode_request(payload: bytes, limit: int) -> Request:
    """Read a request of at most `limit` bytes; raises `WireError` (bad_json, too_large, invalid_request, …)."""
    if len(payload) > limit:
        raise WireError("too_large", f"{len(payload)} bytes; this node takes {limit}", limit=limit)
    if not is_plain(payload):
        body = loads(payload)
        return Request(body, decode_edge(body.pop("edge", None)))
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise WireError("bad_json", f"not UTF-8 at byte {error.start}") from error
    if not text.strip() or "\0" in text:
        raise WireError("invalid_request", "a text request needs some text, and no NUL", param="messages")
    return Request({"messages": [{"role": "user", "content": text}]}, Edge(format="text"), plain=True)


def decode_edge(value: Any) -> Edge:
    """Validate an `edge` object; unknown keys are ignored, an unknown version or operation is refused."""
    if value is None:
        return Edge()
    if not isinstance(value, dict):
        raise WireError("invalid_request", "must be an object", param="edge")
    given = {name: value[name] for name in _EDGE if value.get(name) is not None}
    for name, item in given.items():
        if not _EDGE[name].metadata["check"](item):
            raise _refusal(name, item)
    checked: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in given.items()}
    return Edge(**checked)


def _refusal(name: str, item: Any) -> WireError:
    if name == "v" and isinstance(item, int) and not isinstance(item, bool):
        return WireError(
            "unsupported_version",
            f"v {str(item)[:20]} is not spoken here",
            param="edge.v",
            supported=[*range(MIN_PROTOCOL, PROTOCOL + 1)],
        )
    if name == "op" and isinstance(item, str):
        return WireError("unsupported", f"unknown op {item[:64]!r}", param="edge.op", supported=list(OPS))
    return WireError("invalid_request", f"must be {_EDGE[name].metadata['allowed']}", param=f"edge.{name}")
