"""Who asks, and which broker: what all commands that speak over the wire have in common."""

from __future__ import annotations

import getpass
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

import typer

from edge_agent.client import Client
from edge_agent.config import Broker
from edge_agent.connection import connect
from edge_agent.wire import is_segment


@dataclass(frozen=True, slots=True)
class Caller:
    """A client of the wire before it connects. `timeout_s` is the deadline of each request."""

    broker: Broker
    name: str
    node: str
    timeout_s: float

    def connect(self) -> AbstractAsyncContextManager[Client]:
        return connect(self.broker, self.name)


def caller(broker: Broker, elsewhere: str | None, name: str | None, node: str, timeout_s: float) -> Caller:
    """Check what was typed; raises `typer.BadParameter`."""
    for option, value in (("--name", name), ("--node", node)):
        if value is not None and not is_segment(value):
            raise typer.BadParameter(f"{value!r} is not 1 to 64 of A-Z a-z 0-9 _ . -", param_hint=option)
    changes = {} if elsewhere is None else _place(elsewhere)
    return Caller(replace(broker, **changes), name or default_name(broker.username), node, timeout_s)


def default_name(username: str | None) -> str:
    """The broker user, whom its access list knows, or else a name made of the login."""
    if username and is_segment(username):
        return username
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # Nobody's process: a container with a user id that has no name.
        return "cli"
    return f"cli-{re.sub('[^A-Za-z0-9_.-]', '-', login)}"[:64]


def _place(text: str) -> dict[str, Any]:
    """`host`, `host:port`, `[address]` or `[address]:port`."""
    found = re.fullmatch(r"(?:\[(?P<address>[^]]+)\]|(?P<host>[^:\[\]\s]+))(?::(?P<port>\d{1,5}))?", text)
    if found is None or not 0 < int(found["port"] or 1) < 65536:
        raise typer.BadParameter(f"{text!r} is not HOST or HOST:PORT", param_hint="--broker")
    host = {"host": found["address"] or found["host"]}
    return {**host, "port": int(found["port"])} if found["port"] else host
