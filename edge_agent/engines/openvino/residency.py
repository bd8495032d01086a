"""Which prompt prefixes the runtime still holds.

The runtime does not tell how many tokens it found resident. This keeps the same book as its block manager (a hash per
full block, chained to the block before, and one for the open block at the end of a sequence; least recently used goes
first), and `Reading` corrects it by the number of steps that reading really took.

Open blocks are a trap: measured with OpenVINO GenAI 2026.4, two turns that begin inside the same open block write into
it both, and both read what the other wrote. `Found.open` tells such turns apart, and the worker runs them in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """What is resident of a prompt: so many tokens, and the block it ends in if that one is open."""

    tokens: int
    open: int | None


class Residency:
    """The blocks of `size` tokens that fit: `capacity` of them."""

    def __init__(self, capacity: int, size: int) -> None:
        self._size = size
        self._full = _Recent(capacity)
        self._ends = _Recent(capacity * 4)  # Kept longer than the runtime may: one forgotten is a turn spoilt.

    def lookup(self, ids: Sequence[int]) -> Found:
        """How many leading tokens are resident; at most all but one, because the last one must be read again."""
        start, before = 0, 0
        for whole, key in self._chain(ids):
            if not self._full.has(key):
                break
            start, before = whole, key
        ends = range(start + 1, min(start + self._size, len(ids) + 1))
        end = next((end for end in ends if self._ends.has(hash((before, *ids[start:end])))), 0)
        return Found(min(max(start, end), len(ids) - 1), before if end else None)

    def store(self, ids: Sequence[int]) -> None:
        """Note a sequence whose keys and values have been computed."""
        start, before = 0, 0
        for whole, key in self._chain(ids):
            self._full.add(key)
            start, before = whole, key
        if start < len(ids):
            self._ends.add(hash((before, *ids[start:])))

    def _chain(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The end and the key of every full block."""
        key = 0
        for end in range(self._size, len(ids) + 1, self._size):
            key = hash((key, *ids[end - self._size : end]))
            yield end, key


class _Recent:
    """The `capacity` keys that were used last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[int, None] = OrderedDict()

    def has(self, key: int) -> bool:
        if key in self._keys:
            self._keys.move_to_end(key)
            return True
        return False

    def add(self, key: int) -> None:
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)


class Reading:
    """How far one prompt has been read: so many tokens of a step's budget each time, until a token is written."""

    def __init__(self, tokens: int, resident: int) -> None:
        self.tokens = tokens
        self.cached = resident
        self.done = resident

    @property
    def wants(self) -> int:
        return self.tokens - self.done

    def step(self, share: int, *, wrote: bool) -> None:
        """Take one step's share. Writing that begins early or late corrects what was thought resident."""
        if wrote:
            self.cached = min(self.tokens - 1, self.cached + max(0, self.wants - share))
            self.done = self.tokens
        elif self.done + share < self.tokens:
            self.done += share
        else:
            self.cached = max(0, self.cached - max(share, 1))
            self.done = self.tokens - 1
