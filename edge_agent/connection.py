"""A client's own connection to the broker: kept up, and brought to the client that speaks over it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_agent.broker import Dialer, Link, Outbound
from edge_agent.client import Client
from edge_agent.config import Broker
from edge_agent.errors import BrokerError, first


class _Connection:
    """Carries one client; `up` is done, or failed, after the first attempt to connect."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.client = Client(name, self._publish, root=broker.root)
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dialer = Dialer(broker, f"edge_agent-client-{name}-{os.urandom(4).hex()}")
        self._link: Link | None = None

    async def run(self) -> None:
        await self._dialer.keep(self._serve, self._lost)

    async def _publish(self, topic: str, payload: bytes) -> None:
        """Publish now; while the connection is lost, the message is let go: whoever waits for an answer asks again."""
        if self._link is not None:
            try:
                await self._link.publish(Outbound(topic, payload))
            except BrokerError:
                self._forget()

    async def _serve(self, link: Link) -> None:
        answers, presence = self.client.filters
        await link.subscribe(answers, replay=False)
        await link.subscribe(presence)
        self._link = link
        if not self.up.done():
            self.up.set_result(None)
        self.client.up()
        async for message in link.messages():
            self.client.heard(message.topic, message.payload)

    def _lost(self, error: BrokerError) -> None:
        self._forget()
        if not self.up.done():
            self.up.set_exception(error)

    def _forget(self) -> None:
        self._link = None
        self.client.down()


@asynccontextmanager
async def connect(broker: Broker, name: str) -> AsyncIterator[Client]:
    """Connect for the length of a block; raises `BrokerError` when the first attempt fails, later ones are repeated."""
    connection = _Connection(broker, name)
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:  # Should the keeper die, nobody waits for an answer any more.
            keeper = group.create_task(connection.run(), name="mqtt client")
            await connection.up
            yield connection.client
            keeper.cancel()
    except* Exception as errors:  # noqa: BLE001 - raised again, out of its group
        failure = first(errors)
    if failure is not None:
        raise failure
