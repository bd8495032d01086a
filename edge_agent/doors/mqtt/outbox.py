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
        while True:
            await self._filled.wait()
            while batch := list(islice(self._waiting, _WINDOW)):
                async with asyncio.TaskGroup() as group:
                    for message in batch:  # Each hands its message over, in this order, before it waits.
                        group.create_task(link.publish(message))
                for message in batch:
                    self._waiting.popleft()
                    self._bytes -= len(message.payload)
                if self._bytes <= _SOFT:
                    self._room.set()
            self._filled.clear()
            self._emptied.set()
