"""What waits to be published: in order, bounded, and kept while the broker is away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import islice

from edge_agent.broker import Link, Outbound

_LOG = logging.getLogger(__name__)
_SOFT = 16 << 20
"""Bytes beyond which chunks are dropped: the final message of their answer repairs the loss."""
_HARD = 32 << 20
"""Bytes beyond which no further request is read, until some of this has gone out."""
_WINDOW = 16
"""Messages under way at once, below the 20 that brokers and our library allow."""
_TRIES = 3
"""Connections that may be lost over one message, before it is taken for their cause."""


class Outbox:
    """A queue with one writer. A message that the broker has not confirmed is sent again on the next connection."""

    def __init__(self) -> None:
        self._waiting: deque[Outbound] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._room = asyncio.Event()
        self._room.set()
        self._tries = 0
        self.dropped = 0

    def put(self, message: Outbound, *, droppable: bool = False) -> None:
        """Queue a message. A droppable one is let go when too much waits."""
        if droppable and self._bytes > _SOFT:
            self.dropped += 1
            if self.dropped == 1:
                _LOG.warning("the broker takes messages too slowly: chunks are being dropped")
            return
        self._waiting.append(message)
        self._bytes += len(message.payload)
        self._filled.set()
        self._emptied.clear()
        if self._bytes > _HARD:
            self._room.clear()

    async def room(self) -> None:
        """Wait until more may be put in."""
        await self._room.wait()

    async def emptied(self) -> None:
        """Wait until everything has been confirmed."""
        await self._emptied.wait()

    async def pump(self, link: Link) -> None:
        """Publish over this connection until it is lost; what was not confirmed stays for the next one."""
        if self._tries >= _TRIES:
            _LOG.error("the broker does not take a message of %d bytes: dropped", len(self._waiting[0].payload))
            self._confirmed(1)
        while True:
            while batch := list(islice(self._waiting, _WINDOW if not self._tries else 1)):
                self._tries += 1
                async with asyncio.TaskGroup() as group:
                    for message in batch:  # Each hands its message over, in this order, before it waits.
                        group.create_task(link.publish(message))
                self._confirmed(len(batch))
            self._filled.clear()
            self._emptied.set()
            await self._filled.wait()

    def _confirmed(self, count: int) -> None:
        self._tries = 0
        self._bytes -= sum(len(self._waiting.popleft().payload) for _ in range(count))
        if self._bytes <= _SOFT:
            self._room.set()
