"""What an answer must be: for engines that can obey it token by token, and checked afterwards for those that cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from edge_agent.chat import schema
from edge_agent.chat.calls import Call, no_constant
from edge_agent.chat.prompt import Constraint
from edge_agent.chat.request import ChatRequest, Message, ResponseFormat, Tool
from edge_agent.chat.tools import AnswerParser, CallArguments, CallStart, Text

_FENCE: Final = "```"
_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}


def build(request: ChatRequest) -> Constraint | None:
    """Say what the engine must obey; None if it may write what it likes.

    Where something is wanted, a call or a format, a call stands there as bare JSON, `{"name": …, "arguments": …}`,
    which the parser of answers reads; where the model may call or answer, and the answer has a format, either will do.
    Where nothing is wanted, the text is free, and only the calls in it are bound.
    """
    wanted = request.response_format
    if not _must_call(request):
        if wanted is None:
            return _calls(request) if _callable(request) else None
        if wanted.kind == "regex":
            return Constraint(regex=wanted.regex)
    definitions = dict(request.edge.defs)
    alternatives = [_call_schema(tool, definitions) for tool in _callable(request)]
    if wanted is not None and not _must_call(request):
        body, own = schema.lift(_answer_schema(wanted), "answer.")
        definitions.update(own)
        alternatives.insert(0, body)
    root = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    param = "tools" if _must_call(request) else None if _callable(request) else "response_format"
    return Constraint(json_schema=json.dumps(schema.close(root, definitions), ensure_ascii=False), param=param)


def violation(request: ChatRequest, text: str) -> str | None:
    """Say in what a finished answer breaks the request's constraint, in words for the model; None if it holds.

    `text` is all that the model wrote, reasoning and calls included. Raises `RequestRefused` when the client's schema
    or pattern takes too long to check.
    """
    wanted = request.response_format
    content, calls = _take_apart(request, text)
    if calls and (wanted or _must_call(request)):
        return next(filter(None, (_call_problem(request, call) for call in calls)), None)
    if _must_call(request):
        names = ", ".join(tool.name for tool in _callable(request))
        return f"it calls no tool; one of these must be called: {names}"
    return None if wanted is None else _answer_problem(request, wanted, content)


def repair(request: ChatRequest, text: str, problem: str) -> tuple[Message, ...]:
    """Write the messages that follow a bad answer and ask for a better one."""
    must = "with the tool call alone" if _must_call(request) else "with the corrected answer alone"
    request_again = f"Your answer is not valid: {problem}. Answer again, {must}, without any explanation."
    return (Message("assistant", text), Message("user", request_again))


def extract_json(text: str) -> str | None:
    """Find the JSON that is the answer: all of the text, or what its only code block holds; None if neither is JSON."""
    candidates = [text]
    if text.count(_FENCE) == 2:
        candidates.append(text.split(_FENCE)[1].partition("\n")[2])
    for each in candidates:
        with suppress(ValueError, RecursionError):
            _loads(each)
            return each.strip()
    return None


def _must_call(request: ChatRequest) -> bool:
    return bool(request.tools) and request.tool_choice not in ("auto", "none")


def _callable(request: ChatRequest) -> tuple[Tool, ...]:
    match request.tool_choice:
        case "none":
            return ()
        case "auto" | "required":
            return request.tools
    return tuple(tool for tool in request.tools if tool.name == request.tool_choice)


def _calls(request: ChatRequest) -> Constraint:
    definitions = dict(request.edge.defs)
    tools = {tool.name: _arguments(tool, definitions) for tool in _callable(request)}
    whole = schema.close({"properties": tools}, definitions)
    return Constraint(calls=json.dumps(whole, ensure_ascii=False), several=request.parallel_tool_calls, param="tools")


def _call_schema(tool: Tool, definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": _arguments(tool, definitions)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _arguments(tool: Tool, definitions: dict[str, Any]) -> dict[str, Any]:
    parameters, own = schema.lift(tool.parameters, f"{tool.name}.")
    definitions.update(own)
    return {"type": "object", **parameters}


def _answer_schema(wanted: ResponseFormat) -> Mapping[str, Any]:
    return wanted.schema if wanted.kind == "json_schema" else _ANY_OBJECT


def _take_apart(request: ChatRequest, text: str) -> tuple[str, list[Call]]:
    tools = [tool.name for tool in _callable(request)]
    forced = tools[0] if len(tools) == 1 and _must_call(request) else None
    parser = AnswerParser(tools, forced=forced)
    content, names, calls = "", [], []
    for event in (*parser.feed(text), *parser.finish()):
        match event:
            case Text(stretch):
                content += stretch
            case CallStart(_, name):
                names.append(name)
            case CallArguments(index, fragment):
                calls.append(Call(names[index], fragment))
    return content, calls


def _call_problem(request: ChatRequest, call: Call) -> str | None:
    tool = next(tool for tool in request.tools if tool.name == call.name)
    whole = schema.close(tool.parameters, request.edge.defs)
    problem = schema.problem(whole, json.loads(call.arguments), "tools")
    return problem and f"the arguments of {call.name} are wrong: {problem}"


def _answer_problem(request: ChatRequest, wanted: ResponseFormat, text: str) -> str | None:
    if wanted.kind == "regex":
        if schema.matches(wanted.regex, text, "response_format.regex"):
            return None
        return f"it does not match the regular expression {wanted.regex}"
    found = extract_json(text)
    if found is None:
        return "it is not JSON"
    whole = schema.close(_answer_schema(wanted), request.edge.defs)
    return schema.problem(whole, _loads(found), "response_format.json_schema")


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=no_constant)
