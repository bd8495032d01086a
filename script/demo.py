"""A question over MQTT and a real model's answer, streamed: what `script/demo` runs once everything is installed."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from home import agents
from home.process import Ended
from rich.console import Console

from edge_agent import config, resident
from edge_agent.cli.ask import Answer, body, converse
from edge_agent.cli.caller import Caller
from edge_agent.cli.download import fetch
from edge_agent.client import Client
from edge_agent.errors import OperatorError
from edge_agent.mosquitto import private_broker
from edge_agent.wire import WireError

QUESTION = "Give me three tips for saving energy at home."
NODE = "demo"
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
PASTE = """\
  mosquitto_sub -p {port} -v -t 'edge_agent/v1/#'
  mosquitto_pub -p {port} -t edge_agent/v1/req/any/me/$(date +%s%N) -m 'Name three colours.'
  mosquitto_rr -p {port} -V 5 -t edge_agent/v1/req/any/me/$(date +%s%N) -e edge_agent/v1/out/me -m 'Name three fruits.'
  {edge_agent} ask --broker 127.0.0.1:{port} --stats 'Name three rivers.'
"""

console = Console(highlight=False)


def told(what: str, detail: str) -> None:
    """One step that is done."""
    console.print(f"[green]✓[/] [bold]{what:7}[/] {detail}")


def show(error: Exception, folder: Path) -> None:
    """What went wrong, and the logs of everything that took part."""
    console.print(f"[red]✗[/] {error or type(error).__name__}", soft_wrap=True)
    for log in sorted(folder.glob("*.log")):
        if text := log.read_text(encoding="utf-8", errors="replace").strip():
            console.print(f"\n{log.name}:\n{text[-4000:]}", markup=False, soft_wrap=True)


def prepare(file: Path) -> config.Config:
    """Load the agent's configuration, and see that its model is here."""
    settings = config.load(file, os.environ)
    if found := resident.model(settings):
        title = found.name if isinstance(found, Path) else found.title
        model = found if isinstance(found, Path) else fetch(found, settings.data_dir)
        told("model", f"{title}, {model.stat().st_size / 1e6:.0f} MB")
    return settings


async def demo(arguments: argparse.Namespace, settings: config.Config) -> None:
    """Start the agent, ask, and take it down again; SIGTERM and SIGHUP end it in good order, as Ctrl-C does."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    caller = Caller(settings.broker, NODE, NODE, 120.0)
    began = time.monotonic()
    async with agents.started(settings.source) as agent, caller.connect() as client:
        with console.status("the agent loads the model; the first time it converts it, too"):
            model = await agents.ready(client, NODE, agent)
        told("agent", f"{model} on {resident.engine_name(settings)}, ready after {time.monotonic() - began:.1f} s")
        await ask(client, caller, arguments.ask)
        if arguments.keep:
            told("kept", "everything runs until Ctrl-C; in another terminal:\n")
            program = Path(sys.executable).with_name("edge-agent")
            console.print(PASTE.format(port=settings.broker.port, edge_agent=program), markup=False, soft_wrap=True)
            await agent.ended()
            agent.check()


async def ask(client: Client, caller: Caller, question: str) -> None:
    """One question and its answer, as it comes."""
    console.print(f"\n[bold cyan]>[/] {question}\n")
    request = body(question, max_tokens=200, temperature=0)
    answer = Answer()
    await converse(client, caller, request, answer)
    console.print(f"\n[dim]{answer.figures}[/]\n", soft_wrap=True)


def parsed() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--ask", metavar="QUESTION", default=QUESTION, help=f"instead of “{QUESTION}”")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    return parser.parse_args()


def main() -> int:
    """Run the demo; on a failure show the logs of what failed."""
    arguments = parsed()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    console.print("[bold]Edge Agent[/]: a question over MQTT, answered by a model on this machine\n")
    with tempfile.TemporaryDirectory(prefix="edge-agent-demo-") as name:
        folder = Path(name)
        try:
            with private_broker(folder) as port:
                told("broker", f"mosquitto on 127.0.0.1:{port}")
                file = agents.configured(folder, NODE, {"host": "127.0.0.1", "port": port})
                asyncio.run(demo(arguments, prepare(file)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("\nstopped")
            return 130
        except (Ended, OperatorError, WireError) as error:
            show(error, folder)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
