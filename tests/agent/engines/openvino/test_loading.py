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


def test_a_conversion_that_was_killed_is_begun_again_and_older_ones_go(smollm2, tmp_path, monkeypatch):
    def killed(_model: Path, folder: Path) -> None:
        (folder.with_name(f".{folder.name}.partial")).mkdir()
        raise KeyboardInterrupt

    old = [tmp_path / f"{smollm2.stem}-5-6-2026.1.0", tmp_path / f".{smollm2.stem}-5-6-2026.1.0.partial"]
    others = [tmp_path / f"{smollm2.stem}-other-5-6-2026.1.0", tmp_path / "notes"]
    for each in (*old, *others):
        each.mkdir()

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", killed)
        with pytest.raises(KeyboardInterrupt):
            conversion.converted(smollm2, tmp_path)
    folder = conversion.converted(smollm2, tmp_path)
    assert (folder / "openvino_model.bin").stat().st_size > 10**6
    assert {each for each in tmp_path.iterdir() if each.is_dir()} == {folder, *others}
