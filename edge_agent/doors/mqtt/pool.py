"""Membership in the pool: which requests for `any` node come here."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from edge_agent.broker import Inbound, Link, Outbound
from edge_agent.wire import POOL, Topics

_LOG = logging.getLogger(__name__)
_PROBE_S = 2.0


class Pool:
    """Joins and leaves by a shared subscription, or, where the broker has none, subscribes plainly and says `alone`."""

    def __init__(self, topics: Topics, group: str, wanted: Callable[[], bool], changed: Callable[[], None]) -> None:
        self._topics = topics
        self._group = group
        self._wanted = wanted
        self._changed = changed
        self._look = asyncio.Event()
        self._probe = ""
        self._proved = asyncio.Event()
        self._joined = False
        self.shared = True

    def look(self) -> None:
        """Decide again: the node's room, or another's, has changed."""
        self._look.set()

    def heard(self, message: Inbound) -> bool:
        """Whether this message was our own probe."""
        if message.topic != self._probe:
            return False
        self._proved.set()
        return True

    async def enter(self, link: Link) -> None:
        """Find out what this connection's broker can do, and become a member if that is wanted already."""
        self._joined = False
        self.shared = await self._broker_shares(link)
        self._changed()
        await self._follow(link)

    async def run(self, link: Link) -> None:
        """Be a member over this connection whenever that is wanted."""
        while True:
            await self._look.wait()
            self._look.clear()
            await self._follow(link)

    async def _follow(self, link: Link) -> None:
        if self._joined != self._wanted():
            self._joined = not self._joined
            pattern = self._topics.shared(self._group) if self.shared else self._topics.request(POOL, "+", "+")
            await (link.subscribe(pattern, replay=False) if self._joined else link.unsubscribe(pattern))

    async def _broker_shares(self, link: Link) -> bool:
        """Send ourselves a message through a shared subscription: some brokers accept one and deliver nothing."""
        group = f"probe-{secrets.token_hex(8)}"
        self._probe = self._topics.out(group)
        self._proved.clear()
        await link.subscribe(f"$share/{group}/{self._probe}", replay=False)
        await link.publish(Outbound(self._probe, b"probe"))
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._proved.wait()
        except TimeoutError:
            _LOG.warning("the broker does not deliver shared subscriptions: this node must be alone in its pool")
        await link.unsubscribe(f"$share/{group}/{self._probe}")
        return self._proved.is_set()
