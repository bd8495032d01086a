"""A client of the wire: asks a node or the pool, and sees each answer through to its one end.

It repeats a request that nobody acknowledged, holds to the first node that answers, asks for what it missed after a
loss, and ends a request itself when the serving node is gone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_agent.broker import Dialer, Inbound, Link, Outbound
from edge_agent.client.exchange import Exchange
from edge_agent.config import Broker
from edge_agent.errors import BrokerError, EngineFailed, first
from edge_agent.wire import (
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

_SETTLE_S: Final = 1.0
_GRACE_S: Final = 5.0
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

    @property
    def ready(self) -> bool:
        return self.online and self.state is not None and self.state.phase == "ready"


class Client:
    """Made by `connect`. `nodes` is the presence of every node, kept up to date."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name = name
        self.nodes: dict[str, NodeView] = {}
        self._topics = Topics(broker.root)
        self._dialer = Dialer(broker, f"edge_agent-client-{name}-{os.urandom(4).hex()}")
        self._patience_s = broker.timeout_s
        self._link: Link | None = None
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exchanges: dict[str, Exchange] = {}
        self._changed = asyncio.Condition()
        self._version = 0
        self._since = 0.0

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
        exchange = Exchange(self, rid, target, {**body, "edge": edge}, time.monotonic() + timeout_s + _GRACE_S)
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
        await self.publish(self._topics.cancel(self.name, rid), dumps({"keep": keep}) if keep else b"")

    async def order(self, node: str, op: str, **values: Any) -> Mapping[str, Any]:
        """Give an operator's order to a node and return its answer; raises `WireError` when it is refused."""
        await self._find(node, ready=False)
        view = self.nodes[node]
        exchange = Exchange(self, ulid(), node, {}, time.monotonic() + self._patience_s)
        self._exchanges[exchange.rid] = exchange
        try:
            payload = dumps({"op": op, "boot": view.state.boot if view.state else "", **values})
            await self.publish(self._topics.admin(node, self.name, exchange.rid), payload)
            return (await exchange.first()).body
        finally:
            del self._exchanges[exchange.rid]

    async def changes(self) -> AsyncIterator[Mapping[str, NodeView]]:
        """Yield the presence of all nodes now and after every change."""
        seen = -1
        while True:
            async with self._changed:
                while self._version == seen:
                    await self._changed.wait()
                seen = self._version
            yield dict(self.nodes)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish now; while the connection is lost, the message is let go: whoever waits for an answer asks again."""
        if self._link is not None:
            try:
                await self._link.publish(Outbound(topic, payload))
            except BrokerError:
                self._link = None

    async def send(self, target: str, rid: str, body: Mapping[str, Any]) -> None:
        await self.publish(self._topics.request(target, self.name, rid), dumps(body))

    @property
    def connected(self) -> bool:
        return self._link is not None

    def lives(self, node: str, boot: str) -> bool:
        """Whether presence shows this node online with this boot."""
        view = self.nodes.get(node)
        return view is not None and view.online and view.state is not None and view.state.boot == boot

    async def _find(self, target: str, *, ready: bool = True) -> None:
        """Return when a node that can answer is known; right after connecting, presence may still be on its way."""

        def found() -> bool:
            if target == POOL:
                return any(view.ready for view in self.nodes.values())
            view = self.nodes.get(target)
            return view is not None and (view.ready if ready else view.online)

        async with self._changed:
            try:
                async with asyncio.timeout(max(0.0, self._since + _SETTLE_S - time.monotonic())):
                    await self._changed.wait_for(found)
            except TimeoutError:
                raise self._nobody(target) from None

    def _nobody(self, target: str) -> WireError:
        online = [view for view in self.nodes.values() if view.online and target in (POOL, view.name)]
        if not online:
            who = "no node is" if target == POOL else f"the node {target} is not"
            return EngineFailed(f"{who} online; is the agent running on this broker?", code="unavailable")
        phases = ", ".join(f"{view.name} is {view.state.phase if view.state else 'starting'}" for view in online)
        return EngineFailed(f"nobody is ready: {phases}", code="unavailable", retry_after_s=2.0)

    async def _run(self) -> None:
        await self._dialer.keep(self._serve, self._lost)

    async def _serve(self, link: Link) -> None:
        await link.subscribe(self._topics.out(self.name), replay=False)
        await link.subscribe(self._topics.presence("+", "+"))
        self._link, self._since = link, time.monotonic()
        if not self._up.done():
            self._up.set_result(None)
        for exchange in self._exchanges.values():
            exchange.reconnected()
        async for message in link.messages():
            await self._heard(message)

    def _lost(self, error: BrokerError) -> None:
        self._link = None
        if not self._up.done():
            self._up.set_exception(error)

    async def _heard(self, message: Inbound) -> None:
        try:
            address = self._topics.parse(message.topic)
            if address.kind == "out":
                reply = decode_reply(message.payload)
                if exchange := self._exchanges.get(reply.rid):
                    exchange.heard(reply)
                return
            await self._presence(address.node, address.kind, message.payload)
        except WireError:
            return  # Not for us to judge: a newer node, or a bare text meant for another program of this name.

    async def _presence(self, node: str, kind: str, payload: bytes) -> None:
        view = self.nodes.get(node, NodeView(node))
        match kind:
            case "status":
                view = replace(view, online=payload == ONLINE.encode())
            case "state":
                view = replace(view, state=decode_state(payload) if payload else None)
            case "info":
                view = replace(view, info=decode_info(payload) if payload else None)
        self.nodes[node] = view
        self._version += 1
        if (kind == "status" and not view.online) or (kind == "state" and view.state):
            for exchange in self._exchanges.values():
                exchange.gone(node, view.state.boot if view.online and view.state else None)
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def connect(broker: Broker, name: str) -> AsyncIterator[Client]:
    """Connect for the length of a block; raises `BrokerError` when the first attempt fails, later ones are repeated."""
    client = Client(broker, name)
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:  # Should the keeper die, nobody waits for an answer any more.
            keeper = group.create_task(client._run(), name="mqtt client")  # noqa: SLF001
            await client._up  # noqa: SLF001
            yield client
            keeper.cancel()
    except* Exception as errors:  # noqa: BLE001 - raised again, out of its group
        failure = first(errors)
    if failure is not None:
        raise failure
