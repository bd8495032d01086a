"""A client of the wire: asks a node or the pool, and sees each answer through to its one end.

It repeats a request that nobody acknowledged, holds to the first node that answers, asks for what it missed after a
loss, and ends a request itself when the serving node is gone.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_agent.broker import Dialer, Inbound, Link, Outbound
from edge_agent.config import Broker
from edge_agent.errors import BrokerError, EngineFailed
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

ATTEMPTS: Final = 3
FIRST_REPLY_S: Final = 3.0
SILENCE_S: Final = 10.0
RETURN_S: Final = 2.0
"""How long a node that left the broker in mid-answer has to come back with the same boot."""
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
        self._exchanges: dict[str, _Exchange] = {}
        self._changed = asyncio.Condition()
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
        exchange = _Exchange(self, rid, target, {**body, "edge": edge}, time.monotonic() + timeout_s + _GRACE_S)
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
        exchange = _Exchange(self, ulid(), node, {}, time.monotonic() + self._patience_s)
        self._exchanges[exchange.rid] = exchange
        try:
            payload = dumps({"op": op, "boot": view.state.boot if view.state else "", **values})
            await self.publish(self._topics.admin(node, self.name, exchange.rid), payload)
            return (await exchange.first()).body
        finally:
            del self._exchanges[exchange.rid]

    async def changes(self) -> AsyncIterator[Mapping[str, NodeView]]:
        """Yield the presence of all nodes now and after every change."""
        while True:
            yield dict(self.nodes)
            async with self._changed:
                await self._changed.wait()

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
        if (kind == "status" and not view.online) or (kind == "state" and view.state):
            for exchange in self._exchanges.values():
                exchange.gone(node, view.state.boot if view.online and view.state else None)
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def connect(broker: Broker, name: str) -> AsyncIterator[Client]:
    """Connect for the length of a block; raises `BrokerError` when the first attempt fails, later ones are repeated."""
    client = Client(broker, name)
    keeper = asyncio.create_task(client._run(), name="mqtt client")  # noqa: SLF001
    try:
        await client._up  # noqa: SLF001
        yield client
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


class _Exchange:
    """One request and its answer: repeats, repairs and ends."""

    def __init__(self, client: Client, rid: str, target: str, body: Mapping[str, Any], deadline: float) -> None:
        self.rid = rid
        self.finished = False
        self._client = client
        self._target = target
        self._body = body
        self._deadline = deadline
        self._inbox: asyncio.Queue[Reply | str] = asyncio.Queue()
        self._server: tuple[str, str] | None = None
        self._seen = -1
        self._written = False
        self._attempts = 0
        self._silences = 0
        self._doubted = False
        self._spurned: set[tuple[str, str]] = set()

    def heard(self, reply: Reply) -> None:
        self._inbox.put_nowait(reply)

    def gone(self, node: str, boot: str | None = None) -> None:
        """The node is off the broker, or back with another boot."""
        if self._server is not None and self._server[0] == node and self._server[1] != boot:
            self._inbox.put_nowait("gone")

    def reconnected(self) -> None:
        self._inbox.put_nowait("reconnected")

    async def first(self) -> Reply:
        """The first message, whatever it is."""
        item = await self._next(self._deadline - time.monotonic())
        if not isinstance(item, Reply):
            raise WireError("expired", "no answer in time")
        if item.kind == "error":
            raise item.error()
        return item

    async def replies(self) -> AsyncGenerator[Reply, None]:
        """Send the request, and yield its messages in order, each once, up to the final."""
        await self._send()
        while True:
            item = await self._next(self._patience())
            if not isinstance(item, Reply):
                await self._mend(item)
                continue
            if not await self._ours(item):
                continue
            self._silences, self._doubted = 0, False
            self._seen = item.seq
            self._written = self._written or item.kind == "chunk"
            if item.kind == "error":
                self.finished = item.final
                raise item.error()
            if item.final:
                self.finished = True
            yield item
            if item.final:
                return

    def _patience(self) -> float:
        quiet = FIRST_REPLY_S if self._server is None else RETURN_S if self._doubted else SILENCE_S
        return max(0.0, min(quiet, self._deadline - time.monotonic()))

    async def _next(self, patience: float) -> Reply | str:
        try:
            async with asyncio.timeout(patience):
                return await self._inbox.get()
        except TimeoutError:
            return "silence"

    async def _ours(self, reply: Reply) -> bool:
        """Hold to the first node that answers; drop what was seen, and send other nodes away."""
        server = (reply.node, reply.boot)
        if self._server is None:
            self._server = server
        if server != self._server:
            if server not in self._spurned:
                self._spurned.add(server)
                await self._client.cancel(self.rid, keep=self._server[0])
            return False
        return reply.seq > self._seen

    async def _mend(self, trouble: str) -> None:
        """Do what helps against silence, a lost connection or a lost node; raises when nothing does."""
        if time.monotonic() >= self._deadline:
            raise WireError("expired", "no answer before the deadline")
        if self._server is None:
            if self._client.connected:
                await self._send()
        elif trouble == "gone" and self._written:
            self._doubted = True
        elif trouble == "gone":
            self._server, self._seen = None, -1
            await self._send()
        elif self._doubted and not self._client.lives(*self._server):
            raise EngineFailed(f"the node {self._server[0]} went away in mid-answer", retry_after_s=1.0)
        else:
            await self._resume()

    async def _send(self) -> None:
        if self._attempts == ATTEMPTS:
            raise EngineFailed("no node acknowledged the request", code="unavailable", retry_after_s=2.0)
        if self._attempts:
            await asyncio.sleep(2 ** (self._attempts - 1) * random.uniform(0.8, 1.2))  # noqa: S311
        self._attempts += 1
        await self._client.send(self._target, self.rid, self._body)

    async def _resume(self) -> None:
        """Ask the serving node for what it sent since the last message that came."""
        self._silences += 1
        if self._silences > ATTEMPTS and self._server:
            raise EngineFailed(f"the node {self._server[0]} fell silent", retry_after_s=1.0)
        if self._server:
            node, boot = self._server
            edge = {"op": "resume", "boot": boot, "seq": self._seen}
            await self._client.send(node, self.rid, {"edge": edge})
