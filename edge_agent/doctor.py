"""Examines an installation from the broker to a short answer; every fault comes with its remedy."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent import resident
from edge_agent.broker import Dialer
from edge_agent.client import NodeView
from edge_agent.config import Config
from edge_agent.connection import connect
from edge_agent.engines import base
from edge_agent.engines.axera import card
from edge_agent.errors import ModelError, OperatorError
from edge_agent.memory import available_bytes
from edge_agent.models import download
from edge_agent.models.catalogue import Entry
from edge_agent.wire import Topics, WireError

_PRESENCE_S: Final = 1.0
_TOKENS: Final = 5
_SLACK: Final = 256 << 20
"""Bytes wanted free beyond the model's own: caches on the disk, the context in memory."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one examination found. A remedy without a fault is advice."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Yield what is found, from the ground up."""
    yield Finding("configuration", True, str(config.source or "defaults"), "; ".join(config.warnings))
    failed = set[str]()
    for name, look in _EXAMINATIONS.items():
        if failed & _NEEDS.get(name, set()):
            continue
        try:
            found = await look(config)
        except (OperatorError, WireError) as error:
            found = Finding(name, False, str(error), _REMEDIES[name])
        except TimeoutError:
            found = Finding(name, False, f"nothing came for {config.engine.start_s:g} s", _REMEDIES[name])
        for finding in [found] if isinstance(found, Finding) else found:
            if not finding.ok:
                failed.add(name)
            yield finding


async def _broker(config: Config) -> Finding:
    """Connect as the agent would, and send ourselves a message through a shared subscription."""
    broker = config.broker
    dialer = Dialer(broker, f"edge_agent-doctor-{secrets.token_hex(4)}")
    async with dialer.connect() as link:
        speaks = f"MQTT {'5' if link.v5 else '3.1.1'} at {broker.host}:{broker.port}"
        speaks += (
            f", {'TLS' if broker.tls else 'no TLS'}, {f'user {broker.username}' if broker.username else 'no user'}"
        )
        topic = Topics(broker.root).out(f"probe-{secrets.token_hex(8)}")
        heard, shares = await link.hears_itself(topic), await link.shares(topic)
    if not heard:
        return Finding("broker", False, f"{speaks}: nothing that we write below {broker.root}/v1 comes back", _ACL)
    if not shares:
        advice = "two agents would both answer a request to any: set pool.join to false on all but one"
        return Finding("broker", True, f"{speaks}, no shared subscriptions", advice)
    return Finding("broker", True, f"{speaks}, shared subscriptions")


async def presence(config: Config) -> NodeView:
    """What this node's own presence on the broker says; offline where it says nothing."""
    async with connect(config.broker, f"doctor-{secrets.token_hex(4)}") as client:
        view = NodeView(config.node)
        try:
            async with asyncio.timeout(_PRESENCE_S):
                async for nodes in client.changes():
                    view = nodes.get(config.node, view)
                    if view.online and view.state:
                        break
        except TimeoutError:
            pass
    return view


async def _agent(config: Config) -> Finding:
    """Whether an agent runs, and how it does."""
    view = await presence(config)
    if not view.online or view.state is None:
        return Finding("agent", True, f"{config.node} is not running", "edge-agent run starts it")
    detail = f"{config.node} is {view.state.phase}"
    if view.state.phase == "failed":
        return Finding(
            "agent", False, f"{detail}: {view.state.why}", f"mend that, then: edge-agent admin {config.node} reload"
        )
    return Finding("agent", True, detail)


async def _model(config: Config) -> Finding:
    found = resident.model(config)
    if found is None:
        return Finding("model", True, f"the engine {resident.engine_name(config)} needs none")
    if isinstance(found, Path):
        return Finding("model", True, str(found))
    if not download.is_present(found, config.data_dir):
        return Finding("model", False, f"{found.name} is not here, or has changed", f"edge-agent download {found.name}")
    return Finding("model", True, f"{found.name}, verified")


async def _engine(config: Config) -> Finding:
    """Import the runtime in a process of its own: native code may take the process with it."""
    name = resident.engine_name(config)
    code = "import sys; from edge_agent.engines import registry; registry.load(sys.argv[1])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, name), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode == 0:
        return Finding("engine", True, name)
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    detail = last[0] if last else f"{name} ends with {process.returncode} when it is loaded"
    return Finding("engine", False, detail, _REMEDIES["engine"])


async def _card(config: Config) -> list[Finding]:
    """An AXERA card, its driver and its files; nothing where another engine is configured and no such card is here."""
    return [Finding(*sign) async for sign in card.examine(await asyncio.to_thread(_on_card, config))]


async def _disk(config: Config) -> Finding:
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    free, need = shutil.disk_usage(folder).free, _need(config)
    return _enough("disk", free, need, f"free at {folder}", "free some, or set data_dir to a larger disk")


async def _memory(config: Config) -> Finding:
    options = _on_card(config)
    need = _need(config) if options is None else _SLACK + card.on_host(options)
    return _enough("memory", available_bytes(), need, "available", "choose a smaller model")


def _enough(name: str, free: int, need: int, where: str, remedy: str) -> Finding:
    detail = f"{free / 1e9:.1f} GB {where}"
    if free >= need:
        return Finding(name, True, detail)
    return Finding(name, False, f"{detail}; {need / 1e9:.1f} GB are wanted", remedy)


async def _answer(config: Config) -> Finding:
    """Let a second engine, beside the one of a running agent, write a few tokens."""
    files = await asyncio.to_thread(_files, config)
    began = time.monotonic()
    async with asyncio.timeout(config.engine.start_s), resident.engine(config, files) as engine:
        loaded = time.monotonic()
        prompt = base.Prompt((base.Segment("The sky is blue because"),))
        written = 0
        async with aclosing(engine.generate(prompt, base.Sampling(max_tokens=_TOKENS))) as pieces:
            async for piece in pieces:
                written += piece.tokens
        ended = time.monotonic()
    return Finding("answer", True, f"loaded in {loaded - began:.1f} s, {written} tokens in {ended - loaded:.2f} s")


def _files(config: Config) -> Path | None:
    """The model's file or folder, if the engine needs one and it is here."""
    found = resident.model(config)
    if not isinstance(found, Entry):
        return found
    return download.ensure(found, config.data_dir) if download.is_present(found, config.data_dir) else None


def _on_card(config: Config) -> dict[str, Any] | None:
    """The options of the engine that runs on an AXERA card, without `model` if that is not here; None for another."""
    if resident.engine_name(config) != "axera":
        return None
    files = None
    with suppress(ModelError):  # The examination of the model tells.
        files = _files(config)
    return {**config.engine.options, **({} if files is None else {"model": str(files)})}


def _need(config: Config) -> int:
    """Bytes wanted free: the model once more, and some."""
    found = _files(config)
    files = [] if found is None else found.rglob("*") if found.is_dir() else [found]
    return _SLACK + sum(file.stat().st_size for file in files if file.is_file())


_EXAMINATIONS: Final[dict[str, Callable[[Config], Awaitable[Finding | list[Finding]]]]] = {
    "broker": _broker,
    "agent": _agent,
    "model": _model,
    "card": _card,
    "engine": _engine,
    "disk": _disk,
    "memory": _memory,
    "answer": _answer,
}
_NEEDS: Final = {"agent": {"broker"}, "answer": {"model", "engine", "card"}}
"""What cannot be examined once something else is at fault."""
_ACL: Final = "let the agent's user read and write there; config/mosquitto/edge-agent.acl has such a user"
_REMEDIES: Final = {
    "broker": "start one (apt install mosquitto), or correct broker in the configuration",
    "agent": "look at the broker's access control list",
    "model": "set model to a name of edge-agent download --list, or to a path",
    "card": "set model to a folder of axmodel files",
    "engine": "install the runtime: pip install 'edge-agent[openvino]'",
    "disk": "set data_dir",
    "memory": "choose a smaller model",
    "answer": "look at the log of edge-agent --debug doctor, and at engine.options",
}
