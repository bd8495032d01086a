"""What the tests of the text room share."""

from __future__ import annotations

import pytest

from edge_agent.chat.prompt import Dialect
from edge_agent.chat.request import parse
from edge_agent.envelope import Edge


@pytest.fixture
def ask():
    """Validate a body with one user message and whatever else is given."""

    def ask(edge=None, **fields):
        body = {"messages": [{"role": "user", "content": "hi"}], **fields}
        return parse(body, edge or Edge())

    return ask


@pytest.fixture
def lamp():
    """A tool as OpenAI's clients send it."""
    return {
        "type": "function",
        "function": {
            "name": "set_lamp",
            "description": "Switch a lamp.",
            "parameters": {
                "type": "object",
                "properties": {"name": {"enum": ["desk", "hall"]}, "on": {"type": "boolean"}},
                "required": ["name"],
            },
        },
    }


@pytest.fixture(scope="session")
def chatml():
    return Dialect(specials=("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")
