"""Where the files that travel with the agent lie: in the wheel as `config_files`, in a checkout as `config`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(relative_path: str) -> Path:
    """The path of a shipped file, e.g. `templates/chatml.jinja`; it may not exist."""
    inside = _PACKAGE / "config_files"
    return (inside if inside.is_dir() else _PACKAGE.parent / "config") / relative_path
