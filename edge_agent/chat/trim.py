"""Making a conversation shorter, whole turns at a time."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.chat.request import Message


def droppable(messages: Sequence[Message]) -> int:
    """How many turns can be dropped: all but the last.

    A turn is a user's message and all that answers it, calls and results included.
    """
    return max(0, len(_starts(messages)) - 1)


def drop_oldest(messages: Sequence[Message], count: int) -> tuple[Message, ...]:
    """Drop the oldest turns, at most as many as are `droppable`; system messages stay."""
    starts = _starts(messages)
    dropped = range(starts[0], starts[count])
    return tuple(each for index, each in enumerate(messages) if index not in dropped or each.role == "system")


def _starts(messages: Sequence[Message]) -> list[int]:
    turns = [index for index, message in enumerate(messages) if message.role == "user"]
    # What the assistant said before the first user message is a turn of its own.
    opening = turns and any(message.role != "system" for message in messages[: turns[0]])
    return [0, *turns] if opening else turns
