"""Text on its way to a loudspeaker: without the marks and pictures that only eyes can use. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Final

_JOINER: Final = "\u200d"
_AS_PICTURE: Final = "\ufe0f"
_PICTURES: Final = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u2328\u23cf\u23e9-\u23fa"
    "\u20e3\ufe0e\ufe0f\U000e0020-\U000e007f]"
)
_SIGNS: Final = re.compile(
    "[0-9#*\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u24c2\u25aa\u25ab\u25b6\u25c0"
    "\u25fb-\u25fe\u2934\u2935\u3030\u303d\u3297\u3299]"
)
"""Signs and digits that the next characters may turn into pictures."""
_PICTURED: Final = re.compile("[0-9#*]\ufe0f?\u20e3|[^0-9#*]\ufe0f")
_LINE_START: Final = re.compile(r"([ \t]*)([-#*+•>_`~|=]*)([ \t]*)")
_LINK: Final = re.compile(r"\[([^\[\]\n]*)\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)")
_LINK_BEGUN: Final = re.compile(r"\[[^\[\]\n]{0,200}(\](\([^()\n]*(\([^()\n]*\)[^()\n]*)*(\([^()\n]*)?)?)?")
"""All that may still become a link."""
_LONGEST_LINK: Final = 2_048
_BARE_CELL: Final = re.compile(r"[-: \t]*")


class Speakable:
    """A filter for text that is written while it is spoken: feed it pieces, say what it gives.

    What comes out does not depend on where the text was cut. A character is held back only while the next ones decide
    what it is: emphasis or a product, a link or a bracket, a digit or a keycap.
    """

    def __init__(self) -> None:
        self._unread = ""
        self._ended = False
        self._before = "\n"
        """The character read last."""
        self._spaces = ""
        """Read and not yet said: what follows may take them away."""
        self._said = "\n"
        """The character said last."""
        self._pictured = False
        """Whether a picture was left out since."""
        self._at_start = True
        """Whether the line has shown nothing but spaces and quotes so far."""
        self._skipping = False
        """Whether the rest of the line is markup."""
        self._fenced = False
        self._in_row = False
        """Whether this line is a row of a table,"""
        self._in_cell = True
        """and whether anything of its present cell was said."""
        self._marks: Mapping[str, Callable[[], str | None]] = {
            "*": self._emphasis,
            "_": self._emphasis,
            "~": self._strike,
            "`": self._tick,
            "[": self._bracket,
            "|": self._cell_end,
        }

    def feed(self, text: str) -> str:
        """Take the next piece; gives what can be said by now."""
        self._unread += text
        said = []
        while self._unread and (step := self._step()) is not None:
            said.append(step)
        return "".join(said)

    def finish(self) -> str:
        """Take the end of the text; gives what was still held back."""
        self._ended = True
        return self.feed("") + ("" if self._pictured or self._in_row else self._spaces)

    # One step: what it gives to say, or None to wait for more text ------------------------------------------

    def _step(self) -> str | None:
        if self._skipping:
            return self._skip()
        if self._at_start:
            return self._line_start()
        picture = self._picture()
        if picture:
            self._pictured = True
            return self._drop(picture)
        return self._inline() if picture is not None else None

    def _inline(self) -> str | None:
        char = self._unread[0]
        if char == "\n":
            return self._line_end()
        if self._in_row and not self._in_cell:
            return self._cell_start()
        mark = None if self._fenced else self._marks.get(char)
        return mark() if mark else self._say(self._read(1))

    def _waits(self, length: int) -> bool:
        """Whether the unread text ends here, and more may come."""
        return len(self._unread) <= length and not self._ended

    def _read(self, length: int) -> str:
        text, self._unread = self._unread[:length], self._unread[length:]
        self._before = text[-1:] or self._before
        return text

    def _drop(self, length: int) -> str:
        self._read(length)
        return ""

    def _next(self, index: int) -> str:
        """The character there; the end of the text is the end of a line."""
        return self._unread[index] if index < len(self._unread) else "\n"

    # Lines -------------------------------------------------------------------------------------------------

    def _skip(self) -> str:
        self._skipping = self._read(1) != "\n"
        return ""

    def _line_start(self) -> str | None:
        found = _LINE_START.match(self._unread)
        if found is None or self._waits(found.end()):
            return None
        indent, marks, gap = found.groups()
        line = _line(marks, gap, self._next(found.end()))
        if self._fenced and line != "fence":
            line = "text"
        self._at_start = line in ("fence", "rule", "quote")
        self._skipping = line in ("fence", "rule")
        self._fenced ^= line == "fence"
        match line:
            case "quote":
                return self._drop(found.end() if marks == ">" else len(indent) + 1)
            case "row":
                self._in_row, self._in_cell = True, False
                return self._drop(len(indent) + 1)
            case "item":
                return self._drop(found.end())
            case "text":
                return self._say(self._read(len(indent)))
        return ""

    def _line_end(self) -> str:
        """A row that says nothing is the line under the head of a table."""
        said = self._said != "\n" or not self._in_row
        if self._in_row:
            self._in_row, self._in_cell, self._spaces = False, True, ""
        self._at_start = True
        return self._say(self._read(1)) if said else self._drop(1)

    def _cell_start(self) -> str | None:
        """Cells of dashes and colons are markup; what the others say is joined like a list."""
        found = _BARE_CELL.match(self._unread)
        if found is None or self._waits(found.end()):
            return None
        if self._next(found.end()) in "|\n":
            return self._drop(found.end() + (self._next(found.end()) == "|"))
        self._in_cell, self._spaces = True, "" if self._said == "\n" else ", "
        return self._say(self._read(found.end()).lstrip(" \t"))

    def _cell_end(self) -> str:
        if not self._in_row:
            return self._say(self._read(1))
        self._in_cell, self._spaces = False, ""
        return self._drop(1)

    # Marks and pictures ------------------------------------------------------------------------------------

    def _run(self) -> str | None:
        """The same character as often as it stands here."""
        char = self._unread[0]
        length = len(self._unread) - len(self._unread.lstrip(char))
        return None if self._waits(length) else char * length

    def _emphasis(self) -> str | None:
        run, before = self._run(), self._before
        if run is None:
            return None
        is_markup = _is_emphasis(before, run, self._next(len(run)))
        return self._drop(len(run)) if is_markup else self._say(self._read(len(run)))

    def _strike(self) -> str | None:
        run = self._run()
        if run is None:
            return None
        return self._drop(len(run)) if len(run) > 1 else self._say(self._read(1))

    def _tick(self) -> str:
        return self._drop(1)

    def _bracket(self) -> str | None:
        if found := _LINK.match(self._unread):
            self._unread = found[1] + self._unread[found.end() :]
            return ""
        if not self._ended and _LINK_BEGUN.fullmatch(self._unread) and len(self._unread) <= _LONGEST_LINK:
            return None
        return self._say(self._read(1))

    def _picture(self) -> int | None:
        """The length of the picture that stands here, 0 for none, None to wait."""
        char = self._unread[0]
        if _PICTURES.match(char) or (char == _JOINER and _PICTURES.match(self._before)):
            return 1
        if not _SIGNS.match(char):
            return 0
        if found := _PICTURED.match(self._unread):
            return found.end()
        waits = self._waits(1) or (self._unread[1:] == _AS_PICTURE and self._waits(2))
        return None if waits else 0

    # Saying ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> str:
        """Give text with the spaces before it; where a picture was left out, they close up."""
        if not text.strip(" \t"):
            self._spaces += text
            return ""
        spaces, self._spaces = self._spaces, ""
        if self._pictured:
            closes = self._said == "\n" or text[0] in ".,;:!?)\n"
            spaces = "" if closes else spaces[:1]
            self._pictured = False
        self._said = text[-1]
        return spaces + text


def _is_emphasis(before: str, run: str, after: str) -> bool:
    """Whether a run of stars or underscores marks words, and is no product and no part of a name."""
    if before.isspace() and after.isspace():
        return False
    if before.isalnum() and after.isalnum():
        return run.startswith("**") and not (before.isdigit() and after.isdigit())
    return True


def _line(marks: str, gap: str, after: str) -> str:
    """What a line is by the marks that it begins with."""
    if marks.startswith(("```", "~~~")):
        return "fence"
    if len(marks) >= 3 and marks == marks[0] * len(marks) and marks[0] in "-*_=" and after == "\n":
        return "rule"
    if marks.startswith((">", "|")):
        return "quote" if marks[0] == ">" else "row"
    return "item" if gap and re.fullmatch(r"[-*+•]|#{1,6}", marks) else "text"
