"""The one place that knows an MQTT library. A `Dialer` makes connections, a `Link` is one of them.

What aiomqtt 2.5 asks for (docs/decisions/0005): a new client object for every attempt, one reader, one writer,
TCP_NODELAY set by hand, and a socket closed by us where a connection attempt fails half-way.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import Broker
from edge_agent.errors import BrokerError, first

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
_INCOMING = 10_000
"""Messages read but not yet handled; what comes beyond is dropped, and its sender tries again."""
_INCOMING_BYTES = 32 << 20
"""And their bytes."""
_LARGEST = 16 << 20
"""Bytes of the largest packet the broker may send us; above our own limits, so that those can be answered."""
_WRONG_VERSION = (1, 132)
_DENIED = (4, 5, 134, 135)
_GOODBYE_S = 2.0
_PROBE_S = 2.0


@dataclass(frozen=True, slots=True)
class Extras:
    """The MQTT 5 properties we read and mirror; all of them are optional and absent on 3.1.1."""

    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    content_type: str | None = None
    user: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message from the broker."""

    topic: str
    payload: bytes
    retained: bool
    extras: Extras | None
    """None when the sender used none of them."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to the broker, at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    extras: Extras | None = None


class Link:
    """A live connection. Every method raises `BrokerError` once it is lost."""

    def __init__(self, client: aiomqtt.Client, protocol: aiomqtt.ProtocolVersion, where: str) -> None:
        self._client = client
        self._where = where
        self.v5 = protocol is aiomqtt.ProtocolVersion.V5

    async def subscribe(self, pattern: str, *, replay: bool = True) -> None:
        """Subscribe at QoS 1, or raise when the broker refuses. `replay` asks for the retained messages too."""
        if not await self._granted(pattern, replay=replay):
            raise BrokerError(f"{self._where} refuses a subscription to {pattern}: check its access control list")

    async def shares(self, topic: str) -> bool:
        """Whether the broker has shared subscriptions: some refuse them, some accept them and deliver nothing."""
        return await self._delivers(f"$share/probe/{topic}", topic)

    async def hears_itself(self, topic: str) -> bool:
        """Whether we may write and read this topic: an access list refuses neither aloud, and delivers nothing."""
        return await self._delivers(topic, topic)

    async def _delivers(self, pattern: str, topic: str) -> bool:
        """Send a message to ourselves, on a topic that nobody else uses and before any other subscription."""
        if not await self._granted(pattern, replay=False):
            return False
        await self.publish(Outbound(topic, b"probe"))
        try:
            async with asyncio.timeout(_PROBE_S), aclosing(self.messages()) as messages:
                await anext(messages)
                delivered = True
        except TimeoutError:
            delivered = False
        await self.unsubscribe(pattern)
        return delivered

    async def _granted(self, pattern: str, *, replay: bool) -> bool:
        options = None
        if self.v5:
            shared = pattern.startswith("$share/")
            handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if replay else SubscribeOptions.RETAIN_DO_NOT_SEND
            # Retain-as-published shows that a request was sent retained, also when it comes live.
            options = SubscribeOptions(qos=1, retainAsPublished=not replay, retainHandling=0 if shared else handling)
        with self._errors():
            codes = await self._client.subscribe(pattern, qos=0 if options else 1, options=options)
        return all((code if isinstance(code, int) else code.value) < 128 for code in codes)

    async def unsubscribe(self, pattern: str) -> None:
        with self._errors():
            await self._client.unsubscribe(pattern)

    async def publish(self, message: Outbound) -> None:
        """Publish and wait until the broker has it."""
        properties = _properties(message.extras) if self.v5 and message.extras else None
        with self._errors():
            await self._client.publish(
                message.topic, message.payload, qos=1, retain=message.retain, properties=properties
            )

    async def messages(self) -> AsyncGenerator[Inbound, None]:
        """Everything that arrives, in order; for one reader only."""
        with self._errors():
            async for message in self._client.messages:
                yield Inbound(message.topic.value, message.payload, message.retain, _extras(message.properties))

    @staticmethod
    def _errors() -> _Translated:
        return _Translated()


class _Translated:
    """Turns the library's errors into ours."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (aiomqtt.MqttError, OSError)):
            raise BrokerError(f"the connection to the broker is lost: {error}") from error


class Dialer:
    """Knows one broker and how to reach it; remembers which protocol version it speaks."""

    def __init__(self, broker: Broker, identifier: str, will: Outbound | None = None) -> None:
        self._broker = broker
        self._identifier = identifier
        self._will = will
        self._v5 = broker.protocol != "3.1.1"
        self._proved = False
        self.where = f"the broker at {broker.host}:{broker.port}"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Link]:
        """Connect for the length of a block; raises `BrokerError` saying what to look at."""
        tls = await asyncio.to_thread(self._tls)
        client = self._client(tls)
        protocol = aiomqtt.ProtocolVersion.V5 if self._v5 else aiomqtt.ProtocolVersion.V311
        try:
            try:
                await client.__aenter__()
            except (aiomqtt.MqttError, ValueError) as error:  # No host can have some names.
                raise self._refusal(error, reached=client.reached) from error
            self._proved = True
            try:
                yield Link(client, protocol, self.where)
            finally:
                client.timeout = _GOODBYE_S
                with _Quiet():
                    await client.__aexit__(None, None, None)
        finally:
            client.abandon()

    async def keep(self, serve: Callable[[Link], Awaitable[None]], lost: Callable[[BrokerError], None]) -> None:
        """Connect again and again, with jittered and growing pauses, and `serve` each connection until it is lost.

        Returns when `serve` returns; anything but the loss of the connection passes through.
        """
        delay = 0.5
        while True:
            since = asyncio.get_running_loop().time()
            try:
                async with self.connect() as link:
                    await serve(link)
                    return
            except* BrokerError as group:
                error = first(group)
            lost(error)
            if asyncio.get_running_loop().time() - since > self._broker.reconnect_max_s:
                delay = 0.5
            await asyncio.sleep(delay * random.uniform(0.6, 1.2))  # noqa: S311
            delay = min(delay * 2, self._broker.reconnect_max_s)

    def _client(self, tls: ssl.SSLContext | None) -> _Client:
        broker, properties = self._broker, None
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _LARGEST
        will = self._will
        client = _Client(
            broker.host,
            broker.port,
            identifier=self._identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if self._v5 else aiomqtt.ProtocolVersion.V311,
            username=broker.username,
            password=broker.password,
            tls_context=tls,
            clean_session=None if self._v5 else True,
            clean_start=True if self._v5 else 3,
            properties=properties,
            keepalive=broker.keepalive_s,
            timeout=broker.timeout_s,
            max_queued_incoming_messages=_INCOMING,
            queue_type=_Inbox,
            will=aiomqtt.Will(will.topic, will.payload, 1, retain=True) if will else None,
            socket_options=[_NODELAY],
        )
        client.pending_calls_threshold = 1 << 30
        return client

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._broker.tls
        if tls is None:
            return None
        try:
            context = ssl.create_default_context(cafile=tls.ca)
            if tls.certificate:
                context.load_cert_chain(tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            raise BrokerError(f"broker.tls: {error}") from error
        if tls.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _refusal(self, error: Exception, *, reached: bool) -> BrokerError:
        code = getattr(error, "rc", None)
        code = getattr(code, "value", code)
        if code in _DENIED:
            return BrokerError(f"{self.where} refuses the login: check broker.username and broker.password")
        mute = code is None and reached
        if self._broker.protocol == "auto" and not self._proved and (code in _WRONG_VERSION or mute):
            self._v5 = not self._v5  # A broker without MQTT 5 refuses it, or never answers: try the other next.
        return BrokerError(f"cannot reach {self.where}: {error}; check broker.host, broker.port and broker.tls")


class _Client(aiomqtt.Client):
    """A client that loses no cancellation, and whose socket can be closed after an attempt that failed half-way."""

    async def _wait_for(self, fut: Awaitable[_T], timeout: float | None) -> _T:  # noqa: ASYNC109 - the library's own
        """Wait without `asyncio.wait_for`: on Python 3.11 it passes over a cancel that comes together with the end."""
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("the broker did not answer in time") from None

    @property
    def reached(self) -> bool:
        """Whether there was a connection, whatever came of it."""
        return self._client.socket() is not None

    def abandon(self) -> None:
        if self._misc_task is not None:
            self._misc_task.cancel()
        if (sock := self._client.socket()) is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # Else its loss is logged a second time, as one that nobody saw.


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """What was read and not yet handled, bounded by its bytes too."""

    _bytes = 0

    def full(self) -> bool:
        return super().full() or self._bytes >= _INCOMING_BYTES

    def _put(self, item: aiomqtt.Message) -> None:
        self._bytes += len(item.payload)
        super()._put(item)

    def _get(self) -> aiomqtt.Message:
        item = super()._get()
        self._bytes -= len(item.payload)
        return item


class _Quiet:
    """A goodbye that the broker does not hear is logged, not raised: we are leaving anyway."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, (aiomqtt.MqttError, OSError, ValueError)):
            _LOG.debug("the broker did not hear our goodbye", extra={"why": str(error)})
            return True
        return False


def _extras(properties: Properties | None) -> Extras | None:
    """What a sender set; None for most messages, which spares every message of their answers the mirrors."""
    given = vars(properties) if properties else {}
    extras = Extras(given.get("ResponseTopic"), given.get("CorrelationData"), given.get("MessageExpiryInterval"))
    return None if extras == Extras() else extras


def _properties(extras: Extras) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if extras.correlation is not None:
        properties.CorrelationData = extras.correlation
    if extras.expiry_s is not None:
        properties.MessageExpiryInterval = extras.expiry_s
    if extras.content_type is not None:
        properties.ContentType = extras.content_type
    if extras.response_topic is not None:
        properties.ResponseTopic = extras.response_topic
    if extras.user:
        properties.UserProperty = list(extras.user)
    return properties
