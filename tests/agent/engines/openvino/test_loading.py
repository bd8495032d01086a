from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("openvino_genai")

from edge_agent.engines.openvino import OpenVinoEngine, conversion
from edge_agent.errors import ConfigError, Unsupported


def test_options_are_checked():
    for options in ({}, {"model": "x", "teapot": 1}, {"model": "x", "cache_gb": 0}):
        with pytest.raises(ConfigError):
            OpenVinoEngine(options)
    with pytest.raises(Unsupported, match="NPU"):
        OpenVinoEngine({"model": "x", "device": "npu"})


def test_a_conversion_that_was_killed_is_begun_again(smollm2, tmp_path, monkeypatch):
    def killed(_model: Path, folder: Path) -> None:
        (folder.with_name(f".{folder.name}.partial")).mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", killed)
        with pytest.raises(KeyboardInterrupt):
            conversion.converted(smollm2, tmp_path)
    folder = conversion.converted(smollm2, tmp_path)
    assert (folder / "openvino_model.bin").stat().st_size > 10**6
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == [folder.name]
