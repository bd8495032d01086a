"""`edge-agent ask`: one question, its answer as it comes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import typer

from edge_agent import wire
from edge_agent.cli import terminal
from edge_agent.cli.caller import Caller
from edge_agent.client import Client
from edge_agent.wire import Reply, WireError

_LARGEST: Final = 16 << 20
"""Bytes of a question; a node takes far less and says so."""


def read(words: Sequence[str]) -> str:
    """The question as typed; a `-` at its end stands for standard input. Raises `typer.BadParameter`."""
    if list(words[-1:]) != ["-"]:
        return " ".join(words)
    return "\n\n".join(filter(None, (" ".join(words[:-1]), _standard_input())))


def _standard_input() -> str:
    data = sys.stdin.buffer.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise typer.BadParameter(f"standard input is longer than {_LARGEST} bytes", param_hint="-")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8 at byte {error.start}", param_hint="-") from error


def read_schema(file: Path | None) -> Mapping[str, Any] | None:
    """The JSON schema in a file; raises `typer.BadParameter`."""
    if file is None:
        return None
    try:
        return wire.loads(file.read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="--schema") from error
    except WireError as error:
        raise typer.BadParameter(f"{file}: {error.message}", param_hint="--schema") from error


def body(
    question: str,
    *,
    system: str | None = None,
    template: str | None = None,
    variables: Sequence[str] = (),
    schema: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """The request; raises `typer.BadParameter` when there is nothing to ask."""
    pairs = [each.partition("=") for each in variables]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--var")
    if pairs and not template:
        raise typer.BadParameter("is for a --template", param_hint="--var")
    if not question.strip() and not template:
        raise typer.BadParameter("is empty: type one, or - to read standard input", param_hint="QUESTION")
    said = (("system", system), ("user", question))
    asked: dict[str, Any] = {
        "messages": [{"role": role, "content": text} for role, text in said if text],
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    if schema is not None:
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    if template:
        asked["edge"] = {"template": template, "vars": {name: value for name, _, value in pairs}}
    return {name: value for name, value in asked.items() if value is not None}


def ask(caller: Caller, request: Mapping[str, Any], *, raw: bool, stats: bool) -> None:
    """Ask and print; raises `WireError` or `BrokerError` when there is no answer."""
    asyncio.run(_ask(caller, request, raw=raw, stats=stats))


async def _ask(caller: Caller, request: Mapping[str, Any], *, raw: bool, stats: bool) -> None:
    async with caller.connect() as client:
        answer = Answer()
        try:
            await converse(client, caller, request, answer, raw=raw)
        except WireError as error:
            if raw:
                terminal.put(f"{json.dumps(error.body(), ensure_ascii=False)}\n")
            raise
        if stats:
            typer.echo(answer.figures, err=True)


class Answer:
    """What has come of an answer, and what of it remains to be printed."""

    def __init__(self) -> None:
        self.text = ""
        self.figures = ""
        self.cut = ""
        """Said of an answer that ended because it may not be longer."""
        self._asked = time.monotonic()
        self._first_s: float | None = None

    def feed(self, reply: Reply) -> str:
        """The text to print next. The last message repairs what was lost on the way."""
        if reply.kind == "chunk":
            new = _text(reply)
            if self._first_s is None:
                self._first_s = time.monotonic() - self._asked
            self.text += new
            return new
        if not reply.final:
            return ""
        self.figures = self._figures(reply)
        match reply.body:
            case {"choices": [{"finish_reason": "length"}], "usage": {"completion_tokens": tokens}}:
                self.cut = f"cut off after {tokens} tokens"
        whole = _text(reply)
        if reply.extra.get("text_omitted") or reply.extra.get("truncated") or whole == self.text:
            return ""
        missing = whole[len(self.text) :] if whole.startswith(self.text) else f"\n{whole}"
        self.text = whole
        return missing

    def _figures(self, reply: Reply) -> str:
        usage, timings = reply.body.get("usage"), reply.extra.get("timings")
        details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
        first_s = _number(timings, "first_token_s") if self._first_s is None else self._first_s
        return (
            f"first token {first_s:.2f} s · {_number(timings, 'tokens_per_s'):.1f} tokens/s · "
            f"{_number(usage, 'prompt_tokens')} prompt tokens, {_number(details, 'cached_tokens')} of them cached · "
            f"{_number(usage, 'completion_tokens')} written · node {reply.node}"
        )


async def converse(
    client: Client, caller: Caller, request: Mapping[str, Any], answer: Answer, *, raw: bool = False
) -> None:
    """Ask on an open connection and print what comes; cancelling it cancels the request."""
    notice = terminal.Notice()
    replies = client.ask({**request, "stream": True}, target=caller.node, timeout_s=caller.timeout_s)
    try:
        async with aclosing(replies):
            async for reply in replies:
                text = answer.feed(reply)
                if raw:
                    terminal.put(f"{reply.encode().decode()}\n")
                elif text:
                    notice.clear()
                    terminal.put(text)
                elif said := waiting(reply):
                    notice.show(said)
    finally:
        notice.clear()
        if answer.text and not raw and not answer.text.endswith("\n"):
            terminal.put("\n")
        if answer.cut and not raw:
            typer.echo(answer.cut, err=True)


def waiting(reply: Reply) -> str:
    """What a person may know while nothing is written yet."""
    match reply.kind:
        case "accepted" | "queued" if reply.body.get("position"):
            return f"{reply.node}: {reply.body['position']} before you"
        case "progress":
            return f"{reply.node} reads: {reply.body.get('read')} of {reply.body.get('prompt')} tokens"
    return ""


def _text(reply: Reply) -> str:
    match reply.body:
        case {"choices": [{"delta": {"content": str(text)}}, *_]} | {
            "choices": [{"message": {"content": str(text)}}, *_]
        }:
            return text
    return ""


def _number(values: Any, name: str) -> float:
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, int | float) else 0
