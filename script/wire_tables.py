"""The tables of docs/protocol.md, from the code that speaks the protocol; `script/docs` puts them there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from edge_agent.config import Config, options
from edge_agent.envelope import Edge
from edge_agent.wire import ADMIN_OPS, CODES, KINDS, PHASES, Info, State, Topics

KIND_MEANINGS = {
    "accepted": "admitted; `position` requests go before it, `eta_s` estimates the wait in seconds",
    "queued": "still waiting; `position` or `eta_s` changed",
    "progress": "reading a long prompt: `read` of `prompt` tokens are done",
    "chunk": "a `chat.completion.chunk`: the next piece of text, of reasoning or of a tool call",
    "final": "the whole `chat.completion`; the last message",
    "error": "an `error` object; the last message, unless `edge.final` is false",
}
PHASE_MEANINGS = {
    "loading": "the model is being loaded, or loaded again after a fault; direct requests get `unavailable`",
    "ready": "the engine has answered a first token; requests are taken",
    "draining": "the node is stopping; what runs goes on, what is new gets `draining`",
    "failed": "the engine cannot be started; `why` says what an operator must do",
}
INFO_MEANINGS = {
    "node": "the node's name, as in its topics",
    "software": "version of the agent",
    "model": "name of the model that answers",
    "engine": "runtime it runs on",
    "template": "chat format it is spoken to in",
    "context": "tokens that prompt and answer may have together",
    "limits": "bounds of a request and its answer, see [Limits](#limits)",
    "capabilities": "`constrained` (schemas are enforced), `logprobs`, `parallel` (how many), `prefix_cache`, `scores`",
    "protocol": "newest protocol the node speaks",
    "min_protocol": "oldest protocol the node speaks",
}
STATE_MEANINGS = {
    "boot": "changes at every start of the agent, and with it every memory of requests",
    "phase": "one of the phases below",
    "why": "the reason for the phase, for a person",
    "running": "requests being answered",
    "queued": "requests waiting",
    "room": "requests that would still be admitted",
    "read_tps": "reading speed in tokens a second, recent average",
    "write_tps": "writing speed in tokens a second, recent average",
    "first_token_s": "seconds from start to first token, recent average",
    "cache_hits": "share of prompt tokens that were in the prefix cache, 0 to 1",
    "memory": "bytes that the engine holds",
    "pool": "`shared`: other nodes may take requests to `any`; `alone`: the broker does not share",
}
TYPES = {"str": "string", "int": "integer", "float": "number", "Mapping[str, Any]": "object"}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def topics() -> str:
    """Every topic, who writes it, how, and what for."""
    t = Topics()
    rows = (
        (t.request("target", "client", "rid"), "client", "1, no", "a request; `target` is `any` or a node"),
        (t.out("client"), "node", "1, no", "every message of every answer to this client, in order"),
        (t.cancel("client", "rid"), "client", "1, no", "stop that request"),
        (t.admin("node", "client", "rid"), "operator", "1, no", ", ".join(f"`{op}`" for op in ADMIN_OPS)),
        (t.presence("node", "status"), "node, will", "1, yes", "`online` or `offline`, plain text"),
        (t.presence("node", "info"), "node", "1, yes", "what the node is; changes only when the node does"),
        (t.presence("node", "state"), "node", "1, yes", "how the node is; on change, at most once a second"),
    )
    braced = re.compile(r"/(target|client|rid|(?<!v1/)node)(?=/|$)")
    head = ("topic", "written by", "QoS, retained", "what")
    return table(head, (("`" + braced.sub(r"/{\1}", topic) + "`", *rest) for topic, *rest in rows))


def codes() -> str:
    """The code table."""
    head = ("code", "HTTP", "type", "retry", "meaning")
    rows = (
        (f"`{c.name}`", str(c.http), f"`{c.type}`", "yes" if c.retryable else "no", c.meaning) for c in CODES.values()
    )
    return table(head, rows)


def edge_options() -> str:
    """The `edge` object of a request."""
    rows = ((f"`{f.name}`", f.metadata["allowed"], _default(f), f.metadata["meaning"]) for f in fields(Edge))
    return table(("option", "allowed", "default", "meaning"), rows)


def _default(option: Field[Any]) -> str:
    if option.default is MISSING:
        return "`{}`"
    return "" if option.default in (None, ()) else f"`{str(option.default).lower()}`"


def _named(head: str, names: Iterable[str], meanings: Mapping[str, str]) -> str:
    names = list(names)
    if set(names) != set(meanings):
        raise KeyError(f"{head}: the wire has {names}, the page {list(meanings)}")
    return table((head, "meaning"), ((f"`{name}`", meanings[name]) for name in names))


def _card(cls: type[Info | State], meanings: Mapping[str, str]) -> str:
    if {each.name for each in fields(cls)} != set(meanings):
        raise KeyError(f"{cls.__name__}: the fields and their meanings differ")
    rows = (
        (f"`{f.name}`", TYPES[str(f.type)], "yes" if f.default is MISSING else "no", meanings[f.name])
        for f in fields(cls)
    )
    return table(("field", "type", "always", "meaning"), rows)


def limits() -> str:
    """What the configuration lets one request be."""
    announced = (o for o in options(Config) if o.path[0] == "limits" and o.path[1] != "drain_s")  # Of no request.
    rows = ((f"`{o.path[1]}`", o.shown, o.meaning) for o in announced)
    return table(("limit", "default", "meaning"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "topics": topics,
    "codes": codes,
    "edge-options": edge_options,
    "kinds": lambda: _named("kind", KINDS, KIND_MEANINGS),
    "phases": lambda: _named("phase", PHASES, PHASE_MEANINGS),
    "info-fields": lambda: _card(Info, INFO_MEANINGS),
    "state-fields": lambda: _card(State, STATE_MEANINGS),
    "limits": limits,
}
