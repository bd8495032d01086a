"""Answers in a structure: what the engine must keep to, and the data that comes of it."""

from collections.abc import Callable
from json import JSONDecodeError
from typing import Any

import probatio
from homeassistant.helpers import llm
from homeassistant.util.json import json_loads

from .errors import AgentError
from .house.slim import slim


def response_format(
    structure: probatio.Schema, serializer: Callable[[Any], Any] | None = llm.selector_serializer
) -> dict[str, Any]:
    """The field of a request that holds the answer to a structure of selectors."""
    schema = slim(probatio.to_openapi(structure, custom_serializer=serializer, openapi_version="3.1.0"))
    return {"type": "json_schema", "json_schema": {"name": "data", "schema": schema}}


def data_of(text: str, finish_reason: str) -> Any:
    """The data that was written; raises `AgentError` when it was cut off, or is none."""
    try:
        return json_loads(text)
    except JSONDecodeError as error:
        raise AgentError("too_long" if finish_reason == "length" else "no_structure") from error
