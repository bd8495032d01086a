"""Which engine a configuration means: the model alone decides, unless the operator says otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import resident
from edge_agent.cli import main
from edge_agent.config.settings import schema
from edge_agent.errors import ModelError
from edge_agent.models.catalogue import Entry

AXERA = "qwen2.5-1.5b-gptq-int4-axera"


class Engine:
    """Keeps what it is told."""

    def __init__(self, options):
        self.options = dict(options)


def config(**values):
    return schema()({"node": "kitchen", **values})


@pytest.mark.parametrize(
    ("values", "engine"),
    [
        ({}, "openvino"),
        ({"model": AXERA}, "axera"),
        ({"model": "/models/own.gguf"}, "openvino"),
        ({"engine": {"name": "echo"}}, "echo"),
        ({"model": AXERA, "engine": {"name": "echo"}}, "echo"),
    ],
)
def test_the_model_chooses_the_engine_unless_one_is_configured(values, engine):
    assert resident.engine_name(config(**values)) == engine


def test_a_check_says_which_engine_it_will_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_AGENT_MODEL", AXERA)
    monkeypatch.setenv("EDGE_AGENT_DATA_DIR", str(tmp_path))
    assert main(["check"]) == 0
    assert "engine:\n  name: axera\n" in capsys.readouterr().out


def test_a_model_of_the_catalogue_is_named_and_found_by_its_name_alone():
    chosen = config(model=AXERA)
    found = resident.model(chosen)
    assert isinstance(found, Entry)
    assert (found.name, found.engine, resident.name(chosen)) == (AXERA, "axera", AXERA)


def test_an_engine_without_a_model_is_called_by_its_own_name():
    chosen = config(model=AXERA, engine={"name": "echo"})
    assert resident.model(chosen) is None
    assert resident.name(chosen) == "echo"


def test_a_file_is_found_beside_the_configuration_and_a_missing_one_is_explained(tmp_path):
    (tmp_path / "own.gguf").touch()
    chosen = replace(config(model="own.gguf"), source=tmp_path / "agent.yaml")
    assert resident.model(chosen) == tmp_path / "own.gguf"
    with pytest.raises(ModelError, match=r"there is no model other\.gguf"):
        resident.model(config(model="other.gguf"))


def test_the_engine_of_an_entry_is_told_where_its_files_are():
    target = f"{__name__}:Engine"
    entry = {
        "title": "Mine",
        "licence": "MIT",
        "context": 128,
        "engine": target,
        "source": {"kind": "hub", "repo": "me/mine", "revision": "0" * 40, "files": [{"path": "*"}]},
    }
    chosen = config(model="mine", models={"mine": entry}, data_dir="/srv", engine={"options": {"threads": 2}})
    assert isinstance(resident.model(chosen), Entry)
    built = resident.engine(chosen, Path("/srv/models/mine"))
    assert built.options == {"cache_dir": "/srv/cache", "threads": 2, "model": "/srv/models/mine"}
