"""Which prompt prefixes the runtime still holds.

The runtime does not tell how many tokens it found resident. This keeps the same book as its block manager (a hash per
full block, chained to the block before, and one for the open block at the end of a sequence; least recently used goes
first), and `Reading` corrects it by the number of steps that reading really took.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class Residency:
    """The blocks of `size` tokens that fit: `capacity` of them."""

    def __init__(self, capacity: int, size: int) -> None:
        self._capacity = capacity
        self._size = size
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def lookup(self, ids: Sequence[int]) -> int:
        """How many leading tokens are resident; at most all but one, because the last one must be read again."""
        found = 0
        for end, key in self._chain(ids):
            if key not in self._blocks:
                found = self._open_block(ids, end) or found
                break
            self._blocks.move_to_end(key)
            found = end
        return min(found, len(ids) - 1)

    def store(self, ids: Sequence[int]) -> None:
        """Note a sequence whose keys and values have been computed."""
        for _, key in self._chain(ids):
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def _chain(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        key = 0
        for start in range(0, len(ids), self._size):
            end = min(start + self._size, len(ids))
            key = hash((key, *ids[start:end]))
            yield end, key

    def _open_block(self, ids: Sequence[int], end: int) -> int:
        """An answer that ended inside this block; reading on fills the block, so it is found once."""
        start = (end - 1) // self._size * self._size
        before = [0, *(key for _, key in self._chain(ids[:start]))][-1]
        for stop in range(start + 1, end):
            key = hash((before, *ids[start:stop]))
            if key in self._blocks:
                del self._blocks[key]
                return stop
        return 0


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
