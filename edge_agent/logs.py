"""Logging of a running agent: lines for a person on a terminal, JSON for a machine."""

from __future__ import annotations

import logging
import sys

import structlog

from edge_agent.config import Log


def configure(log: Log) -> None:
    """Send every record of the process to standard error, in the configured form."""
    human = sys.stderr.isatty() if log.format == "auto" else log.format == "human"
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
    ]
    render: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if human:
        render.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        render += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=render))
    logging.basicConfig(level=log.level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
