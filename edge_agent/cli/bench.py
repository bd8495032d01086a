"""`edge-agent bench`: what the agent adds to its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import typer

from edge_agent import bench as benches
from edge_agent import resident
from edge_agent.cli.download import fetch
from edge_agent.config import Config


def bench(config: Config, names: Sequence[str]) -> None:
    """Run the benches and print their table. Exit code 1 when a target is missed."""
    if unknown := sorted(set(names) - set(benches.BENCHES)):
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(benches.BENCHES)}", param_hint="NAMES")
    found = resident.model(config)
    if found is None:
        raise typer.BadParameter(f"the engine {config.engine.name} has no model to measure", param_hint="--config")
    model = found if isinstance(found, Path) else fetch(found, config.data_dir)
    figures = asyncio.run(_figures(names or list(benches.BENCHES), model, config.data_dir / "cache"))
    typer.echo(f"{benches.machine()}\n\n{benches.table(figures)}")
    raise typer.Exit(0 if all(figure.kept for figure in figures) else 1)


async def _figures(names: Sequence[str], model: Path, cache: Path) -> list[benches.Figure]:
    figures = []
    async for figure in benches.run(names, model, cache):
        typer.echo(f"{figure.what}: {figure.row()[1]}", err=True)
        figures.append(figure)
    return figures
