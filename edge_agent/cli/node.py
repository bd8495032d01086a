"""`edge-agent run` and `edge-agent check`."""

from __future__ import annotations

import asyncio
import logging
import sys

import typer
import yaml

from edge_agent import logs, resident
from edge_agent.app import App, public
from edge_agent.cli.download import fetch
from edge_agent.config import Config
from edge_agent.models.catalogue import Entry

_LOG = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Serve until told to stop; raises `OperatorError` for what only a person can mend."""
    logs.configure(config.log)
    for warning in config.warnings:
        _LOG.warning("%s", warning)
    app = App(config)
    model = resident.model(config)
    if sys.stderr.isatty() and isinstance(model, Entry):
        fetch(model, config.data_dir)  # In sight of a person; otherwise the node fetches it when it is on the broker.
    asyncio.run(app.run())


def check(config: Config) -> None:
    """Build what `run` would run, without starting it; raises `OperatorError` for what is wrong."""
    App(config)
    if resident.model(config) is None:
        resident.engine(config, None)  # Checks its options; one that needs a model does so when it has it.
    typer.echo(f"# {config.source or 'no file: defaults and environment'}")
    shown = {name: value for name, value in public(config).items() if name != "source"}
    shown["engine"]["name"] = resident.engine_name(config)
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False)
    for warning in config.warnings:
        typer.echo(f"edge-agent: warning: {warning}", err=True)
