"""The demonstration home with Edge Agent set up in it, kept running for a person: what `script/develop` starts."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from demo import console, prepare, show, told
from home import agents, furnish
from home.broker import HOME, PERSON, Broker, broker
from home.frontend import Home, Refused
from home.homeassistant import PASSWORD, USER, home_assistant
from home.process import Ended

from edge_agent import resident
from edge_agent.errors import OperatorError
from edge_agent.mosquitto import free_port

NODE = "demo"
PORT = 8123
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HINTS = """
  [bold]{url}[/]   user [bold]{user}[/], password [bold]{password}[/]

  Assist       the icon at the top right; say “turn on the desk lamp”, or ask something
  the node     {url}/config/integrations/integration/edge_agent
  the broker   mosquitto_sub -p {port} -u {person} -P {person} -v -t 'edge_agent/v1/#'
  the logs     {folder}

Everything runs until Ctrl-C.
"""


def open_port(wanted: int) -> int:
    """The port that was wanted if nobody listens on it, else any."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", wanted)):
        return wanted
    return free_port()


async def set_up(home: Home, mqtt: Broker) -> None:
    """Do what a user does: connect the broker, accept the node that was found, and make it the assistant."""
    await furnish.furnish(home)
    await furnish.connect_mqtt(home, mqtt.login(HOME))
    entry = await furnish.set_up(home, NODE)
    [agent] = await furnish.entities(home, entry, "conversation")
    await furnish.assistant(home, agent, local=True)
    told("set up", f"the node was discovered; {agent} is the preferred assistant")


async def develop(folder: Path, port: int) -> None:
    """Run everything until a signal, or until something of it ends."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as running:
        mqtt = await running.enter_async_context(broker(folder))
        told("broker", f"mosquitto on 127.0.0.1:{mqtt.port}")
        settings = prepare(agents.configured(folder, NODE, mqtt.login()))
        with console.status("the agent loads the model; the first time it converts it, too"):
            agent = await running.enter_async_context(agents.serving(settings.source))
        told(
            "agent",
            f"{settings.model} on {resident.engine_name(settings)}, ready after {time.monotonic() - began:.1f} s",
        )
        with console.status("Home Assistant starts"):
            whole = await running.enter_async_context(home_assistant(folder / "homeassistant", port))
            told("home", f"Home Assistant, started after {time.monotonic() - began:.1f} s")
            await set_up(whole.home, mqtt)
        names = {"url": whole.home.url, "user": USER, "password": PASSWORD}
        hints = HINTS.format(**names, port=mqtt.port, person=PERSON, folder=folder)
        console.print(hints, soft_wrap=True)
        ends = [asyncio.ensure_future(each.ended()) for each in (agent, whole.process)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        agent.check()
        whole.process.check()


def main() -> int:
    """Keep the home running; on a failure show the logs of what failed."""
    parser = argparse.ArgumentParser(prog="script/develop", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"of Home Assistant ({PORT}, if it is free)")
    arguments = parser.parse_args()
    console.print("[bold]Edge Agent[/]: a whole home on this machine, to look at\n")
    with tempfile.TemporaryDirectory(prefix="edge-agent-develop-") as name:
        folder = Path(name)
        try:
            asyncio.run(develop(folder, open_port(arguments.port)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("\nstopped")
            return 130
        except (Ended, OperatorError, Refused, TimeoutError) as error:
            show(error, folder)
    return 1


if __name__ == "__main__":
    sys.exit(main())
