import re
from pathlib import Path

import pytest

from edge_agent.errors import ConfigError, ModelError
from edge_agent.models import catalogue
from edge_agent.models.catalogue import Entry, HubSource, WheelSource

MINE = {
    "title": "Mine",
    "licence": "MIT",
    "context": 2048,
    "engine": "openvino",
    "source": {"kind": "hub", "repo": "me/mine", "revision": "0" * 40, "files": [{"path": "*.gguf"}]},
}


def test_the_shipped_catalogue_is_sound_and_holds_the_default():
    known = catalogue.load()
    assert isinstance(known["smollm2-135m"].source, WheelSource)
    assert all(entry.name == name and len(entry.source.pin) in (40, 64) for name, entry in known.items())


def test_entries_of_the_user_are_added_and_replace_by_name():
    known = catalogue.load({"mine": MINE, "smollm2-135m": MINE})
    assert known["mine"].source == HubSource("me/mine", "0" * 40, (catalogue.File("*.gguf"),))
    assert known["smollm2-135m"].title == "Mine"
    assert set(catalogue.load()) < set(known)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context": 0}, "models.mine.context: value must be at least 1"),
        ({"titel": "x"}, "models.mine.titel: is unknown"),
        ({"source": {"kind": "hub"}}, "models.mine.source.files: is missing\nmodels.mine.source.repo: is missing"),
        ({"source": {}}, "models.mine.source: `kind` is hub or wheel"),
        ({"source": 3}, "models.mine.source: 3 is not a mapping"),
        ({"source": {**MINE["source"], "revision": "main"}}, "'main' is not a full commit of 40 hexadecimal digits"),
        ({"source": {**MINE["source"], "files": []}}, "models.mine.source.files: names no file"),
        ({"source": {**MINE["source"], "files": [{"path": "../x"}]}}, "files[0].path: '../x' is not a relative path"),
        ({"source": {**MINE["source"], "repo": "--flag"}}, "'--flag' is not owner/name"),
        ({"source": {"kind": "wheel", "package": "--index-url=x"}}, "'--index-url=x' is not a package's name"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(change, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        catalogue.load({"mine": {**MINE, **change}})


@pytest.mark.parametrize("name", ["../up", "", "Mine", "a/b", ".partial"])
def test_a_name_that_could_not_be_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match="is not a name"):
        catalogue.load({name: MINE})


def test_a_model_is_an_entry_or_a_path(tmp_path, monkeypatch):
    known = catalogue.load()
    (tmp_path / "own.gguf").touch()
    (tmp_path / "smollm2-135m").touch()
    assert catalogue.resolve(str(tmp_path / "own.gguf"), known) == tmp_path / "own.gguf"
    assert catalogue.resolve("own.gguf", known, tmp_path) == tmp_path / "own.gguf"
    assert isinstance(catalogue.resolve("smollm2-135m", known, tmp_path), Entry), "names come first"
    assert catalogue.resolve("./smollm2-135m", known, tmp_path) == tmp_path / "smollm2-135m"
    monkeypatch.chdir(tmp_path)
    assert catalogue.resolve("own.gguf", known) == Path("own.gguf").absolute()


def test_an_unknown_model_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model nope.*qwen2\.5-1\.5b, .*smollm2-135m"):
        catalogue.resolve("nope", catalogue.load(), tmp_path)
