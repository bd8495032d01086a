"""The command line. Every failure is one line on standard error that says what to do, and an exit code."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import typer

from edge_agent.cli.commands import app
from edge_agent.cli.terminal import printable
from edge_agent.errors import OperatorError
from edge_agent.wire import WireError

__all__ = ["app", "main"]

_TEMPFAIL: Final = 75  # EX_TEMPFAIL of sysexits.h: the same again later may succeed.
_SOFTWARE: Final = 70  # EX_SOFTWARE
_GLOBAL: Final = ("--config", "--debug")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments`, by default the process's own, and return the exit code.

    Ctrl-C is 130; a reader of the output that has gone is a quiet 1, by `SystemExit`: both are typer's doing.
    """
    given = _globals_first(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(app(given, prog_name="edge-agent", standalone_mode=False) or 0)
    except Exception as error:
        if "--debug" in given:
            raise
        message, code = _explain(error)
        for line in printable(message).splitlines():
            typer.echo(f"edge-agent: {line}", err=True)
        return code


def _globals_first(arguments: Sequence[str]) -> list[str]:
    """Let the options of the whole program also stand after the command, where many people put them."""
    first, rest, words = list[str](), list[str](), deque(arguments)
    while words:
        word = words.popleft()
        if word == "--":
            return [*first, *rest, word, *words]
        (first if word.partition("=")[0] in _GLOBAL else rest).append(word)
        if word == "--config" and words:
            first.append(words.popleft())
    return first + rest


def _explain(error: BaseException) -> tuple[str, int]:
    """What to print, and the exit code. Of a group, the first failure that is meant for a person."""
    while isinstance(error, BaseExceptionGroup):
        known, other = error.split((WireError, OperatorError))
        error = (known or other or error).exceptions[0]
    match error:
        case OperatorError():
            return str(error), error.exit_code
        case WireError():
            wait = f"; try again in {error.retry_after_s:g} s" if error.retry_after_s else ""
            return " ".join(f"{error}{wait}".split()), _TEMPFAIL if error.code.retryable else 1
        case typer.TyperException():
            path = context.command_path if (context := getattr(error, "ctx", None)) else "edge-agent"
            message = error.format_message()  # Empty where the help itself has just been printed.
            return message and f"{message} ({path} --help tells more)", error.exit_code
    said = f"{type(error).__name__}: {error}"
    return f"a fault of the program itself, please report it with the output of --debug: {said}", _SOFTWARE
