"""What Home Assistant and the component add to a node, measured on this machine in one run: `script/bench ha`.

A real Home Assistant with the demonstration home, a broker and agents, each a process of its own. Every figure is a
difference or a ratio within the run. `BENCHES` is the list.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

from home import agents, furnish, homeassistant
from home.broker import HOME, PERSON, Broker, broker
from home.frontend import JSON, Home, Refused
from home.process import Ended

from edge_agent import config, resident
from edge_agent.bench import Figure, machine, table
from edge_agent.broker import Dialer
from edge_agent.cli.download import fetch
from edge_agent.client import Client
from edge_agent.connection import connect
from edge_agent.errors import OperatorError
from edge_agent.wire import Topics

WATCH: Final = Path(__file__).parent / "home/watch"
THOROUGH: Final = 4
EXPOSED: Final = 50
CROWD: Final = 5
PAUSE_S: Final = 0.1
"""Nobody speaks again sooner; and by then the other side of a connection has acknowledged what it was sent last."""
HELLO: Final = "Hello, who are you?"
STORY: Final = "Once upon a time there was a lamp that was lit every evening and it never complained. " * 15
ROOMS: Final = ("Attic", "Cellar", "Garage", "Garden", "Pantry", "Porch", "Sauna", "Shed", "Study", "Workshop")
THINGS: Final = (
    ("input_boolean", "Lamp"),
    ("input_boolean", "Fan"),
    ("input_button", "Bell"),
    ("input_boolean", "Socket"),
)
ECHO: Final[Mapping[str, Any]] = {"context": 16384, "block": 16384, "parallel": 8, "prefix_cache": False}
"""Nothing to compute, and nothing remembered: the second who asks has no advantage."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A furnished home on a broker. `thorough` is how many times the fewest runs are made."""

    folder: Path
    mqtt: Broker
    home: Home
    thorough: int
    details: Path | None
    """Where to write all that was seen of the event loop."""

    def login(self, user: str) -> config.Broker:
        return config.Broker(**self.mqtt.login(user))

    def configured(self, node: str, **sections: Any) -> Path:
        return agents.configured(self.folder, node, self.mqtt.login(), log={"level": "warning"}, **sections)

    async def set_up(self, node: str, **advanced: Any) -> tuple[str, str]:
        """Have Home Assistant set up a node that runs, without prefill; its agent and a pipeline of it."""
        home = self.home
        entry = await furnish.set_up(home, node)
        [agent] = await furnish.entities(home, entry, "conversation")
        [subentry] = [
            each["subentry_id"]
            for each in await home.call("config_entries/subentries/list", entry_id=entry["entry_id"])
            if each["subentry_type"] == "conversation"
        ]
        form = await home.subentry_flow(entry, "conversation", subentry=subentry)
        answer = _suggested(form["data_schema"])
        answer["advanced"] |= {"prefill": False, **advanced}
        await home.answer(form["flow_id"], answer, "subentries/flow")
        await home.entry("edge_agent", entry_id=entry["entry_id"])
        await home.until(agent, _there)
        return agent, await furnish.assistant(home, agent)


def _suggested(fields: Sequence[JSON]) -> JSON:
    """The answer to a form that changes nothing."""
    answer: JSON = {}
    for field in fields:
        if field.get("type") == "expandable":
            answer[field["name"]] = _suggested(field["schema"])
        elif (value := (field.get("description") or {}).get("suggested_value", field.get("default"))) is not None:
            answer[field["name"]] = value
    return answer


def _there(state: JSON) -> bool:
    return bool(state["state"] != "unavailable")


async def latency(stand: Stand) -> AsyncIterator[Figure]:
    """Ask Assist, then send the very same request by a bare client, in turns; the engine computes nothing."""
    rules = [{"match": "story", "text": STORY[:80]}]
    file = stand.configured("swift", engine={"name": "echo", "options": {**ECHO, "rules": rules}})
    async with agents.serving(file), connect(stand.login(PERSON), PERSON) as bare:
        _, pipeline = await stand.set_up("swift")
        kinds = ("a new conversation", "a conversation that goes on")
        bodies = await _captured(stand, lambda: _two_turns(stand.home, pipeline))
        times: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in kinds}
        for turn in range(10 * stand.thorough + 3):
            ours = await _two_turns(stand.home, pipeline)
            theirs = [await _first_chunk(bare, "swift", body) for body in bodies]
            if turn >= 3:  # The first rounds warm everything.
                for kind, assist, direct in zip(kinds, ours, theirs, strict=True):
                    times[kind][0].append(assist * 1000)
                    times[kind][1].append(direct * 1000)
    for kind, (ours, theirs) in times.items():
        note = "; ".join(f"{who} {_spread(each)}" for who, each in (("Assist", ours), ("bare", theirs)))
        added = statistics.median(ours) - statistics.median(theirs)
        yield Figure(f"first text in Assist, added to a bare MQTT client's: {kind}", added, 15, "ms", note=note)


def _spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.1f} ms, p95 {statistics.quantiles(times, n=20)[18]:.1f} ms"


async def prefix(stand: Stand) -> AsyncIterator[Figure]:
    """Ask a model that has read nothing yet, ask again, and ask one that has read the prefix."""
    file, home = stand.configured("real"), stand.home
    settings = config.load(file, os.environ)
    if (found := resident.model(settings)) and not isinstance(found, Path):
        await asyncio.to_thread(fetch, found, settings.data_dir)
    async with agents.serving(file), connect(stand.login(PERSON), PERSON) as bare:
        agent, pipeline = await stand.set_up("real", temperature=0, max_tokens=16)
        [body] = await _captured(stand, lambda: _said(home, pipeline, HELLO))
        tokens = (await bare.complete(body, target="real")).body["usage"]["prompt_tokens"]
    cold, second, prepared = [], [], []
    for _ in range(stand.thorough):
        async with _fresh(home, file, agent):
            took, conversation = await _said(home, pipeline, HELLO)
            cold.append(took)
            second.append((await _said(home, pipeline, "Thank you. And what is your name?", conversation))[0])
        async with _fresh(home, file, agent):
            await home.service("edge_agent.prepare", target={"entity_id": agent})
            prepared.append((await _said(home, pipeline, HELLO))[0])
    base = statistics.median(cold)
    for what, times, target in (("second turn", second, 0.15), ("first turn after prepare", prepared, 0.2)):
        share = statistics.median(times) / base
        note = f"{tokens} tokens, {EXPOSED} entities: {base:.2f} s, then {statistics.median(times):.3f} s"
        yield Figure(f"first text of the {what}, share of a cold first turn's", share, target, note=note)


@asynccontextmanager
async def _fresh(home: Home, file: Path, agent: str) -> AsyncIterator[None]:
    """A node that has just started."""
    await home.until(agent, lambda state: not _there(state))
    async with agents.serving(file):
        await home.until(agent, _there)
        yield


async def loop(stand: Stand) -> AsyncIterator[Figure]:
    """Let five conversations stream at once, and time every callback of Home Assistant's event loop."""
    rules = [{"match": "story", "text": STORY}]
    file = stand.configured("steady", engine={"name": "echo", "options": {**ECHO, "rules": rules, "write_tps": 50}})
    home = stand.home
    await home.flow("watch")
    await home.entry("watch")
    async with agents.serving(file):
        _, pipeline = await stand.set_up("steady")
        for turn in range(stand.thorough + 1):
            if turn < 2:
                await home.service("watch.start")  # Anew after the first round, which warms everything.
            await asyncio.gather(*(_said(home, pipeline, "Tell me a story") for _ in range(CROWD)))
        seen = await home.service("watch.stop", returns=True)
    if stand.details:
        stand.details.write_text(json.dumps(seen, indent=1), encoding="utf-8")
    longest = seen["longest"]
    clock = f"{longest['clock'][0]['clock']:.1f} ms by the clock, other threads and processes included"
    for whose, key in (("by the component", "own"), ("and by what it waits for there", "all")):
        worst = longest[key][0]
        parts = ", ".join(f"{name} {spent:.1f}" for name, spent in islice(worst["parts"].items(), 2))
        what = f"longest work of one callback in Home Assistant's event loop, {CROWD} conversations streaming: {whose}"
        note = f"of {seen['callbacks']:,}: {parts}; garbage collection {worst['gc']:.1f}; {clock}"
        yield Figure(what, worst[key], 10, "ms", note=note)


BENCHES: Final[Mapping[str, Callable[[Stand], AsyncIterator[Figure]]]] = {
    "latency": latency,
    "prefix": prefix,
    "loop": loop,
}


async def _said(home: Home, pipeline: str, text: str, conversation: str | None = None) -> tuple[float, str]:
    """(seconds until the first text of the answer, the conversation) of one turn, which is heard to its end."""
    request: JSON = {"start_stage": "intent", "end_stage": "intent", "input": {"text": text}, "pipeline": pipeline}
    request |= {"conversation_id": conversation} if conversation else {}
    heard: list[str] = []
    await asyncio.sleep(PAUSE_S)
    began, first = time.monotonic(), 0.0
    async with home.subscription("assist_pipeline/run", **request) as events, asyncio.timeout(120):
        while not heard or heard[-1] != "run-end":
            event = await events.get()
            heard.append(event["type"])
            data = event.get("data") or {}
            delta = data.get("chat_log_delta") or {}
            if not first and delta.get("content") and delta.get("role") != "tool_result":
                first = time.monotonic()
            conversation = data.get("conversation_id", conversation)
    if not first or not conversation:
        raise Refused("no_text", f"{text!r} was answered by {heard}")
    return first - began, conversation


async def _two_turns(home: Home, pipeline: str) -> tuple[float, float]:
    """Seconds until the first text, of a new conversation and of the turn after that."""
    new, conversation = await _said(home, pipeline, "Tell me a story")
    more, _ = await _said(home, pipeline, "Tell me another story", conversation)
    return new, more


async def _first_chunk(client: Client, node: str, body: Mapping[str, Any]) -> float:
    """Seconds until the first text of an answer over bare MQTT."""
    await asyncio.sleep(PAUSE_S)
    began, first = time.monotonic(), 0.0
    async with aclosing(client.ask(body, target=node)) as replies:
        async for reply in replies:
            if not first and reply.kind == "chunk" and reply.body["choices"][0]["delta"].get("content"):
                first = time.monotonic()
    return first - began


async def _captured(stand: Stand, act: Callable[[], Any]) -> list[JSON]:
    """The requests that Home Assistant sends while something is done, twice: they must be the same both times."""
    sent: list[bytes] = []
    topics = Topics(config.Broker().root)
    async with Dialer(stand.login(HOME), "bench-capture").connect() as link:
        await link.subscribe(topics.request("+", "+", "+"), replay=False)

        async def listen() -> None:
            async for message in link.messages():
                sent.append(message.payload)  # noqa: PERF401 - it is read while it grows

        listening = asyncio.create_task(listen())
        await act()
        once = len(sent)
        await act()
        listening.cancel()
        await asyncio.wait([listening])
    if not once or sent[:once] != sent[once:]:
        raise Refused("not_stable", f"the same turns sent {once}, then {len(sent) - once} requests that differ")
    return [json.loads(payload) for payload in sent[:once]]


async def _grow(home: Home) -> None:
    """Have more things in the home, so that as many are exposed as a home of some size has."""
    missing = EXPOSED - len(furnish.exposed())
    made = []
    for room, (kind, thing) in islice(product(ROOMS, THINGS), missing):
        helper = await home.call(f"{kind}/create", name=f"{room} {thing}")
        made.append(f"{kind}.{helper['id']}")
    await home.call("homeassistant/expose_entity", assistants=[furnish.ASSISTANT], entity_ids=made, should_expose=True)


@asynccontextmanager
async def standing(folder: Path, thorough: int, details: Path | None) -> AsyncIterator[Stand]:
    """Start the home; the integration that watches its event loop lies beside the component there."""
    components = folder / "custom_components"
    components.mkdir()
    for each in (homeassistant.COMPONENTS / "edge_agent", WATCH):
        (components / each.name).symlink_to(each)
    homeassistant.COMPONENTS = components
    async with broker(folder) as mqtt, homeassistant.home_assistant(folder / "homeassistant") as whole:
        home = whole.home
        await home.service("logger.set_level", {"custom_components.edge_agent": "warning"})
        await furnish.furnish(home)
        await _grow(home)
        await furnish.connect_mqtt(home, mqtt.login(HOME))
        yield Stand(folder, mqtt, home, thorough, details)


async def run(names: Sequence[str], stands: AbstractAsyncContextManager[Stand]) -> tuple[str, list[Figure]]:
    """Run the named benches; where it was, and their figures."""
    task, events = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        events.add_signal_handler(number, task.cancel)
    figures = []
    async with stands as stand:
        version = (await stand.home.call("get_config"))["version"]
        for name in names:
            async for figure in BENCHES[name](stand):
                print(f"{figure.what}: {figure.row()[1]}", file=sys.stderr)
                figures.append(figure)
    return f"{machine()}, Home Assistant {version}", figures


def parsed() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="script/bench ha", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which benches, of {', '.join(BENCHES)} (all)")
    parser.add_argument("--quick", action="store_true", help="few runs: to see that it works")
    parser.add_argument("--details", metavar="FILE", type=Path, help="write what held the event loop there")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(BENCHES)):
        parser.error(f"{unknown[0]!r} is not one of {', '.join(BENCHES)}")
    return arguments


def main() -> int:
    """Print the table. Exit code 1 when a target is missed."""
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as name:
        folder = Path(name)
        stands = standing(folder, 1 if arguments.quick else THOROUGH, arguments.details)
        try:
            where, figures = asyncio.run(run(arguments.names or [*BENCHES], stands))
        except (Ended, OperatorError, Refused, TimeoutError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            for log in sorted(folder.glob("*.log")):
                print(f"\n{log.name}:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}", file=sys.stderr)
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    print(f"{where}\n\n{table(figures)}")
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
