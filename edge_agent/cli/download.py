"""`edge-agent download`: the models of the catalogue."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from edge_agent.config import Config
from edge_agent.models import catalogue
from edge_agent.models import download as storage
from edge_agent.models.catalogue import Entry, HubSource


def download(config: Config, model: str | None) -> None:
    """Fetch `model`, by default the configuration's, and print where it is; raises `ModelError`."""
    folder = Path() if model else config.source.parent if config.source else None
    found = catalogue.resolve(model or config.model, catalogue.load(config.models), folder)
    typer.echo(found if isinstance(found, Path) else fetch(found, config.data_dir))


def show(config: Config, model: str | None) -> None:
    """Print the catalogue, or one entry of it."""
    known = catalogue.load(config.models)
    names = [model] if model else sorted(known)
    width = max(map(len, names), default=0)
    for name in names:
        entry = catalogue.resolve(name, known)
        if isinstance(entry, Path):
            raise typer.BadParameter(f"{name} is a file, not a model of the catalogue", param_hint="MODEL")
        here = "here" if storage.is_present(entry, config.data_dir) else f"{_megabytes(entry)} MB"
        typer.echo(f"{name:{width}}  {here:>9}  {entry.engine:8}  {entry.title} ({entry.licence})")


def _megabytes(entry: Entry) -> str:
    """What is to be fetched, as far as the catalogue knows."""
    source = entry.source
    sizes = [file.size for file in source.files] if isinstance(source, HubSource) else [source.size]
    return "?" if None in sizes else f"{sum(size or 0 for size in sizes) / 1e6:,.0f}"


def fetch(entry: Entry, data_dir: Path) -> Path:
    """Fetch with a bar where a person can see it; raises `ModelError`."""
    if not sys.stderr.isatty() or storage.is_present(entry, data_dir):
        return storage.ensure(entry, data_dir)
    with _bar(entry.title) as progress:
        return storage.ensure(entry, data_dir, progress)


@contextmanager
def _bar(title: str) -> Iterator[storage.Progress]:
    from rich import progress as rich  # noqa: PLC0415 - as above
    from rich.console import Console  # noqa: PLC0415 - slow to load, and only for a person

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn())
    speeds = (rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, *speeds, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total or None)

        yield report
