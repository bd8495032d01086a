"""One request and its answer, as a client sees them: repeated, repaired and brought to their one end.

Free of transport, and like the wire a twin: the component for Home Assistant holds the same bytes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Protocol

from .wire import POOL, Reply, WireError

ATTEMPTS: Final = 3
FIRST_REPLY_S: Final = 3.0
SILENCE_S: Final = 10.0
RETURN_S: Final = 2.0
"""How long a node that left the broker in mid-answer has to come back with the same boot."""


class Line(Protocol):
    """What an exchange needs of the client it belongs to."""

    connected: bool

    def lives(self, node: str, boot: str) -> bool:
        """Whether presence shows this node online with this boot."""

    def serves(self, target: str) -> bool:
        """Whether presence shows the target, a node or the pool, ready."""

    async def send(self, target: str, rid: str, body: Mapping[str, Any]) -> None: ...
    async def cancel(self, rid: str, keep: str | None = None) -> None: ...


class Exchange:
    """One request and its answer: repeats, repairs and ends."""

    def __init__(self, client: Line, rid: str, target: str, body: Mapping[str, Any], deadline: float) -> None:
        self.rid = rid
        self.finished = False
        """Whether nothing is left to cancel: under an id in conflict, somebody else's request goes on."""
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
        if self._server is None:
            if boot is None and self._target in (node, POOL):
                self._inbox.put_nowait("gone")
        elif self._server[0] == node and self._server[1] != boot:
            self._inbox.put_nowait("gone")

    def stop(self) -> None:
        """Whoever owns the connection gives it up."""
        self._inbox.put_nowait("stopped")

    def reconnected(self) -> None:
        self._inbox.put_nowait("reconnected")

    async def first(self) -> Reply:
        """The first message, whatever it is."""
        item = await self._next(self._deadline - time.monotonic())
        if not isinstance(item, Reply):
            raise WireError("expired", "no answer in time: a node hears only those whom its admin.clients name")
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
            self._seen = item.seq
            self._written = self._written or item.kind == "chunk"
            self.finished = item.final or item.kind == "error"
            if item.kind == "error":
                raise item.error()
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
        self._silences, self._doubted = 0, False
        return reply.final or reply.seq > self._seen  # A final that was seen would have ended this.

    async def _mend(self, trouble: str) -> None:
        """Do what helps against silence, a lost connection or a lost node; raises when nothing does."""
        if time.monotonic() >= self._deadline:
            raise WireError("expired", "no answer before the deadline")
        if trouble == "stopped":
            raise WireError("unavailable", "the connection to the broker was given up")
        if self._server is None:
            # Right after a reconnect presence is still on its way.
            if self._client.connected and trouble != "reconnected" and not self._client.serves(self._target):
                raise WireError("unavailable", "no node is left that could answer", offline=True)
            if self._client.connected and trouble != "gone":
                await self._send()
        elif trouble == "gone" and self._written:
            self._doubted = True
        elif trouble == "gone":
            self._server, self._seen = None, -1
            await self._send()
        elif self._doubted and not self._client.lives(*self._server):
            raise WireError("engine_failed", f"the node {self._server[0]} went away in mid-answer", retry_after_s=1.0)
        else:
            await self._resume()

    async def _send(self) -> None:
        if self._attempts == ATTEMPTS:
            raise WireError("unavailable", "no node acknowledged the request", retry_after_s=2.0)
        if self._attempts:
            await asyncio.sleep(2 ** (self._attempts - 1) * random.uniform(0.8, 1.2))  # noqa: S311
        self._attempts += 1
        await self._client.send(self._target, self.rid, self._body)

    async def _resume(self) -> None:
        """Ask the serving node for what it sent since the last message that came."""
        self._silences += 1
        if self._silences > ATTEMPTS and self._server:
            raise WireError("engine_failed", f"the node {self._server[0]} fell silent", retry_after_s=1.0)
        if self._server:
            node, boot = self._server
            edge = {"op": "resume", "boot": boot, "seq": self._seen}
            await self._client.send(node, self.rid, {"edge": edge})
