"""The scripted engine in a child process, as native engines are: something to kill."""

from collections.abc import Mapping
from typing import Any

from edge_agent.engines.process import ProcessEngine


class CagedEcho(ProcessEngine):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__("echo", options)
