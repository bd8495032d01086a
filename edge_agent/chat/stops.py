"""Stop strings in a stream: text goes out as soon as it can no longer become part of one."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Finds the stop string that is complete first; of two that end together, the longer one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self._found = False

    def feed(self, text: str) -> tuple[str, bool]:
        """Return what is safe to emit and whether a stop was found; after one, nothing more comes out."""
        if self._found or not self._stops:
            return ("" if self._found else text), self._found
        text = self._held + text
        hits = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if hits:
            self._found, self._held = True, ""
            return text[: min(hits)[1]], True
        keep = self._open(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Return what was held back, once the text has ended."""
        held, self._held = self._held, ""
        return held

    def _open(self, text: str) -> int:
        """Measure the longest end of the text that is the beginning of a stop."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        ends = (length for length in range(longest, 0, -1) if self._begins(text[len(text) - length :]))
        return next(ends, 0)

    def _begins(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
