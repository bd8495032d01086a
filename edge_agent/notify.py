"""What a service manager is told of this process, as sd_notify(3) has it: datagrams to a socket it names.

Ours, not a library's: the one on the index is older than half of what is said here, and no longer than this.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

_LOG = logging.getLogger(__name__)
_FOREVER_US: Final = 365 * 86400 * 10**6
_LOOKS: Final = 3
"""Looks at the engine in a watchdog's interval: one may fail, and one may come late."""


class Notifier:
    """Tells the service manager that the environment names; without one, nobody.

    Before `ready` the manager waits for the start, afterwards its watchdog waits for `well`. Whatever takes longer says
    beforehand how long it may take, by `busy`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watched = environ.get("WATCHDOG_PID") in (None, str(os.getpid())) and bool(self._address)
        self._watchdog_us = int(environ.get("WATCHDOG_USEC", 0)) if watched else 0
        self._ready = False

    def interval_s(self, wanted_s: float) -> float:
        """How often to look at the engine for the watchdog's sake: as wanted, or oftener."""
        return min(wanted_s, self._watchdog_us / 1e6 / _LOOKS) if self._watchdog_us else wanted_s

    def ready(self, status: str) -> None:
        """The model is loaded, for the first time or again."""
        first, self._ready = not self._ready, True
        self._tell(status, *(["READY=1"] if first else self._patience(self._watchdog_us)))

    def well(self) -> None:
        """The engine has just said that it is well."""
        if self._watchdog_us:
            self._tell("", "WATCHDOG=1")

    def busy(self, status: str, bound_s: float | None) -> None:
        """What is under way ends within the bound, or is stuck; without one, it may wait for ever."""
        self._tell(status, *self._patience(None if bound_s is None else int(bound_s * 1e6)))

    def stopping(self, status: str, bound_s: float) -> None:
        self._tell(status, "STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(bound_s * 1e6)}")

    def _patience(self, bound_us: int | None) -> list[str]:
        """The first start is waited for with a time-out; the watchdog, once it runs, has its own, and starts anew."""
        if not self._ready:
            return [f"EXTEND_TIMEOUT_USEC={_FOREVER_US if bound_us is None else bound_us}"]
        return [f"WATCHDOG_USEC={bound_us or 0}"] if self._watchdog_us else []  # 0 is none.

    def _tell(self, status: str, *fields: str) -> None:
        if not self._address:
            return
        lines = [*fields, f"STATUS={' '.join(status.split())}"] if status else fields
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.sendto("\n".join(lines).encode(), address)
        except OSError as error:  # A manager that is gone or full must not stop the node.
            _LOG.debug("the service manager at %s is not told: %s", self._address, error)
