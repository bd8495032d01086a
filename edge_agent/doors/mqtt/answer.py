"""The answer to one request, as messages: statuses, chunks gathered for a while, and exactly one final."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.chat import answer as bodies
from edge_agent.envelope import Edge
from edge_agent.serving.events import Accepted, Delta, Done, Event, Failed, Progress, Queued
from edge_agent.wire import Reply, WireError

_HEARTBEAT_S = 5.0
"""A client hears something at least so often while its prompt is read."""
_PROGRESS_S = 2.0
"""And not more often than this."""
_WORTH_CUTTING = 32
"""Characters of a chunk that go together even where its envelope alone exceeds what the client asked for."""
_ENVELOPE = 1024
"""Bytes that a final or an error may have at the least: less would not hold its usage and timings."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who answers: the stamp of every message, and the limits of this node in bytes."""

    node: str
    boot: str
    model: str
    chunk_bytes: int
    final_bytes: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message of an answer, ready to go."""

    payload: bytes
    kind: str
    seq: int
    final: bool
    stored: bool = True
    """Whether it may be replayed: a retryable refusal may not."""


class Answer:
    """Turns the events of one request into messages. Calling it is the `emit` of the scheduler."""

    def __init__(
        self, rid: str, edge: Edge, sender: Sender, send: Callable[[Parcel], None], *, stream: bool = False
    ) -> None:
        self._rid = rid
        self._edge = edge
        self._sender = sender
        self._send = send
        self._stream = stream
        self._bare = edge.format == "text"
        self._chatty = (stream or edge.ack) and not self._bare
        self._created = int(time.time())
        self._chunk_bytes = min(sender.chunk_bytes, edge.max_msg_bytes or sender.chunk_bytes)
        self._final_bytes = min(sender.final_bytes, edge.max_msg_bytes or sender.final_bytes)
        if not self._bare:
            self._final_bytes = max(self._final_bytes, _ENVELOPE)
        self._seq = 0
        self._chunks = 0
        self._gathered: dict[str, Any] = {}
        self._logprobs: list[Mapping[str, Any]] = []
        self._window: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None
        self._progress: Progress | None = None
        self._last_s = 0.0
        self._muted = False

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Accepted(position, eta_s):
                self._status("accepted", {"position": position, "eta_s": eta_s})
            case Queued(position, eta_s):
                self._status("queued", {"position": position, "eta_s": eta_s})
            case Progress():
                self._progressed(event)
            case Delta(delta, logprobs):
                if self._stream:
                    self._gather(delta, logprobs)
            case Done():
                self._done(event)
            case Failed(error):
                self._fail(error)

    def mute(self) -> None:
        """Say nothing more: the client has chosen another node's answer."""
        self._muted = True

    def conflict(self, error: WireError) -> None:
        """Tell of another request under the same id; this one goes on."""
        self._post(self._refusal(error, final=False), "error")

    def reply(self, body: Mapping[str, Any]) -> None:
        """Answer with one final message, this body."""
        self._message("final", body, final=True)

    def _status(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._chatty:
            body = {"id": self._rid, "object": "edge.status"}
            self._message(kind, body | {k: v for k, v in values.items() if v is not None})

    def _progressed(self, progress: Progress) -> None:
        if not self._chatty:
            return
        self._progress = progress
        if self._heart is None:
            self._heart = asyncio.get_running_loop().call_later(_HEARTBEAT_S, self._beat)
        if time.monotonic() - self._last_s >= _PROGRESS_S and progress.read:
            self._status("progress", {"read": progress.read, "prompt": progress.prompt})

    def _beat(self) -> None:
        quiet = time.monotonic() - self._last_s
        if self._progress and quiet >= _HEARTBEAT_S:
            self._status("progress", {"read": self._progress.read, "prompt": self._progress.prompt})
            quiet = 0.0
        self._heart = asyncio.get_running_loop().call_later(_HEARTBEAT_S - quiet, self._beat)

    def _gather(self, delta: Mapping[str, Any], logprobs: tuple[Mapping[str, Any], ...]) -> None:
        """Send the first text at once, then what comes within a window together."""
        self._rest()
        if self._gathered and not _joined(self._gathered, delta):
            self._flush()
        if not self._gathered:
            self._gathered = dict(delta)
        self._logprobs.extend(logprobs)
        if self._edge.flush_ms == 0 or self._window is None:
            self._flush()
            if self._edge.flush_ms:
                self._window = asyncio.get_running_loop().call_later(self._edge.flush_ms / 1000, self._window_closed)

    def _window_closed(self) -> None:
        self._window = None
        if self._gathered:
            self._flush()
            self._window = asyncio.get_running_loop().call_later(self._edge.flush_ms / 1000, self._window_closed)

    def _flush(self) -> None:
        if self._gathered:
            delta, self._gathered = self._gathered, {}
            logprobs, self._logprobs = tuple(self._logprobs), []
            self._chunk({"role": "assistant", **delta} if not self._chunks else delta, logprobs)

    def _chunk(self, delta: dict[str, Any], logprobs: tuple[Mapping[str, Any], ...]) -> None:
        body = bodies.chunk(self._rid, self._created, self._sender.model, delta, logprobs=logprobs or None)
        payload = self._reply("chunk", body).encode()
        if len(payload) > self._chunk_bytes and (halves := _halves(delta)):
            middle = (len(logprobs) + 1) // 2
            self._chunk(halves[0], logprobs[:middle])
            self._chunk(halves[1], logprobs[middle:])
            return
        self._chunks += 1
        self._post(payload, "chunk")

    def _done(self, done: Done) -> None:
        self._close()
        if self._bare:
            calls = [{"name": call.name, "arguments": call.arguments} for call in done.calls]
            text = done.content or (json.dumps(calls, ensure_ascii=False) if calls else "")
            self._post(_cut(text, self._final_bytes), "final", final=True)
            return
        extra: dict[str, Any] = {"timings": done.timings.rounded()}
        if self._stream:
            extra["chunks"] = self._chunks
        if done.ignored:
            extra["ignored"] = list(done.ignored)
        if done.scores:
            extra["scores"] = list(done.scores)
        body = self._completion(done, done.content, done.reasoning, done.logprobs)
        payload = self._reply("final", body, extra, final=True).encode()
        if self._stream and (not self._edge.final_text or len(payload) > self._final_bytes):
            digest = hashlib.sha256(done.content.encode()).hexdigest()
            extra |= {"text_omitted": True, "chars": len(done.content), "sha256": digest}
            payload = self._reply("final", self._completion(done, "", ""), extra, final=True).encode()
        elif len(payload) > self._final_bytes:
            payload = self._truncated(done, extra | {"truncated": True})
        if len(payload) > self._final_bytes and (done.calls or done.scores):
            self._fail(WireError("too_large", f"the answer does not fit {self._final_bytes} bytes"))
        else:
            self._post(payload, "final", final=True)

    def _truncated(self, done: Done, extra: Mapping[str, Any]) -> bytes:
        """The final with as much of its text as fits."""

        def payload(characters: int) -> bytes:
            body = self._completion(done, done.content[:characters], "")
            return self._reply("final", body, extra, final=True).encode()

        lengths = range(1, len(done.content) + 1)
        return payload(bisect_right(lengths, self._final_bytes, key=lambda each: len(payload(each))))

    def _completion(
        self, done: Done, content: str, reasoning: str, logprobs: tuple[Mapping[str, Any], ...] = ()
    ) -> dict[str, Any]:
        return bodies.completion(
            self._rid,
            self._created,
            self._sender.model,
            content,
            reasoning=reasoning,
            calls=done.calls,
            finish_reason=done.finish_reason,
            usage=bodies.usage(done.usage.prompt, done.usage.cached, done.usage.completion),
            logprobs=logprobs or None,
        )

    def _fail(self, error: WireError) -> None:
        self._close()
        self._post(self._refusal(error, final=True), "error", final=True, stored=not error.code.retryable)

    def _refusal(self, error: WireError, *, final: bool) -> bytes:
        if self._bare:
            return _cut(error.text(), self._final_bytes)
        payload = self._reply("error", error.body(), final=final).encode()
        if len(payload) > self._final_bytes:
            short = WireError(error.code.name, error.message[:100], retry_after_s=error.retry_after_s)
            payload = self._reply("error", short.body(), final=final).encode()
        return payload

    def _close(self) -> None:
        self._flush()
        self._rest()
        if self._window:
            self._window.cancel()

    def _rest(self) -> None:
        """Stop the heartbeat: the prompt is read."""
        self._progress = None
        if self._heart:
            self._heart.cancel()
            self._heart = None

    def _message(self, kind: str, body: Mapping[str, Any], *, final: bool = False) -> None:
        self._post(self._reply(kind, body, final=final).encode(), kind, final=final)

    def _reply(
        self, kind: str, body: Mapping[str, Any], extra: Mapping[str, Any] | None = None, *, final: bool = False
    ) -> Reply:
        sender = self._sender
        return Reply(self._rid, self._seq, kind, sender.node, sender.boot, final, body, extra or {})

    def _post(self, payload: bytes, kind: str, *, final: bool = False, stored: bool = True) -> None:
        self._last_s = time.monotonic()
        seq, self._seq = self._seq, self._seq + 1
        parcel = Parcel(payload, kind, seq, final, stored)
        if not self._muted or final:
            self._send(parcel)

    @property
    def muted(self) -> bool:
        return self._muted


def _joined(gathered: dict[str, Any], delta: Mapping[str, Any]) -> bool:
    """Append a delta of the same kind to what is gathered; False when it is of another kind."""
    if gathered.keys() != delta.keys():
        return False
    [(name, value)] = delta.items()
    if name != "tool_calls":
        gathered[name] += value
        return True
    last, [call] = gathered[name][-1], value
    if "id" in call or call["index"] != last["index"]:
        gathered[name] = [*gathered[name], call]
    else:
        function = {**last["function"], "arguments": last["function"]["arguments"] + call["function"]["arguments"]}
        gathered[name] = [*gathered[name][:-1], {**last, "function": function}]
    return True


def _halves(delta: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Cut a delta in two, if there is anything worth cutting."""
    if calls := delta.get("tool_calls"):
        return _halved(delta, calls)
    name = next(
        (name for name in ("content", "reasoning_content") if len(delta.get(name) or "") > _WORTH_CUTTING), None
    )
    if name is None:
        return None
    middle = len(delta[name]) // 2
    return {**delta, name: delta[name][:middle]}, {name: delta[name][middle:]}


def _halved(delta: Mapping[str, Any], calls: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Part one half of the calls from the other, or of the only call's arguments."""
    if len(calls) > 1:
        middle = len(calls) // 2
        return {**delta, "tool_calls": calls[:middle]}, {"tool_calls": calls[middle:]}
    [call] = calls
    arguments = call["function"]["arguments"]
    if len(arguments) <= _WORTH_CUTTING:
        return None
    middle = len(arguments) // 2
    begin = {**call, "function": {**call["function"], "arguments": arguments[:middle]}}
    rest = {"index": call["index"], "function": {"arguments": arguments[middle:]}}
    return {**delta, "tool_calls": [begin]}, {"tool_calls": [rest]}


def _cut(text: str, limit: int) -> bytes:
    """The text in UTF-8, at most so many bytes, ending at a character."""
    return text.encode()[:limit].decode(errors="ignore").encode()
