"""What hassfest and HACS check of the files around the code."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any, Final

import pytest
from awesomeversion import AwesomeVersion, AwesomeVersionStrategy
from homeassistant import components, loader
from homeassistant import const as ha_const
from homeassistant.core import HomeAssistant
from homeassistant.helpers.icon import async_get_icons
from homeassistant.helpers.service import _SERVICES_SCHEMA, async_get_all_descriptions
from homeassistant.setup import async_setup_component
from homeassistant.util.yaml import load_yaml

import custom_components.edge_agent as component
from custom_components.edge_agent import services
from custom_components.edge_agent.const import DOCUMENTATION, DOMAIN
from custom_components.edge_agent.sensor import SENSORS
from custom_components.edge_agent.wire import DEFAULT_ROOT, PHASES, Topics

HERE: Final = Path(component.__file__).parent
ROOT: Final = HERE.parent.parent
MANIFEST: Final = json.loads((HERE / "manifest.json").read_text())
HACS: Final = json.loads((ROOT / "hacs.json").read_text())
ICONS: Final = json.loads((HERE / "icons.json").read_text())
ENGLISH: Final = json.loads((HERE / "translations" / "en.json").read_text())
SERVICES: Final[dict[str, Any]] = load_yaml(HERE / "services.yaml")
RULES: Final[dict[str, Any]] = load_yaml(HERE / "quality_scale.yaml")["rules"]


def test_the_keys_of_the_manifest_are_those_of_a_custom_integration_in_order() -> None:
    keys = list(MANIFEST)
    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert set(keys) == {
        "domain",
        "name",
        "after_dependencies",
        "codeowners",
        "config_flow",
        "dependencies",
        "documentation",
        "integration_type",
        "iot_class",
        "issue_tracker",
        "loggers",
        "mqtt",
        "requirements",
        "version",
    }


def test_the_manifest_says_what_is_so() -> None:
    assert MANIFEST["domain"] == DOMAIN == HERE.name
    assert MANIFEST["config_flow"] is True
    assert MANIFEST["requirements"] == []
    assert (MANIFEST["integration_type"], MANIFEST["iot_class"]) == ("service", "local_push")
    assert MANIFEST["mqtt"] == [Topics(DEFAULT_ROOT).presence("+", "info")]
    assert MANIFEST["loggers"] == [component.__name__]
    assert MANIFEST["documentation"].startswith(DOCUMENTATION)
    assert MANIFEST["issue_tracker"] == f"{DOCUMENTATION}/issues"
    assert all(re.fullmatch(r"@[\w-]+", owner) for owner in MANIFEST["codeowners"])
    version = AwesomeVersion(MANIFEST["version"], ensure_strategy=AwesomeVersionStrategy.SEMVER)
    assert version.simple


@pytest.mark.parametrize("key", ["dependencies", "after_dependencies"])
async def test_what_it_depends_on_is_in_home_assistant_and_sorted(hass: HomeAssistant, key: str) -> None:
    assert MANIFEST[key] == sorted(set(MANIFEST[key]))
    found = await loader.async_get_integrations(hass, MANIFEST[key])
    assert all(isinstance(each, loader.Integration) for each in found.values())


def imported() -> set[str]:
    """The integrations of Home Assistant that the code imports."""
    code = "\n".join(path.read_text() for path in HERE.rglob("*.py"))
    found = set(re.findall(r"^\s*from homeassistant\.components\.(\w+)", code, re.MULTILINE))
    for names in re.findall(r"^\s*from homeassistant\.components import (.+)$", code, re.MULTILINE):
        found |= {name.split(" as ")[0].strip(" ()") for name in names.split(",")}
    return found


def test_every_integration_that_is_imported_is_a_dependency() -> None:
    # Those that set up a platform of ours do so after us, or are there whenever they call us.
    platforms = {"binary_sensor", "diagnostics", "repairs", "sensor"}
    named = {*MANIFEST["dependencies"], *MANIFEST["after_dependencies"]}
    assert imported() <= named | platforms


async def test_home_assistant_loads_it_as_it_is(hass: HomeAssistant) -> None:
    integration = await loader.async_get_integration(hass, DOMAIN)
    assert integration.is_built_in is False
    assert str(integration.version) == MANIFEST["version"]
    assert DOMAIN in {each for topics in (await loader.async_get_mqtt(hass)).items() for each in topics[:1]}


def test_hacs_installs_it_where_it_runs() -> None:
    assert set(HACS) == {"name", "homeassistant", "render_readme"}
    assert HACS["name"] == MANIFEST["name"]
    assert HACS["homeassistant"] == "2026.10.0"
    assert AwesomeVersion(HACS["homeassistant"]) <= AwesomeVersion(ha_const.__version__)
    assert [path.name for path in (ROOT / "custom_components").iterdir() if (path / "manifest.json").exists()] == [
        DOMAIN
    ]


@pytest.mark.parametrize(("name", "size"), [("icon.png", 256), ("icon@2x.png", 512)])
def test_the_icon_is_a_square_picture_with_a_transparent_ground(name: str, size: int) -> None:
    head = (HERE / "brand" / name).read_bytes()[:26]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colours = struct.unpack(">IIBB", head[16:26])
    assert (width, height, depth, colours) == (size, size, 8, 6)  # 6 is red, green, blue and transparency.


def test_the_actions_are_described_as_home_assistant_wants_it() -> None:
    _SERVICES_SCHEMA(SERVICES)
    assert set(SERVICES) == set(ENGLISH["services"]) == set(ICONS["services"])
    for name, described in SERVICES.items():
        texts = ENGLISH["services"][name]
        assert {"name", "description"} <= set(texts), name
        assert list((described or {}).get("fields", {})) == list(texts.get("fields", {})), name
        for field, words in texts.get("fields", {}).items():
            assert set(words) == {"name", "description"}, field


def test_an_action_takes_the_fields_that_are_described() -> None:
    for name, schema in (
        (services.SERVICE_ASK, services.ASK_SCHEMA),
        (services.SERVICE_RELOAD, services.RELOAD_SCHEMA),
    ):
        fields = SERVICES[name]["fields"]
        assert {str(key) for key in schema.schema} == set(fields)
        for key in schema.schema:
            assert fields[str(key)].get("required", False) == (type(key).__name__ == "Required"), key
    assert SERVICES["ask"]["fields"]["priority"]["selector"]["select"]["options"] == [*services.PRIORITIES]


async def test_home_assistant_shows_the_actions(hass: HomeAssistant) -> None:
    assert await async_setup_component(hass, "homeassistant", {})
    assert await async_setup_component(hass, DOMAIN, {})
    shown = (await async_get_all_descriptions(hass))[DOMAIN]
    assert set(shown) == set(SERVICES)
    assert shown["ask"]["response"] == {"optional": False}
    assert shown["cancel_all"]["response"] == {"optional": True}
    assert shown["prepare"]["target"] == {"entity": [{"integration": DOMAIN, "domain": ["conversation"]}]}


def test_icons_are_of_the_material_design_and_of_what_is_there() -> None:
    assert set(ICONS) == {"entity", "services"}
    assert set(ICONS["entity"]) == {"sensor"}
    assert set(ICONS["entity"]["sensor"]) == {each.translation_key for each in SENSORS}
    assert set(ICONS["entity"]["sensor"]["phase"]["state"]) == set(PHASES)
    names = re.findall(r'"(?:default|service|\w+)": "([^"]+)"', (HERE / "icons.json").read_text())
    assert len(names) > len(SENSORS)
    assert all(re.fullmatch(r"mdi:[a-z0-9-]+", name) for name in names)


async def test_home_assistant_finds_the_icons(hass: HomeAssistant) -> None:
    for category in ("entity", "services"):
        assert (await async_get_icons(hass, category, {DOMAIN}))[DOMAIN] == ICONS[category]


def test_every_rule_of_the_quality_scale_is_met_or_exempt_for_a_reason() -> None:
    platinum = load_yaml(Path(components.__file__).parent / "anthropic" / "quality_scale.yaml")["rules"]
    assert set(RULES) == set(platinum)
    for rule, verdict in RULES.items():
        if verdict != "done":
            assert set(verdict) == {"status", "comment"}, rule
            assert verdict["status"] in ("done", "exempt"), rule
            assert len(verdict["comment"]) > 20, rule


def test_every_platform_sets_its_parallel_updates() -> None:
    for platform in component.PLATFORMS:
        assert "\nPARALLEL_UPDATES = 0\n" in (HERE / f"{platform}.py").read_text(), platform
