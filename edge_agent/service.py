"""This agent as a service of systemd: put in place, looked at and taken away. What is to change is planned first."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from edge_agent import resident
from edge_agent.config import Config, load, options
from edge_agent.errors import OperatorError
from edge_agent.shipped import shipped

UNIT: Final = "edge-agent.service"
_MARK: Final = "# Written by `edge-agent service install`; keep changes of your own by `systemctl edit edge-agent`.\n"
_CREDENTIAL: Final = "# LoadCredential="
_HIDDEN: Final = ("/home", "/root", "/run/user")
"""What `ProtectHome=` keeps from a system-wide service."""
_FACTS: Final = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "StatusText",
    "MainPID",
    "NRestarts",
)

Systemctl = Callable[[Sequence[str]], tuple[int, str]]
"""Runs systemctl with these arguments: its exit code, and what it said."""


@dataclass(frozen=True, slots=True)
class Write:
    """A file to be written."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class Remove:
    """A file to be removed, and its folder if nothing else is in there."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class Order:
    """An order to the service manager."""

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"run systemctl {' '.join(self.arguments)}"


Step = Write | Remove | Order


def systemctl(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the real one; raises `OperatorError` where there is none."""
    try:
        done = subprocess.run(  # noqa: S603 - arguments of ours, no shell
            ["systemctl", *arguments],  # noqa: S607 - found by PATH, as a person would run it
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    except FileNotFoundError as error:
        raise OperatorError(
            "there is no systemd here: let what starts services on this machine run `edge-agent run`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"systemctl {' '.join(arguments)} does not come back") from error
    return done.returncode, (done.stdout or done.stderr).strip()


class Service:
    """The unit in one place: of the machine, of one person (`user`), or below another `root`, as for an image.

    Methods raise `OperatorError` with what a person can do.
    """

    def __init__(
        self,
        *,
        user: bool = False,
        root: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        ctl: Systemctl = systemctl,
        run: Path = Path("/run"),
        uid: int | None = None,
    ) -> None:
        if user and root:
            raise OperatorError("--root is for the machine's service, not for a person's")
        self._user, self._root, self._environ, self._ctl = user, root, environ, ctl
        self._run, self._uid = run, os.geteuid() if uid is None else uid
        home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home(), ".config"))
        self._folder = home / "systemd/user" if user else Path(root or "/", "etc/systemd/system")
        self._settings = home / "edge-agent/agent.yaml" if user else Path(root or "/", "etc/edge-agent/agent.yaml")

    @property
    def unit(self) -> Path:
        return self._folder / UNIT

    def check(self, *, orders: bool) -> None:
        """See that there is a service manager, and that we may give it `orders`."""
        if self._root:
            return
        base = Path(self._environ.get("XDG_RUNTIME_DIR", "/nowhere")) if self._user else self._run
        if not (base / ("systemd" if self._user else "systemd/system")).is_dir():
            hint = "log in as that person, or: loginctl enable-linger" if self._user else "run `edge-agent run` instead"
            raise OperatorError(f"systemd does not run {'for this person' if self._user else 'this machine'}: {hint}")
        if orders and not self._user and self._uid:
            raise OperatorError(f"only root may do that: sudo {program()[0]} service …, or for yourself: --user")

    def install(self, chosen: Path | None, command: Sequence[str] = ()) -> list[Step]:
        """What is to be done, nothing if all is in place. `chosen` is the configuration, by default the usual one.

        Raises `ConfigError` for one that would not run.
        """
        words = [*(command or program())]
        words += ["--config", self._inside(chosen)] if chosen else []
        if hidden := [word for word in words if word.startswith(_HIDDEN) and not (self._user or self._root)]:
            raise OperatorError(
                f"{hidden[0]} is in somebody's home, which the service may not see: "
                "install into /opt/edge-agent (docs/operations.md), or for yourself: --user"
            )
        file = chosen or (self._settings if self._settings.is_file() else None)
        config = load(file, {"HOME": "/nowhere"}) if file else Config()
        wanted = {self.unit: self._text([*words, "run"], file)}
        for name in _drop_ins(config) if not self._user else ():
            wanted[self._drop_in(name)] = f"{_MARK}{shipped(f'systemd/{name}.conf').read_text(encoding='utf-8')}"
        changes: list[Step] = [Write(path, text) for path, text in wanted.items() if self._ours(path) != text]
        changes += [Remove(path) for path in self._written() if path not in wanted]
        return [*changes, *self._running(changed=bool(changes))]

    def uninstall(self) -> list[Step]:
        """What is to be done: exactly what `install` made goes."""
        written = list(self._written())
        if not written:
            return []
        disable = self._order("disable", *([] if self._root else ["--now"]), UNIT)
        return [disable, *map(Remove, written), *([] if self._root else [self._order("daemon-reload")])]

    def perform(self, step: Step) -> None:
        try:
            match step:
                case Write(path, text):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    new = path.with_name(f".{path.name}.new")
                    new.write_text(text, encoding="utf-8")
                    new.chmod(0o644)
                    new.replace(path)
                case Remove(path):
                    path.unlink()
                    if path.parent != self._folder and not any(path.parent.iterdir()):
                        path.parent.rmdir()
                case Order(arguments):
                    code, said = self._ctl(arguments)
                    if code:
                        raise OperatorError(f"{step}: {said or f'exit code {code}'}")
        except OSError as error:
            raise OperatorError(f"{step}: {error.strerror}") from error

    def facts(self) -> dict[str, str]:
        """What systemd knows of the unit; empty where it is not installed, only its files below another root."""
        if not self.unit.exists():
            return {}
        if self._root:
            return {"UnitFileState": self._ctl(self._order("is-enabled", UNIT).arguments)[1]}
        _, said = self._ctl(self._order("show", UNIT, f"--property={','.join(_FACTS)}").arguments)
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def settings(self) -> Path | None:
        """The configuration that the installed service reads, if it is one of a file."""
        text = self.unit.read_text(encoding="utf-8", errors="replace") if self.unit.exists() else ""
        for line in text.splitlines():
            command = shlex.split(line.removeprefix("ExecStart=")) if line.startswith("ExecStart=") else []
            if "--config" in command:
                return Path(command[command.index("--config") + 1].replace("%%", "%").replace("$$", "$"))
        return self._settings if self._settings.is_file() else None

    def _text(self, words: Sequence[str], file: Path | None) -> str:
        name = "edge-agent.user.service" if self._user else UNIT
        lines = shipped(f"systemd/{name}").read_text(encoding="utf-8").splitlines()
        secrets = _secrets(file) if file and not self._user else ()
        found = [f"LoadCredential={each.name}:{self._inside(each)}" for each in secrets]
        text = []
        for line in lines:
            if line.startswith("ExecStart="):
                text.append(f"ExecStart={' '.join(map(_quoted, words))}")
            elif line.startswith(_CREDENTIAL):
                text += found or [line]
            else:
                text.append(line)
        return _MARK + "\n".join(text) + "\n"

    def _running(self, *, changed: bool) -> Iterator[Order]:
        if changed and not self._root:
            yield self._order("daemon-reload")
        if self._ctl(self._order("is-enabled", UNIT).arguments)[0]:
            yield self._order("enable", UNIT)
        if self._root:
            return
        _, state = self._ctl(self._order("show", UNIT, "--property=ActiveState", "--value").arguments)
        if changed or state not in ("active", "activating", "reloading"):
            yield self._order("restart", "--no-block", UNIT)  # The model may take its time; a person need not wait.

    def _inside(self, path: Path) -> str:
        """The path as the service will see it."""
        path = path.absolute()
        if self._root and path.is_relative_to(self._root.absolute()):
            path = Path("/", path.relative_to(self._root.absolute()))
        return str(path)

    def _order(self, *arguments: str) -> Order:
        whose = ("--user",) if self._user else (f"--root={self._root.absolute()}",) if self._root else ()
        return Order((*whose, *arguments))

    def _drop_in(self, name: str) -> Path:
        return self._folder / f"{UNIT}.d" / f"{name}.conf"

    def _written(self) -> Iterator[Path]:
        """The files that `install` wrote."""
        if self._ours(self.unit):
            yield self.unit
        for path in sorted((self._folder / f"{UNIT}.d").glob("*.conf")):
            if path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
                yield path

    def _ours(self, path: Path) -> str:
        """The text of a file that is ours, or empty for none; another's is left alone."""
        if not path.exists():
            return ""
        text = path.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(_MARK):
            raise OperatorError(f"{path} is not of our making: move it away first")
        return text


def program() -> list[str]:
    """How this installation is started."""
    script = Path(sys.executable).with_name("edge-agent")
    if os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-m", "edge_agent"]


def _drop_ins(config: Config) -> Iterator[str]:
    """What lets the configured engine's device through."""
    engine = resident.engine_name(config)
    if engine == "axera":
        yield "axera"
    if engine == "openvino" and "GPU" in str(config.engine.options.get("device", "")).upper():
        yield "gpu"


def _secrets(file: Path) -> Iterator[Path]:
    """The files that the settings name by a bare name and that stand beside them, where the service may not read."""
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for option in options():
        *path, name = option.path
        section = values
        for part in path:
            section = section.get(part) or {}
        given = section.get(f"{name}_file" if option.rule.secret else name)
        if isinstance(given, str) and "/" not in given and (option.rule.secret or option.rule.readable):
            yield file.parent / given


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads it."""
    word = word.replace("%", "%%").replace("$", "$$")
    if not any(each in word for each in " \t'\"\\;"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
