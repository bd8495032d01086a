"""Files of a Hugging Face repository at one commit; an interrupted download goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import voluptuous as vol

from edge_agent.errors import ModelError
from edge_agent.models.catalogue import File, HubSource, inside
from edge_agent.models.disk import require_space

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

_SLACK: Final = 16 << 20
_TIMEOUT_S: Final = 30.0


def fetch(source: HubSource, folder: Path, report: Callable[[int, int], None]) -> list[File]:
    """Put the files into `folder`; returns what each must be, as far as catalogue and hub tell. Raises `ModelError`."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # noqa: PLC0415 - httpx's, by version

    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = _listing(source)
        total = sum(file.size or 0 for file in files)
        require_space(folder, total - _stored(folder) + _SLACK)
        done = 0
        for file in files:
            _get(source, file, folder, partial(_report, report, done, total))
            done += file.size or 0
            report(done, total)
    except (HTTPError, OSError) as error:
        said = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"{source.repo} cannot be fetched: {said}: check the network, the proxy and HF_ENDPOINT "
            "(and HF_TOKEN for a model that asks for consent), then try again: what has come is kept"
        ) from error
    return files


def _get(source: HubSource, file: File, folder: Path, report: Callable[[int], None]) -> None:
    """Fetch one file, from where an earlier try stopped: `hf_hub_download` would throw that away."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to load, and seldom needed
    from huggingface_hub.file_download import http_get  # noqa: PLC0415 - as above
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # noqa: PLC0415 - as above

    target = folder / file.path
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("ab") as content:
        if file.size is None or content.tell() > file.size:
            content.truncate(0)
            content.seek(0)
        http_get(
            hf_hub_url(source.repo, file.path, revision=source.revision),
            content,
            resume_size=content.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            tqdm_class=_bar(report),
        )
    part.replace(target)


def _report(report: Callable[[int, int], None], before: int, total: int, fetched: int) -> None:
    report(min(before + fetched, total), total)


def _listing(source: HubSource) -> list[File]:
    """The files that the source names, with the sizes and checksums the hub knows; the catalogue's own come first."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - as above

    info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_S)
    offered = {each.rfilename: each for each in info.siblings or ()}
    chosen: dict[str, File] = {}
    for wanted in source.files:
        names = [name for name in offered if fnmatchcase(name, wanted.path)]
        if not names:
            raise ModelError(f"{source.repo} has no {wanted.path} at {source.revision[:12]}: correct the catalogue")
        for name in names:
            lfs = offered[name].lfs
            try:
                inside(name)
            except vol.Invalid as error:
                raise ModelError(f"{source.repo} offers a file outside its folder: {error}: use another") from error
            size = wanted.size if wanted.size is not None else offered[name].size
            chosen[name] = File(name, size, wanted.sha256 or (lfs.sha256 if lfs else None))
    return list(chosen.values())


def _bar(report: Callable[[int], None]) -> type[tqdm]:
    """A progress bar, as the hub's library wants one, that draws nothing and reports the bytes of one file."""
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415 - as above

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.fetched = int(options.get("initial") or 0)
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call] # tqdm has no types

        def update(self, n: float | None = 1) -> None:
            self.fetched += int(n or 0)
            report(self.fetched)

    return Bar


def _stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
