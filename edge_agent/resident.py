"""Which model and which engine a configuration means: one answer for the node, the doctor and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_agent.config import Config
from edge_agent.engines import registry
from edge_agent.engines.base import Engine
from edge_agent.models import catalogue
from edge_agent.models.catalogue import Entry

_AUTO: Final = "auto"
_FOR_FILES: Final = "openvino"
"""The engine for a model that is not of the catalogue."""


def engine_name(config: Config) -> str:
    """The engine that is configured, or else the one that the model is for."""
    if config.engine.name != _AUTO:
        return config.engine.name
    entry = catalogue.load(config.models).get(config.model)
    return entry.engine if entry else _FOR_FILES


def model(config: Config) -> Entry | Path | None:
    """The entry of the catalogue, or the files; None for an engine that needs none. Raises `ModelError`."""
    if not _needs_model(config):
        return None
    folder = config.source.parent if config.source else None
    return catalogue.resolve(config.model, catalogue.load(config.models), folder)


def name(config: Config) -> str:
    """What clients call the model: its name in the catalogue, or its file's. Never raises."""
    if not _needs_model(config):
        return config.engine.name
    return config.model if config.model in catalogue.load(config.models) else Path(config.model).stem


def engine(config: Config, files: Path | None) -> Engine:
    """The engine that is configured, for the model in these files; raises `ConfigError`."""
    options = dict(config.engine.options)
    if files is not None:
        options = {"cache_dir": str(config.data_dir / "cache"), **options, "model": str(files)}
    return registry.create(engine_name(config), options)


def _needs_model(config: Config) -> bool:
    return config.engine.name == _AUTO or registry.needs_model(config.engine.name)
