"""Which models can be fetched by name, from where, and what they must be byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final

import voluptuous as vol
import yaml

from edge_agent.errors import ConfigError, ModelError
from edge_agent.shipped import shipped

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class File:
    """A file of a hub repository, or a pattern of several (`*` also crosses folders). The hub knows what is None."""

    path: str
    size: int | None = None
    sha256: str | None = None
    machine: str | None = None
    """The kind of machine that needs it, as `uname -m` says; None means any."""
    executable: bool = False
    blob: str | None = None
    """Git's checksum, which the hub knows of small files; never in a catalogue."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """Files of a Hugging Face repository at one commit."""

    repo: str
    revision: str
    files: tuple[File, ...]

    @property
    def pin(self) -> str:
        """Changes when the bytes may."""
        return self.revision


@dataclass(frozen=True, slots=True)
class WheelSource:
    """One file inside one version of a package of the configured package index."""

    package: str
    version: str
    member: str
    size: int
    sha256: str

    @property
    def pin(self) -> str:
        """Changes when the bytes may."""
        return self.sha256


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue."""

    name: str
    title: str
    licence: str
    context: int
    """Prompt and answer together, in tokens, as the model was trained or compiled."""
    engine: str
    source: HubSource | WheelSource
    template: str | None = None
    """The chat format, for a model whose files tell none or a wrong one."""


def load(overlay: Mapping[str, Any] = _EMPTY) -> Mapping[str, Entry]:
    """The shipped catalogue under the user's own entries; raises `ConfigError` with entry and field, a fault a line."""
    with shipped("models.yaml").open(encoding="utf-8") as file:
        known = yaml.safe_load(file)
    return MappingProxyType({name: _entry(name, each) for name, each in {**known, **overlay}.items()})


def resolve(model: str, catalogue: Mapping[str, Entry], folder: Path | None = None) -> Entry | Path:
    """What `model` names: an entry, or an existing file or folder, relative ones below `folder` (the working one).

    A name of the catalogue wins over a file of that name: `./name` means the file.
    """
    if model in catalogue:
        return catalogue[model]
    path = Path(folder or "", Path(model).expanduser())
    if path.exists():
        return path.absolute()
    raise ModelError(f"there is no model {model}: not a file, and the catalogue has {', '.join(sorted(catalogue))}")


def _entry(name: str, value: Any) -> Entry:
    try:
        return Entry(name=_NAME(name), **_ENTRY(value))
    except vol.Invalid as error:
        faults = error.errors if isinstance(error, vol.MultipleInvalid) else [error]
        raise ConfigError("\n".join(sorted(_line(name, fault) for fault in faults))) from error


def _line(name: str, fault: vol.Invalid) -> str:
    plain = {"extra keys not allowed": "is unknown", "required key not provided": "is missing"}
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.path)
    return f"models.{name}{where}: {plain.get(fault.error_message, fault.error_message)}"


def _text(what: str, pattern: str) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise vol.Invalid(f"{value!r} is not {what}")
        return value

    return check


def inside(value: Any) -> str:
    """A relative path that stays where it is put; raises `vol.Invalid`."""
    path = PurePosixPath(value) if isinstance(value, str) and value else PurePosixPath("/")
    if path.is_absolute() or ".." in path.parts or "\\" in str(value):
        raise vol.Invalid(f"{value!r} is not a relative path")
    return str(value)


def _bytes(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise vol.Invalid(f"{value!r} is not a number of bytes")
    return value


def _source(value: Any) -> HubSource | WheelSource:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in ("hub", "wheel"):
        raise vol.Invalid("`kind` is hub or wheel" if isinstance(value, dict) else f"{value!r} is not a mapping")
    given = (_HUB if kind == "hub" else _WHEEL)({key: each for key, each in value.items() if key != "kind"})
    return HubSource(**given) if kind == "hub" else WheelSource(**given)


def _files(value: Any) -> tuple[File, ...]:
    if not value:
        raise vol.Invalid("names no file")
    return tuple(File(**each) for each in vol.Schema([_FILE])(value))


_SHA256: Final = _text("a SHA-256 in hexadecimal", r"[0-9a-f]{64}")
_NAME: Final = vol.Schema(_text("a name of a-z 0-9 . _ -", r"[a-z0-9][a-z0-9._-]{0,63}"))
_WORDS: Final = _text("text", r"(?s:.+)")
_FILE: Final = vol.Schema(
    {
        vol.Required("path"): inside,
        "size": _bytes,
        "sha256": _SHA256,
        "machine": _text("a machine as `uname -m` says", r"[a-z0-9_]+"),
        "executable": bool,
    }
)
_HUB: Final = vol.Schema(
    {
        vol.Required("repo"): _text("owner/name", r"[\w.-]+/[\w.-]+"),
        vol.Required("revision"): _text("a full commit of 40 hexadecimal digits", r"[0-9a-f]{40}"),
        vol.Required("files"): _files,
    }
)
_WHEEL: Final = vol.Schema(
    {
        vol.Required("package"): _text("a package's name", r"[A-Za-z0-9][A-Za-z0-9._-]*"),
        vol.Required("version"): _text("a version", r"[A-Za-z0-9][A-Za-z0-9.+!_-]*"),
        vol.Required("member"): inside,
        vol.Required("size"): _bytes,
        vol.Required("sha256"): _SHA256,
    }
)
_ENTRY: Final = vol.Schema(
    {
        vol.Required("title"): _WORDS,
        vol.Required("licence"): _WORDS,
        vol.Required("context"): vol.All(int, vol.Range(min=1)),
        vol.Required("engine"): _WORDS,
        vol.Required("source"): _source,
        "template": _WORDS,
    }
)
