"""The messages of an answer, read into text, thoughts and calls; what was lost on the way is repaired by the final."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .wire import Reply, WireError


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """More of what the model thinks before it answers; never spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A whole tool call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


type Piece = Text | Thought | Call


@contextmanager
def _understood() -> Iterator[None]:
    """Whoever is on the broker can send anything under a request's id."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise WireError("internal", "an answer that cannot be read") from error


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer, without its calls."""

    text: str
    finish_reason: str
    usage: Mapping[str, Any]


def written(reply: Reply) -> Written:
    """Read a final message alone; raises `WireError` for one that is none of OpenAI's."""
    with _understood():
        choice = reply.body["choices"][0]
        return Written(
            choice["message"].get("content") or "",
            choice.get("finish_reason") or "",
            dict(reply.body.get("usage") or {}),
        )


def weights(reply: Reply) -> Mapping[str, float]:
    """The probability of each choice, in the final message of a `score`; raises `WireError` for anything else."""
    with _understood():
        return {each["choice"]: float(each["probability"]) for each in reply.extra.get("scores") or ()}


class AnswerReader:
    """Takes the messages of one answer in order.

    After a gap it holds back what comes, because it could not tell where that belongs, until the final message brings
    the whole; what it has given out is always a beginning of the answer.
    """

    def __init__(self) -> None:
        self.finish_reason = ""
        self.usage: Mapping[str, Any] = {}
        self.timings: Mapping[str, Any] = {}
        self._next = 0
        self._gap = False
        self._text = ""
        self._thought = ""
        self._calls: dict[int, list[str]] = {}
        self._called: set[str] = set()

    def take(self, reply: Reply) -> Iterator[Piece]:
        """Read one message; yields what it adds. Raises `WireError` for one that is none of OpenAI's."""
        with _understood():
            yield from self._read(reply)

    def _read(self, reply: Reply) -> Iterator[Piece]:
        if reply.seq == 0:  # Another node began anew: nothing had come from the first.
            self._next, self._gap = 0, False
        self._gap = self._gap or reply.seq != self._next
        self._next = reply.seq + 1
        if reply.kind == "final":
            yield from self._final(reply)
        elif reply.kind == "chunk" and not self._gap:
            for choice in reply.body.get("choices", ()):
                yield from self._delta(choice.get("delta", {}))

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Piece]:
        if text := delta.get("content"):
            self._text += text
            yield Text(text)
        if thought := delta.get("reasoning_content"):
            self._thought += thought
            yield Thought(thought)
        for part in delta.get("tool_calls") or ():
            call = self._calls.setdefault(part.get("index", 0), ["", "", ""])
            function = part.get("function", {})
            for place, value in enumerate((part.get("id"), function.get("name"), function.get("arguments"))):
                call[place] += value or ""
            yield from self._whole(*call)

    def _whole(self, id_: str, name: str, arguments: str) -> Iterator[Call]:
        """Yield a call as soon as its arguments are complete, once."""
        with suppress(ValueError):
            json.loads(arguments)
            if id_ not in self._called:
                self._called.add(id_)
                yield Call(id_, name, arguments)

    def _final(self, reply: Reply) -> Iterator[Piece]:
        choice: Mapping[str, Any] = next(iter(reply.body.get("choices", ())), {})
        message = choice.get("message", {})
        thought, text = message.get("reasoning_content") or "", message.get("content") or ""
        if len(thought) > len(self._thought) and thought.startswith(self._thought):
            yield Thought(thought[len(self._thought) :])
        if len(text) > len(self._text) and text.startswith(self._text):
            yield Text(text[len(self._text) :])
        for call in message.get("tool_calls") or ():
            if call["id"] not in self._called:
                yield Call(call["id"], call["function"]["name"], call["function"]["arguments"])
        self.finish_reason = choice.get("finish_reason") or ""
        self.usage = dict(reply.body.get("usage") or {})
        self.timings = dict(reply.extra.get("timings") or {})
