"""The configuration, its defaults, its bounds and what each setting means. docs/configuration.md is made from this."""

# ruff: noqa: RUF009 - `_set` and `_section` return `dataclasses.field`, which the rule cannot see

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import voluptuous as vol

from edge_agent.config import rules
from edge_agent.config.rules import Rule
from edge_agent.wire import DEFAULT_ROOT, POOL

ENV_PREFIX: Final = "EDGE_AGENT_"
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


def _set(default: Any, rule: Rule, meaning: str, shown: str | None = None, *, hide: bool = False) -> Any:
    """A setting. A callable default is computed; `shown` then describes it. `hide` keeps it out of `repr`."""
    metadata = {"rule": rule, "meaning": meaning, "shown": shown}
    visible = not (hide or rule.secret)
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=visible)
    return field(default=default, metadata=metadata, repr=visible)


def _section(cls: type[Any], *, optional: bool = False) -> Any:
    metadata = {"section": cls, "optional": optional}
    return field(default=None, metadata=metadata) if optional else field(default_factory=cls, metadata=metadata)


def _nothing() -> Mapping[str, Any]:
    return _EMPTY


def default_node() -> str:
    """The host's name without its domain, made to fit a topic."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname().partition(".")[0])[:64].strip("-")
    return f"node-{name}".rstrip("-") if name in ("", POOL) else name


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """The state directory that systemd gives, else the user's data folder."""
    if state := environ.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0])
    data = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or Path.home(), ".local/share")
    return Path(data, "edge-agent")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the broker. `tls: {}` trusts the system's certificate authorities."""

    ca: Path | None = _set(None, rules.readable_file(), "certificate authorities to trust instead of the system's, PEM")
    certificate: Path | None = _set(None, rules.readable_file(), "this agent's own certificate, PEM")
    key: Path | None = _set(None, rules.readable_file(), "its private key, PEM, unless the certificate's file holds it")
    insecure: bool = _set(False, rules.flag(), "do not check the broker's certificate: for a test bench only")

    def __post_init__(self) -> None:
        if self.key and not self.certificate:
            raise vol.Invalid("needs the certificate it belongs to", ["certificate"])


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the MQTT broker is and how to log in."""

    host: str = _set("127.0.0.1", rules.text("a host name or address"), "the broker's host")
    port: int = _set(1883, rules.whole(1, 65535), "its port; with TLS usually 8883")
    root: str = _set(DEFAULT_ROOT, rules.topic_root(), "first part of every topic; Home Assistant finds the default")
    username: str | None = _set(None, rules.text("a user name"), "user on the broker")
    password: str | None = _set(None, rules.text("a password", secret=True), "its password; better as `password_file`")
    tls: Tls | None = _section(Tls, optional=True)
    protocol: str = _set("auto", rules.one_of("auto", "5", "3.1.1"), "MQTT version; `auto` tries 5 first")
    keepalive_s: int = _set(15, rules.whole(5, 3600), "a dead connection is noticed within 1.5 times this")
    timeout_s: float = _set(10.0, rules.seconds(1, 300), "how long the broker may take to answer")
    reconnect_max_s: float = _set(30.0, rules.seconds(1, 3600), "longest pause between two attempts to connect")

    def __post_init__(self) -> None:
        if self.password is not None and self.username is None:
            raise vol.Invalid("is needed with a password", ["username"])

    @property
    def is_local(self) -> bool:
        """Whether the broker is reached over the loopback interface."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Engine:
    """The runtime that answers, and how it is kept alive."""

    name: str = _set("auto", rules.text("an engine's name"), "engine, or `package.module:Class`; `auto` is the model's")
    options: Mapping[str, Any] = _set(
        _nothing, rules.mapping(), "what this engine takes; see docs/hardware.md", "{}", hide=True
    )
    stall_s: float = _set(60.0, rules.seconds(1, 3600), "no token for so long is a stall; the engine is restarted")
    start_s: float = _set(600.0, rules.seconds(1, 86400), "how long loading the model may take")
    restarts: int = _set(5, rules.whole(0, 1000), "restarts within the window before the node gives up")
    restart_window_s: float = _set(300.0, rules.seconds(1, 86400), "the window that restarts are counted in")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request and its answer; the node announces them."""

    request_bytes: int = _set(262144, rules.whole(1024, 16 << 20), "largest request")
    chunk_bytes: int = _set(4096, rules.whole(256, 1 << 20), "largest streamed piece")
    final_bytes: int = _set(65536, rules.whole(1024, 16 << 20), "largest last message of an answer")
    max_tokens: int = _set(512, rules.whole(1, 1 << 20), "tokens of an answer when the request says nothing")
    timeout_s: float = _set(120.0, rules.seconds(1, 86400), "deadline when the request says nothing")
    max_timeout_s: float = _set(3600.0, rules.seconds(1, 86400), "longest deadline a request may ask for")
    drain_s: float = _set(15.0, rules.seconds(0, 3600), "how long running answers may take when the node stops")

    def __post_init__(self) -> None:
        if self.timeout_s > self.max_timeout_s:
            raise vol.Invalid(f"{self.timeout_s:g} is more than max_timeout_s, {self.max_timeout_s:g}", ["timeout_s"])


@dataclass(frozen=True, slots=True)
class Backlog:
    """Bounds of what waits and of what is remembered."""

    size: int = _set(32, rules.whole(1, 10000), "requests that may wait")
    per_client: int = _set(8, rules.whole(1, 10000), "of which one client may hold so many")
    finals_per_client: int = _set(32, rules.whole(1, 10000), "finished answers kept for a client that lost one")
    finals_bytes_per_client: int = _set(524288, rules.whole(1024, 1 << 30), "their bytes together")
    clients: int = _set(256, rules.whole(1, 100000), "clients whose answers are kept; the idlest goes first")


@dataclass(frozen=True, slots=True)
class Pool:
    """Sharing work with other nodes on the same broker."""

    join: bool = _set(True, rules.flag(), "also take requests addressed to `any`")
    group: str = _set(DEFAULT_ROOT, rules.node_name(), "name of the shared subscription")


@dataclass(frozen=True, slots=True)
class Admin:
    """Who may drain, reload or stop this node over MQTT."""

    clients: frozenset[str] = _set(frozenset, rules.segments(), "names of those clients; nobody by default", "[]")


@dataclass(frozen=True, slots=True)
class Log:
    """What is written to standard error."""

    level: str = _set("info", rules.one_of("debug", "info", "warning", "error"), "least severity to write")
    format: str = _set("auto", rules.one_of("auto", "human", "json"), "`auto`: human on a terminal, else JSON")


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be configured. Built by `load`; every value has been checked."""

    node: str = _set(default_node, rules.node_name(), "this node's name; each node needs its own", "the host's name")
    model: str = _set("smollm2-135m", rules.text("a model's name or path"), "model of the catalogue, or a path to one")
    broker: Broker = _section(Broker)
    engine: Engine = _section(Engine)
    limits: Limits = _section(Limits)
    backlog: Backlog = _section(Backlog)
    pool: Pool = _section(Pool)
    admin: Admin = _section(Admin)
    template: str | None = _set(None, rules.text("a chat format"), "chat format to use instead of the model's own")
    templates: Mapping[str, Any] = _set(
        _nothing, rules.mappings("mapping of names to prompt templates"), "named prompts that requests may use", "{}"
    )
    models: Mapping[str, Any] = _set(
        _nothing, rules.mappings("mapping of names to models"), "models of your own, laid over the catalogue", "{}"
    )
    log: Log = _section(Log)
    data_dir: Path = _set(
        lambda: default_data_dir(os.environ),
        rules.folder(),
        "where models and caches are kept",
        "$STATE_DIRECTORY, else $XDG_DATA_HOME/edge-agent",
    )
    source: Path | None = None
    """The file it was read from."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works but should not stay so."""
        broker = self.broker
        found = []
        if broker.password is not None and broker.tls is None and not broker.is_local:
            found.append(f"broker.password goes to {broker.host} in the clear: set broker.tls")
        if broker.tls and broker.tls.insecure:
            found.append("broker.tls.insecure: anyone on the way can pose as the broker")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: where it stands, what it may be and what it means."""

    path: tuple[str, ...]
    rule: Rule
    default: Any
    shown: str
    """The default in words of YAML."""
    meaning: str

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + "__".join(self.path).upper()


def options(cls: type[Any] = Config, above: tuple[str, ...] = ()) -> Iterator[Option]:
    """Every setting, in the order of the file."""
    for each in fields(cls):
        path = (*above, each.name)
        if section := each.metadata.get("section"):
            yield from options(section, path)
        elif rule := each.metadata.get("rule"):
            shown = each.metadata["shown"] or rules.shown(each.default).strip("'")
            yield Option(path, rule, each.default, shown, each.metadata["meaning"])


def schema(cls: type[Any] = Config) -> Callable[[Any], Any]:
    """The voluptuous schema that checks a mapping and builds `cls` from it; raises `vol.Invalid` with every fault."""
    names = [each.name for each in fields(cls) if each.metadata]

    def unknown(name: Any) -> NoReturn:
        near = difflib.get_close_matches(str(name), names, n=1)
        raise vol.Invalid(
            f"is unknown; did you mean {near[0]}?" if near else f"is unknown; known are {', '.join(names)}"
        )

    def build(given: dict[str, Any]) -> Any:
        return cls(**given)

    known: dict[Any, Any] = {vol.Optional(each.name): _value(each) for each in fields(cls) if each.metadata}
    inside = vol.Schema(vol.All({**known, unknown: object}, build))

    def check(value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            raise vol.Invalid(f"{rules.shown(value)} is not a mapping of {', '.join(names)}")
        return inside(value or {})

    return check


def _value(each: Field[Any]) -> Callable[[Any], Any]:
    section = each.metadata.get("section")
    check: Callable[[Any], Any] = schema(section) if section else each.metadata["rule"]
    return (lambda value: None if value is None else check(value)) if each.default is None else check
