"""Files of a Hugging Face repository at one commit; an interrupted download goes on where it stopped."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import voluptuous as vol

from edge_agent.errors import ModelError, ModelUnreachable
from edge_agent.models.catalogue import File, HubSource, inside
from edge_agent.models.disk import require_space

T = TypeVar("T")
Report = Callable[[int], None]
"""Called with the bytes of one file that are here; raising stops the download."""

_LOG = logging.getLogger(__name__)
_SLACK: Final = 16 << 20
_TIMEOUT_S: Final = 30.0
_TRIES: Final = 6
"""In a row, without a byte coming."""
PAUSE_S: Final = 1.0
"""Before the second try; twice as long before each further one, or what the hub asks for."""
_LONGEST_PAUSE_S: Final = 120.0
_POLL_S: Final = 0.2
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_SUCH_RANGE: Final = 416
_PARTIAL: Final = 206


def wanted(source: HubSource) -> list[File]:
    """The files that this kind of machine needs."""
    return [file for file in source.files if file.machine in (None, platform.machine())]


def fetch(source: HubSource, folder: Path, report: Callable[[int, int], None]) -> list[File]:
    """Put the files into `folder`; returns what each must be, as far as catalogue and hub tell. Raises `ModelError`."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # noqa: PLC0415 - httpx's, by version

    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = _patiently(lambda: _listing(source), lambda: report(0, 0))
        total = sum(file.size or 0 for file in files)
        require_space(folder, total - _stored(folder) + _SLACK)
        done = 0
        for file in files:
            _get(source, file, folder, partial(_tell, report, done, total))
            done += file.size or 0
            report(done, total)
    except (HTTPError, ConnectionError) as error:
        raise _explained(source, error) from error
    return files


def _tell(report: Callable[[int, int], None], before: int, total: int, here: int) -> None:
    report(min(before + here, total), total)


def _explained(source: HubSource, error: Exception) -> ModelError:
    said = _said(error)
    if _status(error) in (401, 403, 404):
        return ModelError(
            f"{source.repo} at {source.revision[:12]} cannot be had: {said}: correct repo and revision in "
            "the catalogue, or set HF_TOKEN for a model that asks for consent"
        )
    return ModelUnreachable(
        f"{source.repo} cannot be fetched now: {said}: check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, "
        "then try again: what has come is kept"
    )


def _get(source: HubSource, file: File, folder: Path, report: Report) -> None:
    """Fetch one file, from where an earlier try stopped."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to load, and seldom needed

    target = folder / file.path
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    url = hf_hub_url(source.repo, file.path, revision=source.revision)
    part.touch()
    _patiently(lambda: _stream(url, file, part, report), lambda: report(part.stat().st_size), part)
    part.replace(target)


def _stream(url: str, file: File, part: Path, report: Report) -> None:
    """Append what is missing. The library's own download would begin again after an interruption."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # noqa: PLC0415 - as above
    from huggingface_hub.utils import (  # type: ignore[attr-defined] # noqa: PLC0415 - slow to load, and seldom needed
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    with part.open("ab") as content:
        here = content.tell()
        if file.size is None or here > file.size:
            here = _start_over(content)
        if here and here == file.size:
            return
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={here}-"} if here else {})}
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            if here and response.status_code == _NO_SUCH_RANGE:
                _start_over(content)
            hf_raise_for_status(response)
            if here and response.status_code != _PARTIAL:
                here = _start_over(content)
            for chunk in response.iter_bytes():
                content.write(chunk)
                here += len(chunk)
                if file.size is not None and here > file.size:
                    break
                report(here)
        if file.size is not None and here < file.size and "Content-Length" not in response.headers:
            raise HTTPError(f"{file.path} broke off")
        if file.size is not None and here != file.size:
            _start_over(content)
            raise ModelError(f"{file.path} has {here} bytes instead of {file.size}: fetch it again")


def _start_over(content: BinaryIO) -> int:
    content.truncate(0)
    return 0


def _patiently(step: Callable[[], T], tick: Callable[[], None], part: Path | None = None) -> T:
    """Try again while the hub is busy or the connection breaks. A try that stored something was no failure."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # noqa: PLC0415 - as above

    failures = 0
    while True:
        before = part.stat().st_size if part else 0
        try:
            return step()
        except HTTPError as error:
            failures = 1 if part and part.stat().st_size > before else failures + 1
            pause = max(PAUSE_S * 2 ** (failures - 1), _asked_to_wait(error))
            # Who cannot even be asked what there is, is told so at once.
            hopeless = part is None if _status(error) is None else _status(error) not in _BUSY
            if hopeless or failures >= _TRIES or pause > _LONGEST_PAUSE_S:
                raise
            _LOG.warning(
                "%s; trying again in %g s", str(error).strip().split("\n", 1)[0] or type(error).__name__, pause
            )
        _wait(pause, tick)


def _said(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def _status(error: Exception) -> int | None:
    """The HTTP status that an error is about; None when there was no answer."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _asked_to_wait(error: Any) -> float:
    asked = error.response.headers.get("Retry-After", "") if _status(error) else ""
    return float(asked) if asked.isdecimal() else 0.0


def _wait(seconds: float, tick: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, _POLL_S))


def _listing(source: HubSource) -> list[File]:
    """The files that the source names, with the sizes and checksums the hub knows; the catalogue's own come first."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - as above

    info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_S)
    offered = {each.rfilename: each for each in info.siblings or ()}
    chosen: dict[str, File] = {}
    for pattern in _for_this_machine(source):
        names = [name for name in offered if fnmatchcase(name, pattern.path)]
        if not names:
            raise ModelError(f"{source.repo} has no {pattern.path} at {source.revision[:12]}: correct the catalogue")
        for name in names:
            chosen[name] = _known(source, replace(pattern, path=name), offered[name])
    return list(chosen.values())


def _for_this_machine(source: HubSource) -> list[File]:
    machine, machines = platform.machine(), sorted({file.machine for file in source.files if file.machine})
    if machines and machine not in machines:
        raise ModelError(f"{source.repo} is for {' and '.join(machines)}, not {machine}: choose another model")
    return wanted(source)


def _known(source: HubSource, file: File, offered: Any) -> File:
    try:
        inside(file.path)
    except vol.Invalid as error:
        raise ModelError(f"{source.repo} offers a file outside its folder: {error}: use another") from error
    size = file.size if file.size is not None else offered.size
    sha256 = file.sha256 or (offered.lfs.sha256 if offered.lfs else None)
    blob = None if offered.lfs else offered.blob_id
    if size is None and sha256 is None and blob is None:
        raise ModelError(f"the hub tells neither size nor checksum of {file.path}: set HF_ENDPOINT to one that does")
    return replace(file, size=size, sha256=sha256, blob=blob)


def _stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
