"""What the console program prints, bytes to events. Pure.

The agent owns the tokenizer address and lets `/decode` answer with no text, so nothing of an answer is ever printed,
and no answer can look like a prompt mark. What is left: log lines in colour, progress bars, the mark, and lines of the
card's driver, which come at any moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]*m")
_OPEN_COLOUR: Final = re.compile(rb"\x1b(?:\[[0-9;]*)?")
_MARKS: Final = (b"prompt >> ", b">> ")
_MARK: Final = re.compile(b"|".join(_MARKS))
_END: Final = re.compile(rb"[\r\n]")
_RAN: Final = re.compile(r"hit eos, ?(?:decode )?avg \S+ token/s")
_BANNER: Final = "Ctrl+c to stop current running"
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """The program waits for a line."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run is over, for whatever reason: the program says "hit eos" in every case."""


@dataclass(frozen=True, slots=True)
class Line:
    """Anything else, without colours and control characters."""

    text: str


Event = Mark | Ran | Line


class Stream:
    """Cuts one output of the program into events; how the bytes were cut before makes no difference.

    A mark counts where a line begins. Behind the end of a run or of the start-up it is due, and counts anywhere: a line
    of the driver may have lost its end.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._due = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Give the events that these bytes complete; all must be taken before more is fed."""
        self._rest += data
        while (found := self._next()) is not None:
            yield from found

    def _next(self) -> list[Event] | None:
        """What the rest begins with; None while that is open."""
        rest = self._rest
        if colour := _COLOUR.match(rest):
            return self._cut(colour.end())
        if mark := _MARK.match(rest):
            return self._marked(mark.end())
        if _OPEN_COLOUR.fullmatch(rest) or any(each.startswith(rest) for each in _MARKS):
            return None
        end = _END.search(rest, 0, _LONGEST)
        stop = end.start() if end else min(len(rest), _LONGEST)
        if self._due and (mark := _MARK.search(rest, 0, stop)):
            return [*_line(rest[: mark.start()]), *self._marked(mark.end())]
        if end is None and len(rest) < _LONGEST:
            return None
        return self._line(rest[:stop], end.end() if end else stop)

    def _line(self, line: bytes, end: int) -> list[Event]:
        events: list[Event] = list(_line(line))
        for event in events:
            if isinstance(event, Line) and _RAN.search(event.text):
                self._due = True
                events.append(Ran())
                break
            self._due = self._due or (isinstance(event, Line) and _BANNER in event.text)
        return [*self._cut(end), *events]

    def _marked(self, end: int) -> list[Event]:
        self._due = False
        return [*self._cut(end), Mark()]

    def _cut(self, end: int) -> list[Event]:
        self._rest = self._rest[end:]
        return []


def _line(raw: bytes) -> list[Event]:
    text = _COLOUR.sub(b"", raw).decode(errors="replace")
    text = "".join(char for char in text if char.isprintable()).strip()
    return [Line(text)] if text else []
