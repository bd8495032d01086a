"""A private mosquitto on loopback, for the demo, the benches and the tests: gone when its block ends."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge_agent.errors import BrokerError
from edge_agent.shipped import shipped

_PLACES: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
_START_S: Final = 10.0


def find() -> str:
    """The mosquitto program; raises `BrokerError` saying how to get it."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=_PLACES)
    if program is None:
        raise BrokerError("mosquitto is not installed: apt install mosquitto")
    return program


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def private_broker(folder: Path, port: int | None = None) -> Iterator[int]:
    """Run a broker with the shipped configuration, open to this machine alone; yields its port once it answers.

    Its configuration and log are written to `folder`.
    """
    port = port or free_port()
    config, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    template = shipped("mosquitto/demo.conf.in").read_text(encoding="utf-8")
    config.write_text(template.replace("@PORT@", str(port)), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the program found above, with the file written above
            [find(), "-c", config], stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BrokerError(f"mosquitto did not start: {log.read_text(encoding='utf-8', errors='replace').strip()}")
