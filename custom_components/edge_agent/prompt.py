"""The chat log as messages for a node: what never changes first, what changes last.

A node reads a prompt again only from the first byte that differs. So every request of an agent begins with the same
system text and the same tools, whoever asks from wherever; the lines that depend on the moment, the room or the user
open the first message of the user instead.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from homeassistant.components import conversation
from homeassistant.helpers.json import json_dumps

from .house.ground import Grounded
from .house.model import House

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
"""What no tool's name may have on the wire: a model may have called one that does not exist."""

type Message = dict[str, Any]


@dataclass(frozen=True)
class Prefix:
    """What every request of an agent begins with, byte for byte."""

    system: str
    grounded: Grounded
    house: House

    @cached_property
    def lines(self) -> frozenset[str]:
        """The lines of the system text."""
        return frozenset(self.system.splitlines())

    @cached_property
    def safe_names(self) -> dict[str, str]:
        """The names of tools as they were, and as the wire takes them."""
        return {real: safe for safe, real in self.grounded.names.items()}

    def begin(self, messages: Sequence[Message]) -> dict[str, Any]:
        """A request that begins with this and goes on with the messages."""
        body: dict[str, Any] = {"messages": [{"role": "system", "content": self.system}, *messages]}
        if self.grounded.tools:
            body["tools"] = list(self.grounded.tools)
            body["edge"] = {"defs": self.grounded.defs}
        return body


def common_lines(texts: Sequence[str]) -> str:
    """What these texts have in common, line by line, in the order of the first."""
    others = [frozenset(text.splitlines()) for text in texts[1:]]
    lines = texts[0].splitlines()
    return "\n".join(line for line in lines if all(line in other for other in others)).strip()


def messages(prefix: Prefix, content: Iterable[conversation.Content]) -> list[Message]:
    """The conversation, without the system text; what that has beyond the prefix opens the first user's message."""
    written: list[Message] = []
    aside = ""
    for each in content:
        if isinstance(each, conversation.SystemContent):
            aside = "\n".join(line for line in each.content.splitlines() if line.strip() and line not in prefix.lines)
        elif isinstance(each, conversation.UserContent):
            written.append({"role": "user", "content": f"{aside}\n\n{each.content}" if aside else each.content})
            aside = ""
        elif isinstance(each, conversation.ToolResultContent):
            result = json_dumps(each.result.data)
            written.append({"role": "tool", "tool_call_id": each.tool_call_id, "content": result})
        else:
            written.append(_assistant(prefix, each))
    return written


def _assistant(prefix: Prefix, content: conversation.AssistantContent) -> Message:
    message: Message = {"role": "assistant", "content": content.content or ""}
    if content.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": prefix.safe_names.get(call.tool_name, _UNSAFE.sub("_", call.tool_name)[:64] or "_"),
                    "arguments": json_dumps(call.tool_args),
                },
            }
            for call in content.tool_calls
        ]
    return message
