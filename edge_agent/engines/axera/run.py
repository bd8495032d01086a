"""One run of the console program: what was asked, which token ids have come, whether it is over. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from edge_agent.engines.base import FinishReason

GROUP: Final = 3
"""The program decodes its tokens in threes, what is left at the end of the answer, and at last all of them."""


class Written:
    """The ids of one answer, put together from what `/decode` is asked."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ended = False
        """Whether the call with all ids has come, or may have: one that says what is here already is it, or repeats."""
        self._repeats = False

    def take(self, ids: Sequence[int]) -> bool:
        """Take in one call; False if it contradicts those before."""
        if self._repeats:
            self.ids += self.ids  # The call before was not the last one after all.
        self._repeats = self.ended = bool(ids) and list(ids) == self.ids
        if self._repeats:
            return True
        if len(ids) <= GROUP:
            self.ids += ids
            return True
        self.ended = list(ids[: len(self.ids)]) == self.ids
        self.ids = list(ids)
        return self.ended


class Run:
    """One turn, seen from the event loop. `changed` is set with everything that happens."""

    def __init__(self, ids: Sequence[int], now: float) -> None:
        self.ids = ids
        self.changed = asyncio.Event()
        self.written = Written()
        self.heard = now
        """The last sign of life."""
        self.asked: float | None = None
        """When the program fetched the prompt."""
        self.first: float | None = None
        """When the first tokens came."""
        self.stopped: float | None = None
        """When it was told to stop."""
        self.ran = False
        self.over = False
        self._taken = 0

    def news(self, now: float) -> None:
        """Something has been heard of it."""
        self.heard = now
        self.changed.set()

    def take(self, room: int, ends: frozenset[int]) -> tuple[Sequence[int], FinishReason | None]:
        """The ids not taken yet, up to the end of the answer, and why it ends if it does."""
        new = self.written.ids[self._taken : room]
        end = next((place for place, id_ in enumerate(new) if id_ in ends), None)
        new = new[:end]
        self._taken += len(new)
        if end is not None:
            return new, "stop"
        if self._taken >= room:
            return new, "length"
        return new, "stop" if self.over else None
