"""A model's answer, taken apart as it is written: text, reasoning and tool calls.

Small models leak calls in many shapes: in `<tool_call>` tags, as bare JSON at the start of a line, in a fenced block,
in Python's notation. A call is announced only when it is whole, so that nobody acts on half of
one; until then its text is held back, and comes out as text if it turns out to be none.

The parser takes one character at a time and never looks back further than what it holds: how the text is cut into
pieces makes no difference, and the time is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from edge_agent.chat import calls

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FENCE: Final = "```"
_LANGUAGES: Final = ("", "json", "tool_call", "tool_code", "python")
_SPACE: Final = frozenset(" \t\r\n")
_BETWEEN: Final = _SPACE | frozenset(",;")
_MAX_HEAD: Final = 80
"""Characters within which a bare JSON value must show that it could be a call."""


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of the answer proper."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A stretch of what the model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of a call, as JSON text; the fragments of one call, joined, are one JSON object."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is complete."""

    index: int


Event = Text | Reasoning | CallStart | CallArguments | CallEnd


class _State(Enum):
    START = auto()
    """Nothing but white space so far."""
    TEXT = auto()
    THINK = auto()
    TAG = auto()
    """Held: the beginning of a tag."""
    FENCE = auto()
    """Held: the opening line of a code block."""
    OPEN = auto()
    """Held: all of `<tool_call>`, and white space."""
    JSON = auto()
    """Held: a value whose brackets are open."""
    AFTER = auto()
    """Behind a call, where closing marks and further calls may stand."""


class AnswerParser:
    """Takes an answer apart. With no `tools`, all but reasoning passes straight through.

    `forced` is the tool that must be called: an object that is no call reads as its arguments. `thinking` says that
    the prompt has already opened `<think>`.
    """

    def __init__(self, tools: Collection[str] = (), *, forced: str | None = None, thinking: bool = False) -> None:
        self._tools = frozenset((*tools, forced) if forced else tools)
        self._forced = forced
        self._tags = (_THINK, _CALL) if self._tools else (_THINK,)
        self._state = _State.THINK if thinking else _State.START
        self._back = self._state
        """Where a tag that turned out to be none was met."""
        self._events: list[Event] = []
        self._text: list[str] = []
        self._kind: type[Text | Reasoning] = Text
        self._held: list[str] = []
        self._new_line = True
        """Nothing visible stands on this line of the text yet."""
        self._index = 0
        self._silent = thinking
        """White space is dropped until something visible comes."""
        self._fenced = 0
        """Backticks still to drop behind a fenced call."""
        self._json_at = 0
        """Where in the held text the JSON begins."""
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._sure = False
        """The held JSON may well be a call: hold it until it is closed."""
        self._steps: Mapping[_State, Callable[[str], bool]] = {
            _State.START: self._start,
            _State.TEXT: self._plain,
            _State.THINK: self._think,
            _State.TAG: self._tag,
            _State.FENCE: self._fence,
            _State.OPEN: self._open,
            _State.JSON: self._json,
            _State.AFTER: self._after,
        }

    def feed(self, text: str) -> list[Event]:
        """Take the next piece of the answer; return what is certain by now."""
        for char in text:
            while not self._steps[self._state](char):
                pass
        return self._drain()

    def finish(self) -> list[Event]:
        """End the answer; return the rest."""
        if self._state is _State.JSON:
            self._close(closed=False)
        self._release()
        return self._drain()

    # Each step takes a character and returns True, or changes the state and returns False to see it again.

    def _start(self, char: str) -> bool:
        if char in _SPACE:
            if not self._silent:
                self._held.append(char)
            return True
        if char == "<":
            return self._enter(_State.TAG, char)
        if self._tools and char in "{[`":
            return self._enter(_State.FENCE if char == "`" else _State.JSON, char)
        self._release()
        self._state = _State.TEXT
        return False

    def _plain(self, char: str) -> bool:
        if self._tools:
            if char == "<":
                return self._enter(_State.TAG, char)
            if self._new_line and char in "{[`":
                return self._enter(_State.FENCE if char == "`" else _State.JSON, char)
            self._new_line = char == "\n" or (self._new_line and char in _SPACE)
        self._say(Text, char)
        return True

    def _think(self, char: str) -> bool:
        if char == "<":
            return self._enter(_State.TAG, char)
        if self._silent and char in _SPACE:
            return True
        self._silent = False
        self._say(Reasoning, char)
        return True

    def _tag(self, char: str) -> bool:
        start = self._json_at
        tag = "".join(self._held[start:]) + char
        places = {_State.START: self._tags, _State.THINK: (_THINK_END,), _State.AFTER: (_CALL, _CALL_END)}
        tags = places.get(self._back, (_CALL,))
        if not any(each.startswith(tag) for each in tags):
            return self._give_back()
        self._held.append(char)
        if tag in tags:
            self._tagged(tag)
        return True

    def _tagged(self, tag: str) -> None:
        if tag == _CALL:
            self._state = _State.OPEN
            return
        self._held.clear()
        self._silent = True
        self._state = {_THINK: _State.THINK, _THINK_END: _State.START, _CALL_END: _State.AFTER}[tag]

    def _fence(self, char: str) -> bool:
        fence = "".join(self._held[self._json_at :])
        if char in "{[" and fence.startswith(_FENCE) and fence[3:].strip() in _LANGUAGES:
            self._fenced = len(_FENCE)
            return self._enter(_State.JSON, char)
        line = fence + char
        language = line[3:].strip()
        fits = line[:3] == _FENCE[: len(line)] and any(each.startswith(language) for each in _LANGUAGES)
        if not fits or len(line) > _MAX_HEAD:
            return self._give_back()
        self._held.append(char)
        return True

    def _open(self, char: str) -> bool:
        if char in "{[":
            return self._enter(_State.JSON, char, sure=True)
        if char not in _SPACE:
            return self._give_back()
        self._held.append(char)
        return True

    def _after(self, char: str) -> bool:
        if char == "`" and self._fenced:
            self._fenced -= 1
            return True
        if char in _BETWEEN:
            return True
        self._silent = True
        if char == "<":
            return self._enter(_State.TAG, char)
        self._fenced = self._fenced if char in "{[" else 0
        self._state = _State.START
        return False

    def _json(self, char: str) -> bool:
        if not self._sure:
            verdict = self._verdict(char)
            if verdict is False:
                return self._give_back()
            self._sure = verdict is True
        if char in "<`" and not self._quote:
            # No JSON has these outside of a string: the closing bracket was forgotten, or it never was a call.
            return self._close(closed=False)
        self._held.append(char)
        if self._escaped:
            self._escaped = False
        elif self._quote:
            self._escaped = char == "\\"
            self._quote = "" if char == self._quote else self._quote
        elif char == '"' or (char == "'" and self._held[self._json_at] == "["):
            self._quote = char
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            if not self._depth:
                self._close(closed=True)
        return True

    # What steps share.

    def _enter(self, state: _State, char: str, *, sure: bool = False) -> bool:
        """Begin to hold; brackets are counted from here."""
        if self._state not in (_State.FENCE, _State.OPEN):
            self._back = self._state
        self._state, self._json_at = state, len(self._held)
        self._held.append(char)
        self._depth, self._quote, self._escaped, self._sure = 1, "", False, sure
        return True

    def _verdict(self, char: str) -> bool | None:
        """Whether the held value, with one more character, can be a call; None while that is open."""
        head = "".join(self._held[self._json_at :]) + char
        rest = head.lstrip("[{ \t\r\n")
        if self._forced and rest[:1] == '"':
            return True
        if len(head) > _MAX_HEAD:
            return False
        if rest.startswith('"'):
            key, closed, _ = rest[1:].partition('"')
            return key in calls.KEYS if closed else _opens(key, calls.KEYS)
        if head.startswith("["):
            name, called, _ = rest.partition("(")
            return name in self._tools if called else _opens(name, self._tools)
        return None if not rest else bool(self._forced and rest == "}")

    def _close(self, *, closed: bool) -> bool:
        """End the held value: either it is calls, or text."""
        found = calls.read("".join(self._held[self._json_at :]), self._tools, self._forced, closed=closed)
        if not found:
            return self._give_back()
        self._held.clear()
        self._cut()
        for call in found:
            self._events += (
                CallStart(self._index, call.name),
                CallArguments(self._index, call.arguments),
                CallEnd(self._index),
            )
            self._index += 1
        self._state = _State.AFTER
        return False

    def _give_back(self) -> bool:
        """Let the held text go, for it is no call, and look at the current character again."""
        self._release()
        self._state = _State.THINK if self._back is _State.THINK else _State.TEXT
        return False

    def _release(self) -> None:
        if self._held:
            self._silent, self._fenced = False, 0
            self._say(Reasoning if self._back is _State.THINK else Text, "".join(self._held))
            self._new_line = False
            self._held.clear()

    def _say(self, kind: type[Text | Reasoning], text: str) -> None:
        if kind is not self._kind:
            self._cut()
            self._kind = kind
        self._text.append(text)

    def _cut(self) -> None:
        if self._text:
            self._events.append(self._kind("".join(self._text)))
            self._text.clear()

    def _drain(self) -> list[Event]:
        self._cut()
        events, self._events = self._events, []
        return events


def _opens(beginning: str, words: Collection[str]) -> bool | None:
    """None while the beginning may still become one of the words, False when it cannot."""
    return None if any(word.startswith(beginning) for word in words) else False
