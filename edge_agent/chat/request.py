"""The OpenAI chat-completions body, validated once for both doors.

What would change the meaning of a request and cannot be done is refused; what only shapes the sampling and cannot be
set is named in `ignored`; unknown fields are ignored, as OpenAI's clients send ever more of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from edge_agent.chat import schema
from edge_agent.chat.fields import Field, number, of, read, take, whole, wrong
from edge_agent.envelope import EMPTY, Edge
from edge_agent.errors import RequestRefused, Unsupported

MAX_MESSAGES: Final = 10_000
MAX_TOOLS: Final = 256
MAX_STOPS: Final = 8
MAX_STOP: Final = 256
"""Characters of one stop string."""
MAX_TOKENS: Final = 1 << 31
MAX_LOGPROBS: Final = 20
NO_PARAMETERS: Final[Mapping[str, Any]] = MappingProxyType({"type": "object", "properties": {}})
CHOICES: Final = ("none", "auto", "required")

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The role `developer` reads as `system`; several text parts are joined by line breaks."""

    role: Role
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: NO_PARAMETERS)


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What the whole answer must be: any JSON object, JSON that fits a schema, or text that matches a pattern."""

    kind: Literal["json_object", "json_schema", "regex"]
    schema: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    regex: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid request. None means: the model's or the node's default."""

    messages: tuple[Message, ...] = ()
    model: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "none"
    """`none`, `auto`, `required` or the name of the one tool to call."""
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many alternatives to report with every token; None reports no probabilities at all."""
    edge: Edge = field(default_factory=Edge)
    ignored: tuple[str, ...] = ()
    """Sampling fields of the body that no engine here can set."""


def parse(body: Mapping[str, Any], edge: Edge) -> ChatRequest:
    """Validate a body; raises `RequestRefused` or `Unsupported`, whose `param` names the field."""
    for name, (harmless, instead) in _UNSUPPORTED.items():
        if not harmless(body.get(name)):
            raise Unsupported(f"{name} is not supported: {instead}", param=name)
    given = read(body, _BODY)
    for name in given.keys() & _FLOATS:
        given[name] = float(given[name])
    if edge.format == "text" and given.get("stream"):
        raise RequestRefused("stream cannot be combined with edge.format text, which is one reply", param="stream")
    if edge.op == "score" and not edge.choices:
        raise RequestRefused("edge.choices is needed for op score", param="edge.choices")
    if edge.defs:
        schema.check({"$defs": edge.defs}, EMPTY, "edge.defs")
    tools = _tools(given.pop("tools", None), edge)
    return ChatRequest(
        messages=_messages(given.pop("messages", None), edge),
        tools=tools,
        tool_choice=_tool_choice(given.pop("tool_choice", None), tools),
        response_format=_response_format(given.pop("response_format", None), edge),
        stop=_stop(given.pop("stop", ())),
        include_usage=read(given.pop("stream_options", EMPTY), _STREAM, "stream_options.").get("include_usage", False),
        max_tokens=_either(given, "max_completion_tokens", "max_tokens"),
        logprobs=_logprobs(given),
        edge=edge,
        ignored=tuple(sorted(name for name in _IGNORED if body.get(name) is not None)),
        **given,
    )


# What a field may be ----------------------------------------------------------------------------------------------


_TEXT: Final = of("a string", str)
_BOOL: Final = of("true or false", bool)
_OBJECT: Final = of("an object", Mapping)
_CONTENT: Final = of("a string or a list of text parts", str, list)
_LEAST: Final = 1e-6
"""Above zero in the single precision that runtimes compute in, and no overflow when something is divided by it."""
_PENALTY: Final = number("a number from -2 to 2", lambda v: -2 <= v <= 2)
_NAME: Final = Field(
    "1 to 64 letters, digits, _ or -",
    lambda v: isinstance(v, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", v, re.ASCII) is not None,
)

_FLOATS: Final = frozenset({"temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"})
_BODY: Final[Mapping[str, Field]] = {
    "messages": Field(f"1 to {MAX_MESSAGES} messages", lambda v: isinstance(v, list) and 0 < len(v) <= MAX_MESSAGES),
    "model": _TEXT,
    "tools": Field(f"1 to {MAX_TOOLS} tools", lambda v: isinstance(v, list) and 0 < len(v) <= MAX_TOOLS),
    "tool_choice": of("`none`, `auto`, `required` or a named function", str, Mapping),
    "parallel_tool_calls": _BOOL,
    "response_format": _OBJECT,
    "stream": _BOOL,
    "stream_options": _OBJECT,
    "max_completion_tokens": whole(1, MAX_TOKENS),
    "max_tokens": whole(1, MAX_TOKENS),
    "temperature": number(f"0, or a number from {_LEAST} to 2", lambda v: v == 0 or _LEAST <= v <= 2),
    "top_p": number(f"a number from {_LEAST} to 1", lambda v: _LEAST <= v <= 1),
    "top_k": whole(1, MAX_TOKENS),
    "seed": whole(-(1 << 63), (1 << 63) - 1),
    "repetition_penalty": number(f"a number from {_LEAST} to 2", lambda v: _LEAST <= v <= 2),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "stop": of("a string or a list of strings", str, list),
    "logprobs": _BOOL,
    "top_logprobs": whole(0, MAX_LOGPROBS),
}
_STREAM: Final = {"include_usage": _BOOL}
_MESSAGE: Final = {
    "role": _TEXT,
    "content": _CONTENT,
    "name": _TEXT,
    "tool_calls": Field("a list with at least one call", lambda v: isinstance(v, list) and bool(v)),
    "tool_call_id": _TEXT,
    "reasoning_content": _TEXT,
}
_CALL: Final = {"id": _TEXT, "function": _OBJECT}
_CALLED: Final = {"name": _NAME, "arguments": of("JSON text", str, Mapping)}
_TOOL: Final = {"type": _TEXT, "function": _OBJECT}
_FUNCTION: Final = {"name": _NAME, "description": _TEXT, "parameters": _OBJECT}
_FORMAT: Final = {"type": _TEXT, "json_schema": _OBJECT, "regex": _TEXT}

_UNSUPPORTED: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "n": (lambda v: v in (None, 1), "ask again for another answer"),
    "best_of": (lambda v: v in (None, 1), "leave it out"),
    "logit_bias": (lambda v: not v, "leave it out"),
    "modalities": (lambda v: v in (None, ["text"]), "answers are text"),
    "audio": (lambda v: v is None, "answers are text"),
    "functions": (lambda v: v is None, "use tools"),
    "function_call": (lambda v: v is None, "use tool_choice"),
    "web_search_options": (lambda v: v is None, "this model lives at home"),
}
_IGNORED: Final = ("ignore_eos", "min_p", "min_tokens", "mirostat", "reasoning_effort", "typical_p")


def _either(given: dict[str, Any], first: str, second: str) -> Any:
    preferred, other = given.pop(first, None), given.pop(second, None)
    return other if preferred is None else preferred


def _logprobs(given: dict[str, Any]) -> int | None:
    wanted, alternatives = given.pop("logprobs", False), given.pop("top_logprobs", None)
    if alternatives is not None and not wanted:
        raise RequestRefused("top_logprobs needs logprobs: true", param="top_logprobs")
    return (alternatives or 0) if wanted else None


def _stop(value: str | list[Any]) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value)
    if len(stops) > MAX_STOPS or not all(isinstance(each, str) and 0 < len(each) <= MAX_STOP for each in stops):
        raise wrong("stop", f"up to {MAX_STOPS} strings of 1 to {MAX_STOP} characters")
    return stops


# Messages ---------------------------------------------------------------------------------------------------------


def _messages(value: list[Any] | None, edge: Edge) -> tuple[Message, ...]:
    if value is None:
        if edge.template or edge.op == "resume":
            return ()
        raise RequestRefused("messages is missing", param="messages")
    called: dict[str, str] = {}
    messages = tuple(_message(each, f"messages[{index}]", called) for index, each in enumerate(value))
    if messages[-1].role == "assistant" and edge.op != "prepare":
        where = f"messages[{len(messages) - 1}].role"
        raise RequestRefused(f"{where}: the last message must not be the assistant's, ask something", param=where)
    return messages


def _message(value: Any, path: str, called: dict[str, str]) -> Message:
    given = take(value, _MESSAGE, path, "role")
    role = _role(given["role"], f"{path}.role")
    calls = tuple(_call(each, f"{path}.tool_calls[{i}]") for i, each in enumerate(given.get("tool_calls", ())))
    reply_to, name = given.get("tool_call_id"), given.get("name")
    if calls and role != "assistant":
        raise RequestRefused(f"{path}.tool_calls belongs to the assistant alone", param=f"{path}.tool_calls")
    if (role == "tool") != (reply_to is not None) or (reply_to is not None and reply_to not in called):
        need = "must be the id of an earlier tool call" if role == "tool" else "belongs to the role tool alone"
        raise RequestRefused(f"{path}.tool_call_id {need}", param=f"{path}.tool_call_id")
    if "content" not in given and not (role == "assistant" and (calls or "reasoning_content" in given)):
        raise RequestRefused(f"{path}.content is missing", param=f"{path}.content")
    called.update((call.id, call.name) for call in calls)
    return Message(
        role=role,
        content=_content(given.get("content", ""), f"{path}.content"),
        name=name if reply_to is None else called[reply_to],
        tool_calls=calls,
        tool_call_id=reply_to,
        reasoning=given.get("reasoning_content", ""),
    )


def _role(role: str, param: str) -> Role:
    match role:
        case "system" | "developer":
            return "system"
        case "user" | "assistant" | "tool":
            return role
        case "function":
            raise RequestRefused(f"{param} function is obsolete: use tool with a tool_call_id", param=param)
    raise wrong(param, "system, developer, user, assistant or tool")


def _content(value: str | list[Any], param: str) -> str:
    if isinstance(value, str):
        return value
    texts = []
    for index, part in enumerate(value):
        where = f"{param}[{index}]"
        kind = take(part, {"type": _TEXT}, where, "type")["type"]
        if kind not in ("text", "refusal"):
            raise Unsupported(f"{where} is {kind[:32]!r}: this model reads text alone", param=where)
        texts.append(take(part, {kind: _TEXT}, where, kind)[kind])
    return "\n".join(texts)


def _call(value: Any, path: str) -> ToolCall:
    call = take(value, _CALL, path, "id", "function")
    function = take(call["function"], _CALLED, f"{path}.function", "name", "arguments")
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments), ensure_ascii=False)
    return ToolCall(call["id"], function["name"], text)


# Tools and answers ------------------------------------------------------------------------------------------------


def _tools(value: list[Any] | None, edge: Edge) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for index, each in enumerate(value or ()):
        path = f"tools[{index}]"
        outer = take(each, _TOOL, path, "type", "function")
        if outer["type"] != "function":
            raise Unsupported(f"{path}.type {outer['type'][:32]!r}: only functions can be called", param=f"{path}.type")
        given = take(outer["function"], _FUNCTION, f"{path}.function", "name")
        name, where = given["name"], f"{path}.function.name"
        if name in tools or name in CHOICES:
            raise RequestRefused(f"{where} {name!r} is {'taken' if name in tools else 'reserved'}", param=where)
        if "parameters" in given:
            _parameters(given["parameters"], edge, f"{path}.function.parameters")
        tools[name] = Tool(**given)
    return tuple(tools.values())


def _parameters(value: Mapping[str, Any], edge: Edge, path: str) -> None:
    if value.get("type", "object") != "object":
        raise wrong(f"{path}.type", "object")
    schema.check(value, edge.defs, path)


def _tool_choice(value: str | Mapping[str, Any] | None, tools: tuple[Tool, ...]) -> str:
    if isinstance(value, Mapping):
        choice = take(value, _TOOL, "tool_choice", "type")
        if choice["type"] != "function":
            raise Unsupported(f"tool_choice.type {choice['type'][:32]!r} is not supported", param="tool_choice.type")
        function = choice.get("function")
        name: str = take(function, _CALLED, "tool_choice.function", "name")["name"]
        if name not in {tool.name for tool in tools}:
            raise wrong("tool_choice.function.name", "the name of one of the tools")
        return name
    if value is not None and value not in CHOICES:
        raise wrong("tool_choice", _BODY["tool_choice"].allowed)
    if value == "required" and not tools:
        raise RequestRefused("tool_choice required needs tools", param="tool_choice")
    return (value or "auto") if tools else "none"


def _response_format(value: Mapping[str, Any] | None, edge: Edge) -> ResponseFormat | None:
    if value is None:
        return None
    given = take(value, _FORMAT, "response_format", "type")
    match given["type"]:
        case "text":
            return None
        case "json_object":
            return ResponseFormat("json_object")
        case "json_schema":
            inner = take(given.get("json_schema"), {"schema": _OBJECT}, "response_format.json_schema", "schema")
            schema.check(inner["schema"], edge.defs, "response_format.json_schema.schema")
            return ResponseFormat("json_schema", schema=inner["schema"])
        case "regex":
            pattern = take(given, _FORMAT, "response_format", "regex")["regex"]
            schema.check_pattern(pattern, "response_format.regex")
            return ResponseFormat("regex", regex=pattern)
    raise Unsupported("response_format.type must be text, json_object, json_schema or regex", param="response_format")
