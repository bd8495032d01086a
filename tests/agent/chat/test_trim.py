from __future__ import annotations

from edge_agent.chat.request import Message, ToolCall
from edge_agent.chat.trim import drop_oldest, droppable

SYSTEM = Message("system", "s")
CALL = Message("assistant", tool_calls=(ToolCall("1", "f", "{}"),))
RESULT = Message("tool", "r", tool_call_id="1")


def user(text):
    return Message("user", text)


def test_a_turn_leaves_with_its_calls_and_results():
    rest = (user("b"), Message("assistant", "B"), user("c"))
    assert drop_oldest((SYSTEM, user("a"), CALL, RESULT, Message("assistant", "A"), *rest), 1) == (SYSTEM, *rest)
    assert drop_oldest((SYSTEM, user("a"), CALL, RESULT, Message("assistant", "A"), *rest), 2) == (SYSTEM, user("c"))


def test_system_messages_stay_wherever_they_stand():
    assert drop_oldest((user("a"), SYSTEM, user("b")), 1) == (SYSTEM, user("b"))


def test_a_greeting_before_the_first_question_is_the_oldest_turn():
    assert drop_oldest((SYSTEM, Message("assistant", "Hello"), user("a")), 1) == (SYSTEM, user("a"))


def test_the_last_turn_is_never_dropped():
    assert droppable((SYSTEM, user("a"), user("b"), CALL, RESULT)) == 1
    assert droppable((SYSTEM, user("a"), CALL, RESULT)) == 0
    assert droppable((SYSTEM,)) == 0
    assert droppable(()) == 0
