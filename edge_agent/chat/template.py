"""Messages and tools become a prompt, through the model's own chat template or one of ours.

Nothing a client writes can become a special token. The first character of every special is marked wherever it stands
in a client's text; the mark survives whatever the template does, and the marked characters become plain segments of
the prompt. What is left to control segments then cannot contain a special that the template did not write itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from edge_agent.chat import sandbox
from edge_agent.chat.prompt import Dialect, Prompt, Segment
from edge_agent.chat.request import Message, Tool
from edge_agent.errors import ConfigError, RequestRefused
from edge_agent.shipped import shipped

MARK: Final = "\ufdd0"
"""A code point that Unicode reserves for private use inside a program; in a client's text it is replaced."""
OWN: Final = "model"
"""The name of the model's own template."""
GUESSES: Final = {"<|im_start|>": "chatml", "<|start_header_id|>": "llama3", "<start_of_turn>": "gemma"}
_SOME_DAY: Final = "2000-01-01"
"""For templates that cannot do without a date, while they are only tried out."""

# The words of the Hermes format, on which Qwen2.5 and many others were trained: every character counts.
PREAMBLE: Final = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""

_Json = dict[str, Any]


def builtin(name: str) -> str:
    """Read the source of a chat format that ships, such as `chatml`."""
    names = sorted(path.stem for path in shipped("templates").glob("*.jinja"))
    if name not in names:
        raise ConfigError(f"no chat template is called {name!r}: there are {', '.join([OWN, *names])}")
    return shipped(f"templates/{name}.jinja").read_text(encoding="utf-8")


def choose(dialect: Dialect, override: str | None = None) -> tuple[str, ChatTemplate]:
    """Choose the operator's template, else the model's own, else one by the model's special tokens."""
    if dialect.template and override in (None, OWN):
        return OWN, ChatTemplate(dialect.template, dialect)
    name = override or next((guess for special, guess in GUESSES.items() if special in dialect.specials), None)
    if name is None or name == OWN:
        raise ConfigError("the model brings no chat template of its own: choose one by name")
    return name, ChatTemplate(builtin(name), dialect)


class ChatTemplate:
    """A chat format, for a model that speaks a dialect. Raises `ConfigError` when the source does not compile."""

    def __init__(self, source: str, dialect: Dialect) -> None:
        self._template = sandbox.load(source.replace(MARK, ""))
        self._dialect = dialect
        firsts = "".join(sorted({special[0] for special in dialect.specials if special}))
        self._openers = re.compile(f"[{re.escape(firsts)}]") if firsts else None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        generate: bool = True,
        today: str | None = None,
    ) -> Prompt:
        """Render a conversation, up to where the model goes on if `generate`; `today` is YYYY-MM-DD.

        Raises `RequestRefused` for a conversation the template does not allow.
        """
        marked = [self._mark(_message(each)) for each in messages]
        signatures = [self._mark(_tool(each)) for each in tools]
        if not self._takes_tools:
            marked, signatures = _spell_out(marked, signatures), []
        if not self._takes_system:
            marked = _fold_system(marked)
        return Prompt(_segments(self._write(marked, signatures, generate=generate, today=today)))

    @cached_property
    def _takes_tools(self) -> bool:
        question, probe = [_message(Message("user", "?"))], [self._mark(_tool(Tool("probe")))]
        try:
            return self._write(question, probe, today=_SOME_DAY) != self._write(question, [], today=_SOME_DAY)
        except RequestRefused:
            return False

    @cached_property
    def _takes_system(self) -> bool:
        try:
            self._write([_message(Message("system", "!")), _message(Message("user", "?"))], [], today=_SOME_DAY)
        except RequestRefused:
            return False
        return True

    def _write(
        self, messages: list[_Json], tools: list[_Json], *, generate: bool = True, today: str | None = None
    ) -> str:
        variables = {
            "messages": messages,
            "tools": tools or None,
            "add_generation_prompt": generate,
            "bos_token": self._dialect.bos,
            "eos_token": self._dialect.eos,
        }
        return sandbox.render(self._template, variables, today=today, param="messages")

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            clean = value.replace(MARK, "\ufffd")
            return self._openers.sub(rf"\g<0>{MARK}", clean) if self._openers else clean
        if isinstance(value, Mapping):
            return {self._mark(key): self._mark(item) for key, item in value.items()}
        return [self._mark(item) for item in value] if isinstance(value, (list, tuple)) else value


_MARKED: Final = re.compile(f"((?:[^{MARK}]{MARK})+)")


def _segments(text: str) -> tuple[Segment, ...]:
    stretches = enumerate(_MARKED.split(text))
    segments = (Segment(stretch.replace(MARK, ""), control=index % 2 == 0) for index, stretch in stretches)
    return tuple(segment for segment in segments if segment.text)


# What templates expect ----------------------------------------------------------------------------------------------


def _message(message: Message) -> _Json:
    """Write a message the way templates read it: arguments as an object, reasoning beside the content."""
    written: _Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _loads(call.arguments)}}
            for call in message.tool_calls
        ]
    optional = {"name": message.name, "tool_call_id": message.tool_call_id, "reasoning_content": message.reasoning}
    return {**written, **{key: value for key, value in optional.items() if value}}


def _tool(tool: Tool) -> _Json:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _loads(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


# Templates that know less ---------------------------------------------------------------------------------------------


def _spell_out(messages: list[_Json], tools: list[_Json]) -> list[_Json]:
    """Put tools, calls and results into the text, for a template that passes over them."""
    spelled: list[_Json] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "tool":
            result = f"<tool_response>\n{content}\n</tool_response>"
            if spelled and spelled[-1].get("results"):
                spelled[-1]["content"] += f"\n{result}"
            else:
                spelled.append({"role": "user", "content": result, "results": True})
        else:
            calls = [_call_text(call["function"]) for call in message.get("tool_calls", ())]
            spelled.append({**message, "content": "\n".join([content, *calls] if content else calls)})
    if not tools:
        return spelled
    signatures = "".join(f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools)
    preamble = PREAMBLE.format(signatures=signatures)
    if spelled and spelled[0]["role"] == "system":
        first = spelled.pop(0)
        preamble = f"{first['content']}\n\n{preamble}"
    return [{"role": "system", "content": preamble}, *spelled]


def _call_text(function: _Json) -> str:
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _fold_system(messages: list[_Json]) -> list[_Json]:
    """Open the first turn of the user with the system text, for a template that refuses the role."""
    system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
    rest = [each for each in messages if each["role"] != "system"]
    if not system:
        return rest
    for index, message in enumerate(rest):
        if message["role"] == "user":
            rest[index] = {**message, "content": f"{system}\n\n{message['content']}"}
            return rest
    return [{"role": "user", "content": system}, *rest]
