"""A node on the test's broker: presence, scripted answers, and a record of what it was asked.

`mqtt_mock` is the broker. It echoes what Home Assistant publishes and confirms its subscriptions; a `Node` adds what
is missing: it hears requests, cancels and orders, and its presence is retained, so a late subscriber gets it, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from homeassistant.core import HomeAssistant
from homeassistant.util.hass_dict import HassKey
from paho.mqtt.client import topic_matches_sub
from pytest_homeassistant_custom_component.common import async_fire_mqtt_message
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.edge_agent.wire import (
    OFFLINE,
    ONLINE,
    POOL,
    Info,
    Reply,
    State,
    Topics,
    WireError,
    dumps,
    encode_presence,
    loads,
)

NODES: HassKey[list[Node]] = HassKey("test_nodes")
READY = State(
    boot="boot1",
    phase="ready",
    room=8,
    read_tps=210.0,
    write_tps=14.5,
    first_token_s=0.25,
    cache_hits=0.9,
    memory=512_000_000,
)


@dataclass(frozen=True)
class Request:
    """A request, or an order, as it arrived."""

    topic: str
    target: str
    client: str
    rid: str
    body: Mapping[str, Any]

    @property
    def edge(self) -> Mapping[str, Any]:
        return self.body.get("edge", {})

    @property
    def op(self) -> str:
        return self.edge.get("op", self.body.get("op", "chat"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body.get("messages", [])


@dataclass(frozen=True)
class Answer:
    """One message of an answer. `seq` counts by itself unless a script sets it: lost, repeated, late."""

    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    seq: int | None = None

    @property
    def ends(self) -> bool:
        return self.kind in ("final", "error")


def accepted(position: int = 0) -> Answer:
    return Answer("accepted", {"position": position})


def chunk(**delta: Any) -> Answer:
    """One chunk with this delta, as OpenAI names it: content, reasoning_content, tool_calls."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return Answer("chunk", {"object": "chat.completion.chunk", "choices": [choice]})


def tool_call(name: str, arguments: Mapping[str, Any] | str = "{}", id_: str = "call-1", index: int = 0) -> Any:
    """A whole tool call, for a chunk or a final."""
    text = arguments if isinstance(arguments, str) else dumps(arguments).decode()
    return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": text}}


def final(
    content: str | None = "", *, calls: Iterable[Any] = (), thought: str = "", reason: str = "", **extra: Any
) -> Answer:
    """The whole answer; `extra` goes into its `edge` object."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    if calls := [*calls]:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": reason or ("tool_calls" if calls else "stop")}
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "total_tokens": 105,
        "prompt_tokens_details": {"cached_tokens": 90},
    }
    body = {"object": "chat.completion", "model": "smollm2-135m", "choices": [choice], "usage": usage}
    return Answer("final", body, extra)


def error(code: str, message: str = "no", *, retry_after_s: float | None = None, **details: Any) -> Answer:
    return Answer("error", WireError(code, message, retry_after_s=retry_after_s, **details).body())


def speak(*parts: str) -> list[Answer]:
    """An answer in words, a chunk for each part."""
    return [accepted(), *(chunk(content=part) for part in parts), final("".join(parts))]


def act(*calls: Any) -> list[Answer]:
    """An answer that calls tools: `tool_call`s with an id and an index each."""
    return [accepted(), *(chunk(tool_calls=[call]) for call in calls), final(None, calls=calls)]


Script = Callable[[Request], Iterable[Answer] | AsyncIterable[Answer]]


class Node:
    """One node. It says "OK." to everything until `on` gives it a script; no answers are silence.

    `requests`, `orders` and `cancels` (the rid, and the node to keep) are what it heard, in order.
    """

    def __init__(
        self, hass: HomeAssistant, mqtt_mock: MqttMockHAClient, name: str = "attic", root: str = "edge_agent"
    ) -> None:
        self.name = name
        self.topics = Topics(root)
        self.requests: list[Request] = []
        self.orders: list[Request] = []
        self.cancels: list[tuple[str, str | None]] = []
        self.info = Info(
            node=name,
            software="0.2.0",
            model="smollm2-135m",
            engine="openvino",
            template="smollm2",
            context=8192,
            limits={"max_tokens": 512},
            capabilities={"constrained": True, "parallel": 4, "prefix_cache": True, "scores": True},
        )
        self.state = READY
        self._hass = hass
        self._paho = mqtt_mock._mqttc
        self._retained: dict[str, bytes] = {}
        self._open: dict[str, Request] = {}
        self._seq: dict[str, int] = {}
        self._script: Script = lambda _: speak("OK.")
        self._order_script: Script = lambda _: ()  # As a node that names nobody in admin.clients.
        hass.data.setdefault(NODES, []).append(self)
        self._wrap("publish", self._published)
        self._wrap("subscribe", self._subscribed)

    def on(self, script: Script) -> None:
        """Answer every request from now on with what the script gives for it."""
        self._script = script

    def on_order(self, script: Script) -> None:
        self._order_script = script

    def say(self, *answers: list[Answer]) -> None:
        """Give these answers to the next requests that are chats, one each; the last one to all that follow."""
        left = [*answers]
        self.on(lambda request: (left.pop(0) if len(left) > 1 else left[0]) if request.op == "chat" else [final()])

    def online(self, *, info: Info | None = None, state: State | None = None, **changes: Any) -> None:
        """Be on the broker, in the order of a real start; `changes` are fields of the state."""
        self.info = info or self.info
        self.state = replace(state or self.state, **changes)
        self._retain("state", encode_presence(self.state))
        self._retain("status", ONLINE.encode())
        self._retain("info", encode_presence(self.info))

    def change(self, **changes: Any) -> None:
        """Publish a state with these fields changed."""
        self.state = replace(self.state, **changes)
        self._retain("state", encode_presence(self.state))

    def offline(self) -> None:
        self._retain("status", OFFLINE.encode())

    def remove(self) -> None:
        """Clear the retained presence, as whoever removes a node for good does."""
        for kind in ("status", "info", "state"):
            self._retain(kind, b"")

    def card(self, payload: bytes) -> None:
        """Publish an info card as it stands."""
        self._retain("info", payload)

    def send(self, request: Request, answer: Answer) -> None:
        """Publish one message of an answer, whenever a test wants it."""
        seq = answer.seq if answer.seq is not None else self._seq.get(request.rid, 0)
        self._seq[request.rid] = seq + 1
        if answer.ends:
            self._open.pop(request.rid, None)
        body = {"id": request.rid, **answer.body}
        reply = Reply(request.rid, seq, answer.kind, self.name, self.state.boot, answer.ends, body, answer.extra)
        async_fire_mqtt_message(self._hass, self.topics.out(request.client), reply.encode(), 1)

    def present_again(self) -> None:
        """What the broker does for whoever subscribes again: send all that is retained."""
        for topic, payload in self._retained.items():
            if payload:
                async_fire_mqtt_message(self._hass, topic, payload, 1, True)

    def _wrap(self, method: str, hear: Callable[..., None]) -> None:
        mock = getattr(self._paho, method)
        inner = mock.side_effect

        def outer(*args: Any, **kwargs: Any) -> Any:
            result = inner(*args, **kwargs)
            hear(*args)
            return result

        mock.side_effect = outer

    def _published(self, topic: str, payload: bytes | None, *_: Any) -> None:
        try:
            address = self.topics.parse(topic)
        except WireError:
            return
        mine = address.node == self.name or (address.node == POOL and self.state.phase == "ready")
        if self._retained.get(self.topics.presence(self.name, "status")) != ONLINE.encode():
            return
        if address.kind == "cancel":
            keep = loads(payload).get("keep") if payload else None
            self.cancels.append((address.rid, keep))
            if keep != self.name and (request := self._open.get(address.rid)):
                self._hass.loop.call_soon(self.send, request, error("cancelled", "cancelled by the client"))
        elif address.kind in ("req", "admin") and mine:
            request = Request(topic, address.node, address.client, address.rid, loads(payload or b"{}"))
            (self.orders if address.kind == "admin" else self.requests).append(request)
            self._answer(request, (self._order_script if address.kind == "admin" else self._script)(request))

    def _answer(self, request: Request, answers: Iterable[Answer] | AsyncIterable[Answer]) -> None:
        self._open[request.rid] = request
        if isinstance(answers, AsyncIterable):
            self._hass.async_create_background_task(self._stream(request, answers), f"answer of {self.name}")
        else:
            for answer in answers:
                self._hass.loop.call_soon(self.send, request, answer)

    async def _stream(self, request: Request, answers: AsyncIterable[Answer]) -> None:
        async for answer in answers:
            self.send(request, answer)

    def _retain(self, kind: str, payload: bytes) -> None:
        topic = self.topics.presence(self.name, kind)
        self._retained[topic] = payload
        async_fire_mqtt_message(self._hass, topic, payload, 1)

    def _subscribed(self, topics: str | list[tuple[str, int]], *_: Any) -> None:
        filters = [topics] if isinstance(topics, str) else [each for each, _ in topics]
        for topic, payload in self._retained.items():
            if payload and any(topic_matches_sub(each, topic) for each in filters):
                self._hass.loop.call_soon(async_fire_mqtt_message, self._hass, topic, payload, 1, True)
