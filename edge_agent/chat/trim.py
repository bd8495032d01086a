"""Making a conversation shorter, whole turns at a time."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.chat.request import Message


def drop_oldest(messages: Sequence[Message]) -> tuple[Message, ...] | None:
    """Drop the oldest turn: a user's message and all that answers it, calls and results included.

    System messages stay, and so does the last turn: None when nothing else is left.
    """
    turns = [index for index, message in enumerate(messages) if message.role == "user"]
    if not turns:
        return None
    # What the assistant said before the first user message is a turn of its own.
    opening = any(message.role != "system" for message in messages[: turns[0]])
    starts = [0, *turns] if opening else turns
    if len(starts) == 1:
        return None
    first, second = starts[:2]
    kept = (message for message in messages[first:second] if message.role == "system")
    return (*messages[:first], *kept, *messages[second:])
