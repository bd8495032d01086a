"""Every vector on both twins. Another client proves itself with the same files: vectors/README.md."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_agent import envelope, wire

LIMIT = 262_144
FILES = sorted((Path(__file__).parent / "vectors").glob("*.json"))
VECTORS = [vector for file in FILES for vector in json.loads(file.read_text("utf-8"))]
NAMES = [f"{vector['kind']}: {vector['description']}" for vector in VECTORS]


def payload(vector: dict[str, Any]) -> bytes:
    """The bytes a vector describes, in one of its three ways."""
    if "base64" in vector:
        return base64.b64decode(vector["base64"])
    if "repeat" in vector:
        return b"".join(text.encode() * times for text, times in vector["repeat"])
    return vector["input"].encode()


def decode(twin: ModuleType, vector: dict[str, Any]) -> Any:
    """What the vector's bytes mean, as plain JSON, or the twin's WireError."""
    topics = twin.Topics(vector.get("root", twin.DEFAULT_ROOT))
    limit = vector.get("limit", LIMIT)
    readers: dict[str, Callable[[bytes], Any]] = {
        "topic": lambda data: {k: v for k, v in asdict(topics.parse(data.decode())).items() if v},
        "request": lambda data: plain_request(envelope.decode_request(data, limit)),
        "reply": lambda data: asdict(twin.decode_reply(data)),
        "info": lambda data: asdict(twin.decode_info(data)),
        "state": lambda data: asdict(twin.decode_state(data)),
        "cancel": lambda data: {"keep": twin.decode_cancel(data)},
        "error": lambda data: plain_error(twin.WireError.from_body(twin.loads(data))),
    }
    return readers[vector["kind"]](payload(vector))


def plain_request(request: envelope.Request) -> dict[str, Any]:
    """A request as the vectors write it: of `edge` only what differs from its defaults."""
    given = {each.name: getattr(request.edge, each.name) for each in fields(envelope.Edge)}
    edge = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value != getattr(envelope.Edge(), name)
    }
    return {"body": request.body, "edge": edge, "plain": request.plain}


def plain_error(error: wire.WireError) -> dict[str, Any]:
    code = {"code": error.code.name, "http": error.code.http, "retryable": error.code.retryable}
    said = {"message": error.message, "param": error.param, "retry_after_s": error.retry_after_s}
    return {**code, **said, "details": error.details, "text": error.text()}


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_vector_means_what_it_says(twin: ModuleType, vector: dict[str, Any]) -> None:
    refusals = (wire.WireError, twin.WireError)
    if vector["valid"]:
        assert decode(twin, vector) == vector["expect"]
        return
    with pytest.raises(refusals) as refusal:
        decode(twin, vector)
    error = refusal.value
    told = {"code": error.code.name, "param": error.param}
    if "supported" in error.details:
        told["supported"] = error.details["supported"]
    assert told == vector["error"]
    assert error.message


def test_there_are_enough_vectors_of_every_kind_and_half_of_them_are_malformed() -> None:
    assert len(VECTORS) >= 250
    assert sum(not vector["valid"] for vector in VECTORS) * 2 >= len(VECTORS)
    assert set(Counter(vector["kind"] for vector in VECTORS)) == {file.stem for file in FILES}
    assert max(Counter(NAMES).values()) == 1
