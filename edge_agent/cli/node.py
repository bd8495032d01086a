"""`edge-agent run` and `edge-agent check`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import typer
import yaml

from edge_agent import logs
from edge_agent.app import App, public
from edge_agent.cli.download import fetch
from edge_agent.config import Config
from edge_agent.engines import registry
from edge_agent.models import catalogue

_LOG = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Serve until told to stop; raises `OperatorError` for what only a person can mend."""
    logs.configure(config.log)
    for warning in config.warnings:
        _LOG.warning("%s", warning)
    app = App(config)
    if sys.stderr.isatty() and (model := _model(config)):
        fetch(model, config.data_dir)  # In sight of a person; otherwise the node fetches it when it is on the broker.
    asyncio.run(app.run())


def check(config: Config) -> None:
    """Build what `run` would run, without starting it; raises `OperatorError` for what is wrong."""
    App(config)
    if not registry.needs_model(config.engine.name):
        registry.create(config.engine.name, config.engine.options)  # Checks its options.
    _model(config)
    typer.echo(f"# {config.source or 'no file: defaults and environment'}")
    shown = {name: value for name, value in public(config).items() if name != "source"}
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False)
    for warning in config.warnings:
        typer.echo(f"edge-agent: warning: {warning}", err=True)


def _model(config: Config) -> catalogue.Entry | None:
    """The entry of the catalogue that is to be fetched, if it is one; raises `ModelError` for an unknown model."""
    if not registry.needs_model(config.engine.name):
        return None
    folder = config.source.parent if config.source else None
    found = catalogue.resolve(config.model, catalogue.load(config.models), folder)
    return None if isinstance(found, Path) else found
