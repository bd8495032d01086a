"""The MQTT door: reads requests, cancels and orders from the broker, and sends every answer to its client."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.broker import Dialer, Extras, Inbound, Link, Outbound
from edge_agent.chat.named import NamedTemplate
from edge_agent.chat.named import apply as apply_named
from edge_agent.chat.request import parse
from edge_agent.config import Config
from edge_agent.doors.mqtt.admin import Operations, perform
from edge_agent.doors.mqtt.answer import Answer, Parcel, Sender
from edge_agent.doors.mqtt.claim import claim
from edge_agent.doors.mqtt.outbox import Outbox
from edge_agent.doors.mqtt.pool import Pool
from edge_agent.doors.mqtt.presence import Presence
from edge_agent.envelope import Edge, Request, decode_request, is_plain
from edge_agent.errors import BrokerError
from edge_agent.serving.backlog import Key
from edge_agent.serving.events import Failed
from edge_agent.serving.ledger import Ledger, Standing
from edge_agent.serving.scheduler import Job, Scheduler
from edge_agent.wire import OFFLINE, Address, Info, State, Topics, WireError, decode_cancel, decode_reply

_LOG = logging.getLogger(__name__)
_ORDER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Node:
    """What the door says of the node it stands in."""

    name: str
    boot: str
    model: str
    phase: Callable[[], str]
    room: Callable[[], int]
    """How many more requests it would admit."""
    describe: Callable[[bool], tuple[State, Info | None]]
    """The state of this moment, given whether the pool is shared, and the card once the engine is known."""


@dataclass(frozen=True, slots=True)
class _Route:
    """Where the messages of one answer go, and what every one of them carries."""

    topic: str
    extras: Extras | None
    expires: float | None


class MqttDoor:
    """One node on one broker. `run` lasts until `close`; what is queued survives the loss of a connection."""

    def __init__(
        self,
        config: Config,
        node: Node,
        scheduler: Scheduler,
        templates: Mapping[str, NamedTemplate],
        operations: Operations,
    ) -> None:
        self._config = config
        self._node = node
        self._scheduler = scheduler
        self._templates = templates
        self._operations = operations
        self._topics = Topics(config.broker.root)
        limits, backlog = config.limits, config.backlog
        self._sender = Sender(node.name, node.boot, node.model, limits.chunk_bytes, limits.final_bytes)
        self._ledger = Ledger(backlog.finals_per_client, backlog.finals_bytes_per_client, backlog.clients)
        self._answers: dict[Key, tuple[Answer, str]] = {}
        """What is being answered, and on which topic."""
        self._outbox = Outbox()
        self._presence = Presence(node.name, self._topics, self._outbox, self._describe)
        self._pool = Pool(self._topics, config.pool.group, self._pool_wanted, self.changed)
        self._closing = asyncio.Event()
        self._dialer = Dialer(
            config.broker,
            f"edge_agent-{node.name}",
            Outbound(self._topics.presence(node.name, "status"), OFFLINE.encode(), retain=True),
        )
        self.connected = asyncio.Event()
        self.reconnects = 0

    async def run(self) -> None:
        """Serve until closed; raises `NodeNameTaken` when another agent has this node's name."""
        node = self._node
        try:
            async with Dialer(self._config.broker, f"edge_agent-{node.name}-{node.boot}").connect() as link:
                await claim(link, self._topics, node.name, node.boot)
        except BrokerError as error:  # It may come up, or learn to let us in: go on and try.
            self._lost(error)
        await self._dialer.keep(self._serve, self._lost)

    def close(self) -> None:
        """Say goodbye to the broker once everything queued has been sent; `run` then returns."""
        self._presence.goodbye()
        self._closing.set()

    def changed(self) -> None:
        """Note that the node's state may have changed."""
        self._presence.changed()
        self._pool.look()

    async def _serve(self, link: Link) -> None:
        topics, node = self._topics, self._node.name
        if self._config.pool.join:
            await self._pool.enter(link)  # Who reads in our presence that we are ready may ask at once.
        await link.subscribe(topics.request(node, "+", "+"), replay=False)
        await link.subscribe(topics.cancel("+", "+"), replay=False)
        if self._config.admin.clients:
            await link.subscribe(topics.admin(node, "+", "+"), replay=False)
        await link.subscribe(topics.presence("+", "status"))
        await link.subscribe(topics.presence("+", "state"))
        _LOG.info("connected to %s", self._dialer.where, extra={"node": node})
        self.connected.set()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._read(link), name="mqtt reader"),
                group.create_task(self._outbox.pump(link), name="mqtt writer"),
            ]
            if self._config.pool.join:
                tasks.append(group.create_task(self._pool.run(link), name="mqtt pool"))
            tasks.append(group.create_task(self._presence.run(), name="mqtt presence"))
            await self._closing.wait()
            await self._outbox.emptied()
            for task in tasks:
                task.cancel()

    def _lost(self, error: BrokerError) -> None:
        level = logging.WARNING if self.connected.is_set() or not self.reconnects else logging.DEBUG
        _LOG.log(level, "%s", error)
        self.connected.clear()
        self.reconnects += 1

    async def _read(self, link: Link) -> None:
        async for message in link.messages():
            try:
                address = self._topics.parse(message.topic)
            except WireError as error:
                _LOG.warning("a message on a topic that is none", extra={"why": error.message})
                continue
            if address.kind in ("status", "state", "info"):
                self._presence.heard(address, message)
            elif not message.retained:  # A retained order would be carried out again at every start.
                self._handle(address, message)
                await self._outbox.room()

    def _handle(self, address: Address, message: Inbound) -> None:
        match address.kind:
            case "req":
                self._request(address, message)
            case "cancel":
                self._cancel(address, message)
            case "admin":
                self._admin(address, message)

    def _request(self, address: Address, message: Inbound) -> None:
        key, route = (address.client, address.rid), self._route(address.client, message.extras)
        envelope, refusal = self._decode(message.payload)
        if envelope.edge.op == "resume":
            self._resume(key, envelope.edge, route)
            return
        fingerprint = hashlib.blake2b(message.payload, digest_size=16).digest()
        match self._ledger.standing(key, fingerprint, time.monotonic()):
            case Standing.NEW:
                self._begin(key, fingerprint, envelope, route, refusal)
            case Standing.CANCELLED:
                self._begin(key, fingerprint, envelope, route, WireError("cancelled", "cancelled before it came"))
            case Standing.RUNNING | Standing.FINISHED:
                self._repeat(key, route)
            case Standing.CONFLICT:
                self._conflict(key, envelope.edge, route)
            case Standing.SPARED:
                _LOG.debug("another node answers", extra={"rid": address.rid})

    def _decode(self, payload: bytes) -> tuple[Request, WireError | None]:
        """Read a request; when that fails, an empty one to be answered in its own format, and why."""
        try:
            return decode_request(payload, self._config.limits.request_bytes), None
        except WireError as error:
            return Request({}, Edge(format="text" if is_plain(payload) else "json")), error

    def _begin(self, key: Key, fingerprint: bytes, envelope: Request, route: _Route, refusal: WireError | None) -> None:
        edge, limits = envelope.edge, self._config.limits
        self._ledger.open(key, fingerprint)
        answer = self._answer(key, edge, route, stream=envelope.body.get("stream") is True)
        self._answers[key] = (answer, route.topic)
        try:
            if refusal is not None:
                raise refusal
            request = parse(apply_named(envelope.body, edge, self._templates), edge)
            if request.model not in (None, "", "default", self._node.model):
                message = f"this node serves {self._node.model}"
                raise WireError("model_not_found", message, param="model", served=self._node.model)
            timeout_s = min(edge.timeout_s or limits.timeout_s, limits.max_timeout_s)
            if route.expires is not None:
                timeout_s = min(timeout_s, route.expires - time.monotonic())
            self._scheduler.submit(key, Job(request, answer), timeout_s)
        except WireError as error:
            answer(Failed(error))

    def _refuse(self, key: Key, edge: Edge, route: _Route, error: WireError) -> None:
        """Answer a request that is not remembered: it would be refused in the same words again."""
        Answer(key[1], edge, self._sender, lambda parcel: self._post(key, route, parcel))(Failed(error))

    def _repeat(self, key: Key, route: _Route) -> None:
        """Answer a duplicate: the final again, or the latest status of what still runs."""
        entry = self._ledger.find(key)
        if entry and entry.finished:
            self._replay(key, route, [payload for _, payload in entry.messages])
        elif entry and entry.status:
            self._replay(key, route, [entry.status[1]])

    def _conflict(self, key: Key, edge: Edge, route: _Route) -> None:
        error = WireError("id_conflict", "this id belongs to another request; choose a new one")
        answer, topic = self._answers.get(key, (None, ""))
        if answer and topic == route.topic:
            answer.conflict(error)  # Its reader counts the messages.
        else:
            Answer(key[1], edge, self._sender, lambda parcel: self._post(key, route, parcel)).conflict(error)

    def _resume(self, key: Key, edge: Edge, route: _Route) -> None:
        entry = self._ledger.find(key)
        if entry is None or edge.boot not in (None, self._node.boot):
            error = WireError("expired", "nothing is stored under this id")
            self._refuse(key, edge, route, error)
        else:
            self._replay(key, route, entry.since(edge.seq))

    def _replay(self, key: Key, route: _Route, payloads: list[bytes]) -> None:
        for payload in payloads:
            self._post(key, route, _parcel(payload))

    def _cancel(self, address: Address, message: Inbound) -> None:
        key = (address.client, address.rid)
        try:
            keep = decode_cancel(_order(message.payload))
        except WireError as error:
            _LOG.warning("a cancel that cannot be read", extra={"client": address.client, "why": error.message})
            return
        if keep == self._node.name:
            return
        if running := self._answers.get(key):
            if keep is not None:
                running[0].mute()
            self._scheduler.cancel(key, WireError("cancelled", "cancelled by its client"))
        elif not self._ledger.find(key):
            self._ledger.entomb(key, time.monotonic(), spared=keep is not None)

    def _admin(self, address: Address, message: Inbound) -> None:
        key = (address.client, address.rid)
        route = self._route(address.client, message.extras)
        try:
            if address.client not in self._config.admin.clients:
                raise WireError("forbidden", f"{address.client} is not among admin.clients")
            body = perform(_order(message.payload), self._node.boot, self._operations)
        except WireError as error:
            self._refuse(key, Edge(), route, error)
            return
        _LOG.warning("an operator's order", extra={"op": body["op"], "client": address.client})
        Answer(key[1], Edge(), self._sender, lambda parcel: self._post(key, route, parcel)).reply(body)

    def _answer(self, key: Key, edge: Edge, route: _Route, *, stream: bool) -> Answer:
        def send(parcel: Parcel) -> None:
            if parcel.final:
                answer, _ = self._answers.pop(key)
                if parcel.stored:
                    self._ledger.settle(key, parcel.seq, parcel.payload)
                else:
                    self._ledger.forget(key)
                if answer.muted:
                    return
            else:
                status = parcel.kind not in ("chunk", "error")
                self._ledger.record(key, parcel.seq, parcel.payload, status=status)
            self._post(key, route, parcel)

        return Answer(key[1], edge, self._sender, send, stream=stream)

    def _post(self, key: Key, route: _Route, parcel: Parcel) -> None:
        extras = route.extras
        if extras is not None:
            user = (("kind", parcel.kind), ("seq", str(parcel.seq)), ("final", str(parcel.final).lower()))
            left = None if route.expires is None else max(1, int(route.expires - time.monotonic()))
            content_type = "application/json" if parcel.payload.startswith(b"{") else "text/plain"
            extras = Extras(
                correlation=extras.correlation,
                expiry_s=left,
                content_type=content_type,
                user=(*user, ("node", self._node.name)),
            )
        self._outbox.put(Outbound(route.topic, parcel.payload, extras=extras), droppable=parcel.kind == "chunk")
        if parcel.final:
            _LOG.info("answered", extra={"client": key[0], "rid": key[1], "outcome": parcel.kind})

    def _route(self, client: str, extras: Extras | None) -> _Route:
        """The reply topic: the client's own, or one below it that its request names."""
        topic = self._topics.out(client)
        if extras is None:
            return _Route(topic, None, None)
        wanted = extras.response_topic or ""
        if wanted.startswith(f"{topic}/") and not {"+", "#", "\0"} & set(wanted):
            topic = wanted
        expires = None if extras.expiry_s is None else time.monotonic() + extras.expiry_s
        return _Route(topic, Extras(correlation=extras.correlation), expires)

    def _describe(self) -> tuple[State, Info | None]:
        return self._node.describe(self._pool.shared)

    def _pool_wanted(self) -> bool:
        """Member while ready with room; and when full or draining, unless another node can take over."""
        phase = self._node.phase()
        able = phase == "ready" and self._node.room() > 0
        return able or (phase in ("ready", "draining") and not self._presence.others_have_room)


def _order(payload: bytes) -> bytes:
    """Refuse what is too long for a cancel or an operator's order, before it is parsed."""
    if len(payload) > _ORDER_BYTES:
        raise WireError("too_large", f"{len(payload)} bytes; an order has at most {_ORDER_BYTES}", limit=_ORDER_BYTES)
    return payload


def _parcel(payload: bytes) -> Parcel:
    """A message that was sent before, to be sent again."""
    try:
        reply = decode_reply(payload)
    except WireError:  # Bare text is one message, or an error in one line.
        return Parcel(payload, "error" if payload.startswith(b"error: ") else "final", 0, final=True)
    return Parcel(payload, reply.kind, reply.seq, reply.final)
