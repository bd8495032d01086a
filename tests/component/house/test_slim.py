from __future__ import annotations

from typing import Any

import pytest

from custom_components.edge_agent.house.slim import slim

from .rules import refusal

NAME = {"type": "string", "description": "A name"}


@pytest.mark.parametrize(
    ("given", "slimmed"),
    [
        pytest.param({"type": "string", "description": "  "}, {"type": "string"}, id="empty descriptions"),
        pytest.param(
            {"type": "string", "description": "Two\n  lines"},
            {"type": "string", "description": "Two lines"},
            id="lines",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": NAME}, "required": ["a", "b"], "additionalProperties": True},
            {"type": "object", "properties": {"a": NAME}, "required": ["a"]},
            id="additional properties beside properties",
        ),
        pytest.param(
            {"type": "object", "properties": {}, "additionalProperties": False},
            {"type": "object", "properties": {}, "additionalProperties": False},
            id="an object that stays empty",
        ),
        pytest.param({"type": "object", "additionalProperties": True}, {"type": "object"}, id="an object of anything"),
        pytest.param(
            {"type": "string", "pattern": "^a", "format": "date", "title": "T", "default": "x"},
            {"type": "string"},
            id="patterns, formats, titles and defaults",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "string", "enum": ["a"]}, "uniqueItems": True},
            {"type": "array", "items": {"type": "string", "enum": ["a"]}},
            id="unique items",
        ),
        pytest.param(
            {"allOf": [{"type": "integer"}, {"minimum": 1, "maximum": 9}]},
            {"type": "integer", "minimum": 1, "maximum": 9},
            id="allOf is folded",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": NAME}, "anyOf": [{"required": ["a"]}]},
            {"type": "object", "properties": {"a": NAME}},
            id="a choice of what is required",
        ),
        pytest.param(
            {"type": "number", "minimum": 1, "maximum": 100000, "description": "Seconds"},
            {"type": "number", "minimum": 0, "description": "Seconds (at least 1, at most 100000)"},
            id="a wide range is told",
        ),
        pytest.param(
            {"type": "number", "minimum": -40},
            {"type": "number", "description": "(at least -40)"},
            id="an open range is told",
        ),
        pytest.param(
            {"type": "number", "minimum": 0.5, "maximum": 2.5},
            {"type": "number", "minimum": 0, "maximum": 3},
            id="a broken range is widened, as the engine would narrow it",
        ),
        pytest.param(
            {"type": "integer", "exclusiveMinimum": 0, "maximum": 9},
            {"type": "integer", "minimum": 1, "maximum": 9},
            id="an exclusive bound",
        ),
        pytest.param({"description": "Anything"}, {"type": ["string", "number", "boolean", "object", "array", "null"],
                                                   "description": "Anything"}, id="no type at all"),
        pytest.param({"type": ["string", "null"]}, {"type": ["string", "null"]}, id="several types"),
        pytest.param({"anyOf": [{"type": "string", "pattern": "x"}]}, {"type": "string"}, id="a choice of one"),
        pytest.param({"type": "string", "maxLength": 255}, {"type": "string"}, id="a length too great to count"),
        pytest.param({"type": "string", "maxLength": 20}, {"type": "string", "maxLength": 20}, id="a length"),
        pytest.param(
            {"properties": {"title": {"type": "string", "title": "Title"}}},
            {"type": "object", "properties": {"title": {"type": "string"}}},
            id="a property may have the name of a keyword",
        ),
    ],
)  # fmt: skip
def test_what_the_engine_or_a_reader_can_do_without_goes(given: dict[str, Any], slimmed: dict[str, Any]) -> None:
    assert slim(given) == slimmed
    assert refusal(slim(given), {}) is None
    assert slim(slimmed) == slimmed
