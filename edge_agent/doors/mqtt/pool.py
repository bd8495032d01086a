"""Membership in the pool: which requests for `any` node come here."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from edge_agent.broker import Link
from edge_agent.wire import POOL, Topics

_LOG = logging.getLogger(__name__)


class Pool:
    """Joins and leaves by a shared subscription, or, where the broker has none, subscribes plainly and says `alone`."""

    def __init__(self, topics: Topics, group: str, wanted: Callable[[], bool], changed: Callable[[], None]) -> None:
        self._topics = topics
        self._group = group
        self._wanted = wanted
        self._changed = changed
        self._look = asyncio.Event()
        self._joined = False
        self.shared = True

    def look(self) -> None:
        """Decide again: the node's room, or another's, has changed."""
        self._look.set()

    async def enter(self, link: Link) -> None:
        """Find out what the broker of a fresh connection can do, and become a member if that is wanted already."""
        self._joined = False
        self.shared = await link.shares(self._topics.out(f"probe-{secrets.token_hex(8)}"))
        if not self.shared:
            _LOG.warning("the broker does not deliver shared subscriptions: this node must be alone in its pool")
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
