"""Who the node is and how it does, retained on the broker; and who else is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_agent.broker import Inbound, Outbound
from edge_agent.doors.mqtt.outbox import Outbox
from edge_agent.errors import NodeNameTaken
from edge_agent.wire import (
    OFFLINE,
    ONLINE,
    Address,
    Info,
    State,
    Topics,
    WireError,
    decode_state,
    encode_presence,
)

_LOG = logging.getLogger(__name__)
_INTERVAL_S = 1.0
_DOUBT_S = 60.0


class Presence:
    """Publishes status, info and state through the outbox; watches every node's, its own included.

    `describe` gives the state of this moment, and the card once the engine is known.
    """

    def __init__(
        self, node: str, topics: Topics, outbox: Outbox, describe: Callable[[], tuple[State, Info | None]]
    ) -> None:
        self._node = node
        self._topics = topics
        self._outbox = outbox
        self._describe = describe
        self._dirty = asyncio.Event()
        self._said: State | None = None
        self._carded: Info | None = None
        self._others: dict[str, State] = {}
        self._offline: set[str] = set()
        self._heard_ourselves = False
        self._doubted = -_DOUBT_S
        self._leaving = False

    def changed(self) -> None:
        """Note that the state may differ; it is published within a second."""
        self._dirty.set()

    @property
    def others_have_room(self) -> bool:
        """Whether another node is ready to take what this one cannot."""
        return any(
            state.phase == "ready" and state.room > 0
            for node, state in self._others.items()
            if node not in self._offline
        )

    async def run(self) -> None:
        """Announce this node on a new connection, then its changes, at most one state a second."""
        self._said, self._carded = None, None
        self._announce()
        self._put("status", (OFFLINE if self._leaving else ONLINE).encode())
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self._dirty.wait()
            self._dirty.clear()
            self._announce()

    def goodbye(self) -> None:
        """Announce that this node leaves the broker in good order."""
        self._leaving = True
        self._announce()
        self._put("status", OFFLINE.encode())

    def heard(self, address: Address, message: Inbound) -> None:
        """Take in a presence message; raises `NodeNameTaken` when another agent lives under our name."""
        if address.node == self._node:
            self._heard_self(address, message)
        elif address.kind == "status":
            (self._offline.discard if message.payload == ONLINE.encode() else self._offline.add)(address.node)
        elif address.kind == "state":
            try:
                self._others[address.node] = decode_state(message.payload)
            except WireError:
                self._others.pop(address.node, None)  # Cleared, or not for us to read: it has no room for anyone.

    def _heard_self(self, address: Address, message: Inbound) -> None:
        """Two agents of one name take the connection from each other. Boots sort by time, and the younger gives way.

        Another boot's state counts once ours has been there: before, it is what our predecessor left. A retained one
        counts the second time within a minute: the first may come from a broker that restored an old store.
        """
        if address.kind == "status":
            if message.payload == OFFLINE.encode() and self._heard_ourselves and not self._leaving:
                self._put("status", ONLINE.encode())  # The last will of our former connection came late.
            return
        if address.kind != "state":
            return
        try:
            other = decode_state(message.payload).boot
        except WireError:
            return  # Cleared by an operator; our next state mends it.
        mine = self._describe()[0].boot
        if other == mine:
            self._heard_ourselves = True
        elif self._heard_ourselves:
            _LOG.warning("another agent may use our node name", extra={"node": self._node, "boot": other})
            now = asyncio.get_running_loop().time()
            again, self._doubted = now - self._doubted < _DOUBT_S, now
            if other < mine and (again or not message.retained):
                raise NodeNameTaken(f"another agent calls itself {self._node}: give one of them another `node` name")

    def _announce(self) -> None:
        state, info = self._describe()
        if info is not None and info != self._carded:
            self._carded = info
            self._put("info", encode_presence(info))
        if state != self._said:
            self._said = state
            self._put("state", encode_presence(state))

    def _put(self, kind: str, payload: bytes) -> None:
        self._outbox.put(Outbound(self._topics.presence(self._node, kind), payload, retain=True))
