"""What became of each request: the memory that makes a request idempotent and an answer resumable.

A pure object: `now` is an argument. Every client has its own bounded store, so none can evict another's answers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto

from edge_agent.serving.backlog import Key

TOMBSTONE_S = 60.0
"""How long a cancel that came before its request is remembered."""
_TOMBSTONES = 128
"""Of one client."""


class Standing(Enum):
    """What the ledger knows of a request that arrives."""

    NEW = auto()
    RUNNING = auto()
    FINISHED = auto()
    CONFLICT = auto()
    CANCELLED = auto()
    """Cancelled before it came."""
    SPARED = auto()
    """Cancelled before it came, in favour of another node: to be answered with silence."""


@dataclass(slots=True)
class Entry:
    """One request: the payload's fingerprint and the messages sent for it so far."""

    fingerprint: bytes
    messages: deque[tuple[int, bytes]] = field(default_factory=deque)
    """While running: what was sent, as (seq, payload), the oldest dropped beyond the limit. Finished: the final."""
    status: tuple[int, bytes] | None = None
    finished: bool = False
    size: int = 0

    def since(self, seq: int) -> list[bytes]:
        """The messages after `seq` that are still here; when there is none, the latest again, as a sign of life."""
        payloads = [payload for _, payload in self.messages]
        return [payload for each, payload in self.messages if each > seq] or payloads[-1:]


class Ledger:
    """Entries by (client, rid); bounded in clients, in entries per client and in bytes per client."""

    def __init__(self, entries_per_client: int, bytes_per_client: int, clients: int) -> None:
        self._entries_per_client = entries_per_client
        self._bytes_per_client = bytes_per_client
        self._clients = clients
        self._stores: OrderedDict[str, OrderedDict[str, Entry]] = OrderedDict()
        self._tombstones: OrderedDict[str, OrderedDict[str, tuple[float, bool]]] = OrderedDict()

    def find(self, key: Key) -> Entry | None:
        store = self._stores.get(key[0])
        return store.get(key[1]) if store else None

    def standing(self, key: Key, fingerprint: bytes, now: float) -> Standing:
        """Judge an arriving request."""
        if entry := self.find(key):
            if entry.fingerprint != fingerprint:
                return Standing.CONFLICT
            return Standing.FINISHED if entry.finished else Standing.RUNNING
        graves = self._tombstones.get(key[0])
        until, spared = graves.get(key[1], (now, False)) if graves else (now, False)
        if until > now:
            return Standing.SPARED if spared else Standing.CANCELLED
        return Standing.NEW

    def open(self, key: Key, fingerprint: bytes) -> Entry:
        """Begin an entry; makes room by dropping the finished ones of this client, oldest first."""
        store = self._stores.setdefault(key[0], OrderedDict())
        self._stores.move_to_end(key[0])
        entry = store[key[1]] = Entry(fingerprint)
        self._trim(store)
        self._drop_idle_clients()
        return entry

    def record(self, key: Key, seq: int, payload: bytes, *, status: bool = False) -> None:
        """Remember a message that was sent, so that a resume can replay it."""
        if entry := self.find(key):
            entry.messages.append((seq, payload))
            entry.size += len(payload)
            while entry.size > self._bytes_per_client and len(entry.messages) > 1:
                entry.size -= len(entry.messages.popleft()[1])
            if status:
                entry.status = (seq, payload)

    def settle(self, key: Key, seq: int, final: bytes) -> None:
        """Keep the final message alone: the request is finished."""
        if entry := self.find(key):
            entry.messages = deque([(seq, final)])
            entry.status, entry.finished, entry.size = None, True, len(final)
            self._trim(self._stores[key[0]])

    def forget(self, key: Key) -> None:
        """Drop an entry: a retryable refusal is not stored, the same id may come again."""
        if store := self._stores.get(key[0]):
            store.pop(key[1], None)
            if not store:
                del self._stores[key[0]]

    def entomb(self, key: Key, now: float, *, spared: bool) -> None:
        """Remember a cancel whose request has not come yet."""
        graves = self._tombstones.setdefault(key[0], OrderedDict())
        graves[key[1]] = (now + TOMBSTONE_S, spared)
        self._tombstones.move_to_end(key[0])
        if len(graves) > _TOMBSTONES:
            graves.popitem(last=False)
        if len(self._tombstones) > self._clients:
            self._tombstones.popitem(last=False)

    def _trim(self, store: OrderedDict[str, Entry]) -> None:
        finished = [rid for rid, entry in store.items() if entry.finished]
        kept = sum(store[rid].size for rid in finished)
        for rid in finished[:-1]:  # The newest final stays, whatever its size.
            if len(finished) <= self._entries_per_client and kept <= self._bytes_per_client:
                return
            kept -= store.pop(rid).size
            finished = finished[1:]

    def _drop_idle_clients(self) -> None:
        for client in list(self._stores):
            if len(self._stores) <= self._clients:
                return
            if all(entry.finished for entry in self._stores[client].values()):
                del self._stores[client]
