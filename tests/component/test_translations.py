"""What hassfest checks of texts, and more: every text that the code names is there, and no other, in every language."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Final

import pytest
from homeassistant.config_entries import SOURCE_USER
from homeassistant.core import HomeAssistant
from homeassistant.helpers.translation import async_get_translations

import custom_components.edge_agent as component
from custom_components.edge_agent import config_flow, const, errors, issues, services
from custom_components.edge_agent.sensor import SENSORS
from custom_components.edge_agent.wire import PHASES
from tests.component.home import set_up
from tests.component.node import Node

HERE: Final = Path(component.__file__).parent
TEXTS: Final = {path.stem: json.loads(path.read_text()) for path in (HERE / "translations").glob("*.json")}
ENGLISH: Final = TEXTS["en"]
TREES: Final = {path.name: ast.parse(path.read_text()) for path in HERE.glob("*.py")}
ISSUES: Final = {value for name, value in vars(issues).items() if name.isupper() and isinstance(value, str)} - {
    const.DOCUMENTATION,
    const.DOMAIN,
    *(value for name, value in vars(issues).items() if name.startswith("CONF_")),
}
HOME_ASSISTANTS: Final = {"already_configured", "already_in_progress", "reconfigure_successful"}
"""Reasons that Home Assistant itself gives to end a flow."""


def flat(texts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in texts.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def strings(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def calls(name: str, *files: str) -> Iterator[ast.Call]:
    """Every call of what has this name, in these files or in all."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (not files or file in files):
                function = node.func
                if name == (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")):
                    yield node


def keywords(call: ast.Call, name: str) -> set[str]:
    return set().union(*(strings(each.value) for each in call.keywords if each.arg == name))


def returned(function: str) -> set[str]:
    """The strings that a function of the config flow can return."""
    found: set[str] = set()
    for node in ast.walk(TREES["config_flow.py"]):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for each in ast.walk(node):
                if isinstance(each, ast.Return):
                    value = each.value
                    parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                    found |= {part.value for part in parts if isinstance(part, ast.Constant) and part.value}
    return found


def test_every_language_is_there() -> None:
    assert set(TEXTS) == {"en", "de", "fr", "es", "nl"}


@pytest.mark.parametrize("language", sorted(set(TEXTS) - {"en"}))
def test_a_language_has_the_same_keys_and_the_same_placeholders(language: str) -> None:
    english, other = dict(flat(ENGLISH)), dict(flat(TEXTS[language]))
    assert list(other) == list(english)
    for key, text in other.items():
        assert placeholders(text) == placeholders(english[key]), key
        assert text.count("**") == english[key].count("**"), key
        if len(english[key].split()) > 3:
            assert text != english[key], f"{key} is still English"


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_texts_are_clean(language: str) -> None:
    for key, text in flat(TEXTS[language]):
        assert text == text.strip() != "", key
        assert not re.search(r"<\w+|https?://|\[%key|  |\.\.", text), key
        assert re.fullmatch(r"[a-z0-9_.]+", key), key
        if key.endswith(("title", ".name", "entry_type")) and "data_description" not in key:
            assert not text.endswith("."), key


def test_the_texts_have_no_other_rooms_than_home_assistant_reads() -> None:
    assert set(ENGLISH) == {
        "config",
        "config_subentries",
        "entity",
        "exceptions",
        "issues",
        "selector",
        "services",
    }
    assert set(ENGLISH["config"]) == {"initiate_flow", "flow_title", "step", "error", "abort"}


def test_every_error_of_the_flow_has_a_text_and_every_text_an_error() -> None:
    tree = TREES["config_flow.py"]
    used = {*config_flow._BY_CODE.values(), *config_flow._BY_PHASE.values()}
    used |= {"node_failed", "node_loading"} | returned("_absent") | returned("_older")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and [key.value for key in node.keys if isinstance(key, ast.Constant)] == ["base"]:
            used |= {value.value for value in node.values if isinstance(value, ast.Constant)}
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            used |= {node.value.value} if isinstance(node.value, ast.Constant) else set()
    assert set(ENGLISH["config"]["error"]) == used
    for key, text in ENGLISH["config"]["error"].items():
        assert placeholders(text) <= {"node", "message"}, key


def test_every_end_of_the_flow_has_a_text_and_every_text_an_end() -> None:
    used = HOME_ASSISTANTS | returned("_older")
    for call in calls("async_abort", "config_flow.py"):
        used |= keywords(call, "reason")
    assert set(ENGLISH["config"]["abort"]) == used
    for kind in (const.CONVERSATION, const.AI_TASK_DATA):
        ends = {"reconfigure_successful"}
        for call in calls("async_abort", "subentry_flow.py"):
            ends |= keywords(call, "reason")
        assert set(ENGLISH["config_subentries"][kind]["abort"]) == ends


def fields(step: Mapping[str, Any]) -> tuple[set[str], dict[str, set[str]]]:
    """The fields that a step has texts for, its own and those of its sections; each with a description."""
    assert set(step.get("data", {})) == set(step.get("data_description", {}))
    sections = step.get("sections", {})
    for section in sections.values():
        assert set(section["data"]) == set(section["data_description"])
    return set(step.get("data", {})), {name: set(section["data"]) for name, section in sections.items()}


def shown(result: Mapping[str, Any]) -> tuple[set[str], dict[str, set[str]]]:
    """The fields that a form shows."""
    schema = result["data_schema"].schema
    sections = {
        str(key): {*map(str, value.schema.schema)} for key, value in schema.items() if hasattr(value, "options")
    }
    return {str(key) for key in schema} - set(sections), sections


async def test_every_field_of_a_form_is_named_and_described(hass: HomeAssistant, node: Node) -> None:
    node.online()
    entry = await set_up(hass)
    result = await hass.config_entries.flow.async_init(const.DOMAIN, context={"source": SOURCE_USER})
    steps = ENGLISH["config"]["step"]
    assert set(steps) == {"discovery_confirm", "reconfigure", "user"}
    assert shown(result) == fields(steps["user"])
    assert shown(await entry.start_reconfigure_flow(hass)) == fields(steps["reconfigure"])
    assert set(ENGLISH["config_subentries"]) == {const.CONVERSATION, const.AI_TASK_DATA}
    for kind, texts in ENGLISH["config_subentries"].items():
        assert set(texts) == {"entry_type", "initiate_flow", "step", "abort"}
        assert set(texts["step"]) == {"init"}
        added = await hass.config_entries.subentries.async_init((entry.entry_id, kind), context={"source": SOURCE_USER})
        assert shown(added) == fields(texts["step"]["init"])


def test_every_exception_has_a_text_that_its_placeholders_fill() -> None:
    used: dict[str, set[str]] = {key: {"node", "message"} for key in (*errors._PLAIN, "offline", "request_failed")}
    for call in calls("AgentError"):
        key, given = call.args[0], {each.arg for each in call.keywords if each.arg}
        for name in {key.value} if isinstance(key, ast.Constant) else strings(key) - {"length", "finish_reason"}:
            used[name] = used.get(name, given) & given
    for name in ("ConfigEntryNotReady", "ServiceValidationError"):
        for call in calls(name):
            used |= {key: set() for key in keywords(call, "translation_key")}
    for call in calls("sentence"):
        if isinstance(key := call.args[2], ast.Constant):
            used[key.value] = strings(call.args[3]) if len(call.args) > 3 else set()
    texts = {key: text["message"] for key, text in ENGLISH["exceptions"].items()}
    assert set(texts) == set(used)
    for key, text in texts.items():
        assert placeholders(text) <= used[key], key


async def test_home_assistant_finds_the_sentences_in_every_language(hass: HomeAssistant) -> None:
    for language, texts in TEXTS.items():
        found = await async_get_translations(hass, language, "exceptions", {const.DOMAIN})
        assert found["component.edge_agent.exceptions.busy.message"] == texts["exceptions"]["busy"]["message"]
        assert await errors.sentence(hass, language, "impossible", {"problem": "X"}) != "impossible"
    assert await errors.sentence(hass, "xx", "busy") == ENGLISH["exceptions"]["busy"]["message"]


SAID: Final = {
    issues.BROKER_OLD: set[str](),
    issues.BROKER_OPEN: set[str](),
    issues.CONTEXT_TOO_SMALL: {"agent", "prompt_tokens", "limit_tokens"},
    issues.NODE_GONE: {"node", "hours"},
    issues.NODE_REMOVED: {"node"},
    issues.PROTOCOL_HOME_OLD: {"node", "theirs", "ours"},
    issues.PROTOCOL_NODE_OLD: {"node", "theirs", "ours"},
}
"""What each issue has to fill into its texts."""


def test_every_issue_has_a_text_and_a_fixable_one_a_flow() -> None:
    assert set(ENGLISH["issues"]) == ISSUES == set(SAID)
    for kind, texts in ENGLISH["issues"].items():
        assert set(texts) == {"title", "fix_flow" if kind in issues._REMOVABLE else "description"}
        for key, text in flat(texts):
            assert placeholders(text) <= SAID[kind], (kind, key)
        if "fix_flow" in texts:
            assert set(texts["fix_flow"]["step"]) == {"confirm"}


def test_every_sensor_has_a_name_and_every_phase_a_word() -> None:
    sensors = {each.key: each for each in SENSORS}
    assert set(ENGLISH["entity"]) == {"sensor"}
    assert set(ENGLISH["entity"]["sensor"]) == {each.translation_key for each in SENSORS} == set(sensors)
    assert set(ENGLISH["entity"]["sensor"]["phase"]["state"]) == set(PHASES)
    for key, texts in ENGLISH["entity"]["sensor"].items():
        described = sensors[key]
        bare = described.state_class is not None and described.native_unit_of_measurement is None
        assert ("unit_of_measurement" in texts) == bare, key


def test_every_choice_has_a_word() -> None:
    choices = {
        const.CONF_TARGET: {const.TARGET_NODE, const.TARGET_ANY},
        const.CONF_CONTINUE: {const.CONTINUE_NEVER, const.CONTINUE_ASKED, const.CONTINUE_ALWAYS},
        const.CONF_CONFIRM: {const.CONFIRM_SHORT, const.CONFIRM_MODEL},
        services.ATTR_PRIORITY: {*services.PRIORITIES},
    }
    assert {key: set(texts["options"]) for key, texts in ENGLISH["selector"].items()} == choices
