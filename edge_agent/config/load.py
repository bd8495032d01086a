"""Reading the configuration: the file, the environment over it, secrets out of files of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import voluptuous as vol
import yaml

from edge_agent.config.settings import ENV_PREFIX, Config, Option, default_data_dir, options, schema
from edge_agent.errors import ConfigError

FILE_NAME: Final = "agent.yaml"
MAX_BYTES: Final = 1 << 20
_CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
_TEST_PREFIX: Final = f"{ENV_PREFIX}TEST_"


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of the file at `path`, or of the first one found, under the environment's settings.

    Raises `ConfigError` with every problem on a line of its own.
    """
    source = path or _find(environ)
    reading = _Reading(source, environ)
    if source:
        reading.values = _read(source)
    reading.take_environment()
    reading.take_files()
    reading.values.setdefault("data_dir", str(default_data_dir(environ)))
    try:
        config: Config = schema()(reading.values)
    except vol.MultipleInvalid as error:
        reading.problems += [reading.line(each.path, each.error_message) for each in error.errors]
    except vol.Invalid as error:
        reading.problems.append(reading.line(error.path, error.error_message))
    if reading.problems:
        raise ConfigError("\n".join(reading.problems))
    return replace(config, source=source)


def _find(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get(_CONFIG_VARIABLE):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home(), ".config")
    places = (Path(FILE_NAME), Path(home, "edge-agent", FILE_NAME), Path("/etc/edge-agent", FILE_NAME))
    return next((place for place in places if place.is_file()), None)


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a quiet loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def _read(source: Path) -> dict[str, Any]:
    try:
        with source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{source}: is larger than {MAX_BYTES} bytes, too large for a configuration")
        values = _parse(data.decode())
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: is not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else str(source)
        raise ConfigError(f"{where}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: is not YAML: {str(error).splitlines()[0]}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: is not a mapping of settings")
    return values


@dataclass
class _Reading:
    """What has been read so far, where from, and what is wrong with it."""

    source: Path | None
    environ: Mapping[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def line(self, path: list[Any] | tuple[str, ...], problem: str) -> str:
        """One problem: where it stands, which setting, what is allowed."""
        words = tuple(str(word) if str(word).isprintable() else repr(word) for word in path)
        under = (name for at, name in self.origins.items() if at[: len(words)] == words or words[: len(at)] == at)
        origin = next(under, None) or str(self.source or "configuration")
        return ": ".join(part for part in (origin, ".".join(words), problem) if part)

    def take_environment(self) -> None:
        """Lay the environment's variables over the file."""
        literal = {option.path for option in options() if option.rule.literal}
        for name, raw in sorted(self.environ.items()):
            if not name.startswith(ENV_PREFIX) or name == _CONFIG_VARIABLE or name.startswith(_TEST_PREFIX):
                continue
            path = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            is_text = path in literal or path[-1].endswith("_file")
            try:
                value = (raw or None) if is_text else _parse(raw)
            except (yaml.YAMLError, RecursionError, ValueError):
                self.problems.append(f"{name}: is not YAML")
                continue
            if self._put(path, value):
                self.origins[path] = name

    def take_files(self) -> None:
        """Read secrets from the files that hold them, and find files named by relative paths."""
        for option in options():
            section = self._section(option.path[:-1])
            name = option.path[-1]
            if option.rule.secret and section.get(f"{name}_file") is not None:
                self._take_secret(option, section)
            elif option.rule.path and isinstance(section.get(name), str) and section[name]:
                section[name] = str(self._locate(section[name], credential=option.rule.readable))

    def _take_secret(self, option: Option, section: dict[str, Any]) -> None:
        name = option.path[-1]
        at = (*option.path[:-1], f"{name}_file")
        file = section.pop(f"{name}_file")
        if section.get(name) is not None:
            self.problems.append(self.line(at, f"is given beside {name}: keep one of them"))
        elif not isinstance(file, str):
            self.problems.append(self.line(at, "is not the path of a file"))
        else:
            try:
                content = self._locate(file, credential=True).read_text(encoding="utf-8")
                section[name] = content.removesuffix("\n").removesuffix("\r")
            except OSError as error:
                self.problems.append(self.line(at, f"{file} cannot be read: {error.strerror}"))
            except UnicodeDecodeError:
                self.problems.append(self.line(at, f"{file} is not UTF-8"))

    def _locate(self, name: str, *, credential: bool) -> Path:
        """A relative path starts at systemd's credentials, if one of that name is there, or beside the file."""
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises where there is no home
        held = Path(self.environ.get("CREDENTIALS_DIRECTORY", ""), path)
        if credential and self.environ.get("CREDENTIALS_DIRECTORY") and held.is_file():
            return held
        return Path(self.source.parent if self.source else "", path).absolute()

    def _section(self, path: tuple[str, ...]) -> dict[str, Any]:
        section: Any = self.values
        for name in path:
            section = section.get(name) if isinstance(section, dict) else None
        return section if isinstance(section, dict) else {}

    def _put(self, path: tuple[str, ...], value: Any) -> bool:
        """Set one value, unless the file has something else than a section above it: that will be refused itself."""
        section = self.values
        for name in path[:-1]:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                return False
        section[path[-1]] = value
        return True
