"""What goes to a terminal: text without control characters, and a line that comes and goes."""

from __future__ import annotations

import sys
from itertools import chain
from typing import Final

_CONTROLS: Final = {code: None for code in chain(range(32), range(127, 160)) if code not in (9, 10)}
_CLEAR_LINE: Final = "\r\x1b[2K"


def printable(text: str) -> str:
    """The text without control characters but newline and tab: an answer must not drive the reader's terminal."""
    return text.translate(_CONTROLS)


def put(text: str) -> None:
    """Write to standard output at once; raises `BrokenPipeError` when nobody reads on."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


class Notice:
    """A line on standard error that says what is being waited for. Without a terminal it says nothing."""

    def __init__(self) -> None:
        self._able = sys.stderr.isatty()
        self._shown = False

    def show(self, text: str) -> None:
        if self._able:
            self._shown = True
            sys.stderr.write(f"{_CLEAR_LINE}{printable(text)}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            self._shown = False
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
