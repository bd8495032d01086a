from __future__ import annotations

from edge_agent.chat import answer
from edge_agent.chat.request import ToolCall


def test_a_completion_is_openais_object():
    body = answer.completion("r", 7, "m", "hi", usage=answer.usage(10, 4, 2))
    assert body == {
        "id": "r",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def test_calls_and_reasoning_stand_beside_a_null_content():
    call = ToolCall("1", "f", "{}")
    body = answer.completion("r", 7, "m", "", reasoning="hm", calls=(call,), finish_reason="tool_calls")
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }


def test_an_empty_answer_without_calls_is_an_empty_string():
    assert answer.completion("r", 7, "m", "")["choices"][0]["message"]["content"] == ""


def test_a_chunk_is_openais_object():
    assert answer.chunk("r", 7, "m", {"content": "x"}, logprobs=[{"token": "x"}]) == {
        "id": "r",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "delta": {"content": "x"},
                "finish_reason": None,
                "logprobs": {"content": [{"token": "x"}]},
            }
        ],
    }
