"""Where the files that travel with the agent lie: in the wheel as `config_files`, in a checkout as `config`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parent


def shipped(relative_path: str) -> Path:
    """Locate a shipped file or folder, such as `templates/chatml.jinja`; it need not exist."""
    inside = _PACKAGE / "config_files"
    return (inside if inside.is_dir() else _PACKAGE.parent / "config") / relative_path
