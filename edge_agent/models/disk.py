"""Room on the disk, asked before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_agent.errors import ModelError


def require_space(folder: Path, needed: int) -> None:
    """Raise `ModelError` unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{folder} needs {needed / 1e6:.0f} MB free and has {free / 1e6:.0f} MB: "
            "free some, or set data_dir to a larger disk"
        )
