"""A client of the wire, free of transport: it asks nodes, and sees each answer through to its one end.

It repeats a request that nobody acknowledged, holds to the first node that answers, asks for what it missed after a
loss, and ends a request itself when the serving node is gone. Whoever owns the connection to the broker hands it what
arrives (`heard`, `up`, `down`) and takes from it what is to be published.

Like the wire a twin: the component for Home Assistant holds the same bytes, copied by `script/sync-wire`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from .exchange import Exchange
from .wire import (
    DEFAULT_ROOT,
    ONLINE,
    POOL,
    Info,
    Reply,
    State,
    Topics,
    WireError,
    decode_info,
    decode_reply,
    decode_state,
    dumps,
)

MAX_PAYLOAD: Final = 1 << 20
"""Bytes of a message that is read: no node sends as much, and whoever reads has other things to do."""
SETTLE_S: Final = 1.0
"""How long after connecting presence may still be on its way."""
GRACE_S: Final = 5.0
"""How long after a request's deadline its node may take to say so."""
_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid() -> str:
    """A new request id: a millisecond clock and 80 random bits, so that it sorts by time and cannot be guessed."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    return "".join(_BASE32[number >> shift & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True, slots=True)
class NodeView:
    """What presence says of a node."""

    name: str
    online: bool = False
    state: State | None = None
    info: Info | None = None
    refusal: WireError | None = None
    """Why its card could not be read: it speaks another protocol, or it is no card."""

    @property
    def ready(self) -> bool:
        return self.online and self.refusal is None and self.state is not None and self.state.phase == "ready"


class Client:
    """The requests of one client name under one root. `nodes` is the presence of every node, kept up to date.

    `publish` sends one message (topic, payload) at QoS 1. It may let a message go while the connection is down:
    whoever waits for an answer asks again. To hear anything, its owner subscribes to `filters`.
    """

    def __init__(
        self, name: str, publish: Callable[[str, bytes], Awaitable[None]], *, root: str = DEFAULT_ROOT
    ) -> None:
        self.name = name
        self.nodes: dict[str, NodeView] = {}
        self.connected = False
        self.topics = Topics(root)
        self._publish = publish
        self._exchanges: dict[str, Exchange] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._since = 0.0

    @property
    def filters(self) -> tuple[str, str]:
        """The two subscriptions: its answers, where retained messages are none of its own, and presence."""
        return self.topics.out(self.name), self.topics.presence("+", "+")

    def up(self) -> None:
        """The connection stands and the filters are subscribed."""
        self.connected, self._since = True, time.monotonic()
        for exchange in self._exchanges.values():
            exchange.reconnected()

    def down(self) -> None:
        """The connection is lost: what presence said holds no longer, and is sent again with the next one."""
        self.connected = False
        self.nodes = {name: replace(view, online=False, state=None) for name, view in self.nodes.items()}

    def stop(self) -> None:
        """The connection ends for good: cancel every request under way, each of which ends as `unavailable`."""
        self.connected = False
        for exchange in self._exchanges.values():
            exchange.stop()

    def heard(self, topic: str, payload: bytes) -> None:
        """Take one message of the filters; whatever is not of this protocol is let go."""
        if len(payload) > MAX_PAYLOAD:
            return
        try:
            address = self.topics.parse(topic)
            if address.kind == "out":
                reply = decode_reply(payload)
                if exchange := self._exchanges.get(reply.rid):
                    exchange.heard(reply)
                return
        except WireError:
            return  # Not for us to judge: a newer node, or a bare text meant for another program of this name.
        self._presence(address.node, address.kind, payload)

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call with the name of each node whose presence changed; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def changes(self) -> AsyncIterator[Mapping[str, NodeView]]:
        """Yield the presence of all nodes now and after every change."""
        changed = asyncio.Event()
        unlisten = self.listen(lambda _: changed.set())
        try:
            while True:
                changed.clear()
                yield dict(self.nodes)
                await changed.wait()
        finally:
            unlisten()

    async def ask(
        self, body: Mapping[str, Any], *, target: str = POOL, timeout_s: float = 120.0
    ) -> AsyncGenerator[Reply, None]:
        """Send an OpenAI body (with its `edge` object, if it has one) and yield its messages, the final last.

        Raises `WireError` when the answer is an error, or when it ends in no other way: no node is ready, the serving
        node goes away, the deadline passes. Closing the generator cancels the request.
        """
        await self._find(target)
        rid = ulid()
        edge = {"ack": True, "timeout_s": timeout_s, **body.get("edge", {})}
        exchange = Exchange(self, rid, target, {**body, "edge": edge}, time.monotonic() + timeout_s + GRACE_S)
        self._exchanges[rid] = exchange
        try:
            async for reply in exchange.replies():
                yield reply
        finally:
            del self._exchanges[rid]
            if not exchange.finished:
                await self.cancel(rid)

    async def complete(self, body: Mapping[str, Any], *, target: str = POOL, timeout_s: float = 120.0) -> Reply:
        """Ask and return the final message alone."""
        last = None
        async for reply in self.ask(body, target=target, timeout_s=timeout_s):
            last = reply
        if last is None:
            raise WireError("internal", "an answer without messages")
        return last

    async def cancel(self, rid: str, keep: str | None = None) -> None:
        """Stop a request everywhere, or everywhere but at one node."""
        await self._publish(self.topics.cancel(self.name, rid), dumps({"keep": keep}) if keep else b"")

    async def cancel_all(self) -> int:
        """Stop every request under way; each ends with `cancelled`. Returns how many there were."""
        running = list(self._exchanges)
        for rid in running:
            await self.cancel(rid)
        return len(running)

    async def order(self, node: str, op: str, *, timeout_s: float = 10.0, **values: Any) -> Mapping[str, Any]:
        """Give an operator's order to a node and return its answer; raises `WireError` when it is refused."""
        await self._find(node, ready=False)
        view = self.nodes[node]
        exchange = Exchange(self, ulid(), node, {}, time.monotonic() + timeout_s)
        self._exchanges[exchange.rid] = exchange
        try:
            payload = dumps({"op": op, "boot": view.state.boot if view.state else "", **values})
            await self._publish(self.topics.admin(node, self.name, exchange.rid), payload)
            return (await exchange.first()).body
        finally:
            del self._exchanges[exchange.rid]

    async def send(self, target: str, rid: str, body: Mapping[str, Any]) -> None:
        """Publish a request as it stands; an exchange does this."""
        await self._publish(self.topics.request(target, self.name, rid), dumps(body))

    def lives(self, node: str, boot: str) -> bool:
        """Whether presence shows this node online with this boot."""
        view = self.nodes.get(node)
        return view is not None and view.online and view.state is not None and view.state.boot == boot

    def serves(self, target: str, *, ready: bool = True) -> bool:
        """Whether presence shows the target, a node or the pool, online and, if asked for, ready."""
        views = self.nodes.values() if target == POOL else filter(None, [self.nodes.get(target)])
        return any(view.ready if ready else view.online for view in views)

    async def _find(self, target: str, *, ready: bool = True) -> None:
        """Return when a node that can answer is known; right after connecting, presence may still be on its way."""
        if self.serves(target, ready=ready):
            return
        changed = asyncio.Event()
        unlisten = self.listen(lambda _: changed.set())
        try:
            async with asyncio.timeout(max(0.0, self._since + SETTLE_S - time.monotonic())):
                while not self.serves(target, ready=ready):
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise self._nobody(target) from None
        finally:
            unlisten()

    def _nobody(self, target: str) -> WireError:
        online = [view for view in self.nodes.values() if view.online and target in (POOL, view.name)]
        if not online:
            who = "no node is" if target == POOL else f"the node {target} is not"
            return WireError("unavailable", f"{who} online; is the agent running on this broker?", offline=True)
        if all(view.state is not None and view.state.phase == "draining" for view in online):
            return WireError("draining", f"{', '.join(view.name for view in online)} is stopping", retry_after_s=5.0)
        phases = ", ".join(f"{view.name} is {view.state.phase if view.state else 'starting'}" for view in online)
        return WireError("unavailable", f"nobody is ready: {phases}", retry_after_s=2.0)

    def _presence(self, node: str, kind: str, payload: bytes) -> None:
        view = self.nodes.get(node, NodeView(node))
        try:
            view = _updated(view, kind, payload)
        except WireError as refusal:
            if kind == "state":
                return  # A state that cannot be read says nothing; the card says which side to upgrade.
            view = replace(view, info=None, refusal=refusal)
        self.nodes[node] = view
        if view == NodeView(node):
            del self.nodes[node]  # It was removed.
        boot = view.state.boot if view.online and view.state else None
        if boot or (kind == "status" and not view.online):
            for exchange in self._exchanges.values():
                exchange.gone(node, boot)
        for listener in [*self._listeners]:
            listener(node)


def _updated(view: NodeView, kind: str, payload: bytes) -> NodeView:
    """The view after one message of presence; raises `WireError` for one that cannot be read."""
    if kind == "status":
        return replace(view, online=payload == ONLINE.encode())
    if kind == "state":
        return replace(view, state=decode_state(payload) if payload else None)
    info = decode_info(payload) if payload else None
    if info and info.node != view.name:
        raise WireError("bad_json", f"the card of another node, {info.node}", param="node")
    return replace(view, info=info, refusal=None)
