"""Fetch a model in forks of this process, each of which is killed at another of its operations on the disk.

The argument is JSON: `work`, a folder, `entry`, as in models.yaml, and `files`, what they must hold; the hub is the one
of HF_ENDPOINT. After every crash a model that counts as present must be right to the byte, and the next download must
succeed. Prints how many crashes there were, for a model that is not there and for one that is damaged.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url, utils

from edge_agent.models import catalogue, download

LOADED = (HfApi, hf_hub_url, utils.get_session)
"""Not once in every fork."""
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}


def fork(entry: catalogue.Entry, data: Path, crash: int | None) -> int:
    """Download in a process of its own, killed at the operation with this number; returns its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    seen = count(1)

    def watch(event: str, arguments: tuple) -> None:
        if event in EVENTS and str(arguments[0]).startswith(str(data)) and next(seen) == crash:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    download.ensure(entry, data)  # An error ends this process too, with its traceback.
    os._exit(0)


def right(entry: catalogue.Entry, data: Path, files: dict[str, str]) -> bool:
    home = download._home(entry, data)
    return all((home / name).read_text(encoding="utf-8") == content for name, content in files.items())


def crashes(entry: catalogue.Entry, files: dict[str, str], data: Path, begin: Callable[[Path], None]) -> int:
    """Crash at every operation of a download that begins with what `begin` puts there."""
    for crash in count(1):
        shutil.rmtree(data, ignore_errors=True)
        begin(data)
        status = fork(entry, data, crash)
        if status == 0:
            return crash - 1
        assert os.WTERMSIG(status) == signal.SIGKILL, f"crash {crash}: status {status}"
        if download.is_present(entry, data):
            assert right(entry, data, files), f"crash {crash} left a wrong model"
        assert fork(entry, data, None) == 0, f"no download after crash {crash}"
        assert right(entry, data, files), f"a wrong model after crash {crash}"
        left = [path.suffix for path in (data / "models/.partial").rglob("*") if path.is_file()]
        assert left == [".lock"], f"crash {crash} left {left}"
    raise AssertionError


def main(work: Path, entry: catalogue.Entry, files: dict[str, str]) -> None:
    whole = work / "whole"
    assert fork(entry, whole, None) == 0

    def damaged(data: Path) -> None:
        shutil.copytree(whole, data)
        (download._home(entry, data) / next(iter(files))).write_text("damaged", encoding="utf-8")

    numbers = crashes(entry, files, work / "fresh", Path.mkdir), crashes(entry, files, work / "damaged", damaged)
    sys.stdout.write("{} {}".format(*numbers))


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    main(Path(told["work"]), catalogue.load({"some": told["entry"]})["some"], told["files"])
