"""`edge-agent chat`: a conversation. Lines are read here while a thread keeps the connection to the broker alive."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer

from edge_agent.cli.ask import Answer, converse
from edge_agent.cli.caller import Caller
from edge_agent.cli.terminal import printable
from edge_agent.client import Client
from edge_agent.wire import WireError

_T = TypeVar("_T")
_HELP: Final = "/reset forgets what was said, /quit or Ctrl-D leaves, Ctrl-C stops an answer"


class Conversation:
    """What was said so far."""

    def __init__(self, system: str | None, options: Mapping[str, Any]) -> None:
        self._opening = [{"role": "system", "content": system}] if system else []
        self._options = {name: value for name, value in options.items() if value is not None}
        self.messages = list(self._opening)

    def reset(self) -> None:
        self.messages = list(self._opening)

    def request(self, said: str) -> dict[str, Any]:
        """The next request; a conversation that outgrows the context loses its oldest turns."""
        turn = {"role": "user", "content": said}
        return {**self._options, "messages": [*self.messages, turn], "edge": {"trim": True}}

    def remember(self, said: str, answered: str) -> None:
        """Keep a turn; one that nobody answered is as if it had not been said."""
        if answered:
            self.messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]


def chat(caller: Caller, system: str | None, options: Mapping[str, Any], *, stats: bool) -> None:
    """Talk until the input ends; raises `BrokerError` when the broker cannot be reached at all."""
    conversation = Conversation(system, options)
    with _connected(caller) as (client, thread):
        for said in _lines():
            match said:
                case "":
                    continue
                case "/quit":
                    return
                case "/reset":
                    conversation.reset()
                    _tell("forgotten")
                case _ if said.startswith("/"):
                    _tell(f"{printable(said.split()[0])} is unknown: {_HELP}")
                case _:
                    _turn(client, thread, caller, conversation, said, stats=stats)


def _turn(
    client: Client, thread: _Thread, caller: Caller, conversation: Conversation, said: str, *, stats: bool
) -> None:
    answer = Answer()
    try:
        thread.wait(converse(client, caller, conversation.request(said), answer))
    except KeyboardInterrupt:
        _tell("stopped")
    except WireError as error:
        _tell(f"edge-agent: {printable(str(error))}")
    else:
        if stats:
            _tell(answer.figures)
    conversation.remember(said, answer.text)


def _lines() -> Iterator[str]:
    """What is typed, until the input ends; Ctrl-C drops the line begun."""
    person = sys.stdin.isatty()
    if person:
        _tell(_HELP)
        if importlib.util.find_spec("readline"):
            importlib.import_module("readline")  # Gives `input` its editing keys and its history.
    while True:
        try:
            yield input("> " if person else "").strip()
        except KeyboardInterrupt:
            _tell("")
        except EOFError:
            if person:
                _tell("")
            return


def _tell(text: str) -> None:
    typer.echo(text, err=True)


class _Thread:
    """An event loop in a thread of its own, so that `input` may block this one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="mqtt", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for work over there. Ctrl-C cancels it, lets it clean up and comes through."""
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()

        async def whole() -> _T:
            try:
                return await work
            finally:
                ended.set_result(None)

        future = asyncio.run_coroutine_threadsafe(whole(), self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            if future.cancel():
                ended.result()
            raise

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def _connected(caller: Caller) -> Iterator[tuple[Client, _Thread]]:
    thread = _Thread()
    try:
        connection = caller.connect()
        client = thread.wait(connection.__aenter__())
        try:
            yield client, thread
        finally:
            thread.wait(connection.__aexit__(None, None, None))
    finally:
        thread.stop()
