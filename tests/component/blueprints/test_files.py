from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from homeassistant.components.blueprint.models import Blueprint
from homeassistant.components.blueprint.schemas import BLUEPRINT_SCHEMA
from homeassistant.util.yaml import load_yaml_dict, parse_yaml

from tests.component.blueprints.stage import ROOT, SITE

FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.yaml"))
each_file = pytest.mark.parametrize("path", FILES)


def load(path: str) -> Blueprint:
    return Blueprint(load_yaml_dict(ROOT / path), expected_domain=path.partition("/")[0], schema=BLUEPRINT_SCHEMA)


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from mappings(each)
    elif isinstance(value, list):
        for each in value:
            yield from mappings(each)


def test_every_blueprint_has_a_test() -> None:
    tested = {each.stem.removeprefix("test_") for each in Path(__file__).parent.glob("test_*.py")}
    assert {Path(path).stem for path in FILES} == tested - {"files"}


@each_file
def test_it_says_where_it_is_from_and_what_it_needs(path: str) -> None:
    metadata = load(path).metadata
    assert metadata["source_url"] == f"{SITE}/{path}"
    assert metadata["author"] == "Edge Agent"
    assert metadata["description"]
    newest = "evaluate" in path
    assert metadata["homeassistant"]["min_version"] == ("2026.11.0" if newest else "2026.10.0")


@each_file
def test_every_input_has_a_name_and_a_selector(path: str) -> None:
    for name, given in load(path).inputs.items():
        assert given["name"], name
        assert given["selector"], name


@each_file
def test_only_what_nobody_can_guess_has_to_be_filled_in(path: str) -> None:
    needed = {name for name, given in load(path).inputs.items() if "default" not in given}
    assert needed <= {"ai_task", "triggers", "actions"}


@each_file
def test_the_prompt_is_an_input_that_marks_what_others_wrote_as_data(path: str) -> None:
    given = load(path).inputs
    prompts = given.keys() & {"prompt", "instructions", "question"}
    assert len(prompts) == 1
    if "prompt" in prompts:
        assert "data" in given["prompt"]["default"]


@each_file
def test_it_is_written_in_modern_words(path: str) -> None:
    data = load_yaml_dict(ROOT / path)
    assert not data.keys() & {"trigger", "condition", "action"}
    for each in mappings({key: value for key, value in data.items() if key != "blueprint"}):
        assert not each.keys() & {"service", "platform", "data_template"}


@each_file
def test_it_survives_its_import(path: str) -> None:
    """Home Assistant saves what it has validated, and cannot read `supported_features` back (its issue 103431)."""
    imported = load(path)
    saved = Blueprint(parse_yaml(imported.yaml()), schema=BLUEPRINT_SCHEMA)
    assert saved.data == imported.data


@each_file
def test_the_readme_offers_it(path: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    encoded = f"{SITE}/{path}".replace(":", "%3A").replace("/", "%2F")
    assert f"]({path})" in text
    assert f"https://my.home-assistant.io/redirect/blueprint_import/?blueprint_url={encoded}" in text
