from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.edge_agent import issues
from custom_components.edge_agent.const import DOMAIN
from custom_components.edge_agent.repairs import async_create_fix_flow
from custom_components.edge_agent.wire import dumps, encode_presence, loads
from tests.component.home import set_up
from tests.component.node import Node

DAY = timedelta(hours=24, seconds=1)


def issue(hass: HomeAssistant, kind: str, owner: str = "") -> ir.IssueEntry | None:
    return ir.async_get(hass).async_get_issue(DOMAIN, f"{kind}_{owner}" if owner else kind)


async def fix(hass: HomeAssistant, found: ir.IssueEntry) -> dict[str, Any]:
    """Open the repair of an issue and submit it."""
    flow = await async_create_fix_flow(hass, found.issue_id, found.data)
    flow.hass, flow.handler, flow.flow_id = hass, DOMAIN, "flow"
    flow.context = {"issue_id": found.issue_id}
    form = await flow.async_step_init()
    assert (form["type"], form["step_id"]) == (FlowResultType.FORM, "confirm")
    assert form["description_placeholders"] == found.translation_placeholders
    return await flow.async_step_confirm({})


@pytest.fixture
async def entry(hass: HomeAssistant, node: Node) -> ConfigEntry:
    node.online()
    return await set_up(hass)


async def test_a_node_deleted_from_the_broker_can_be_removed_here_too(
    hass: HomeAssistant, node: Node, entry: ConfigEntry
) -> None:
    node.remove()
    await hass.async_block_till_done()
    found = issue(hass, issues.NODE_REMOVED, entry.entry_id)
    assert found.is_fixable
    assert found.translation_placeholders["node"] == "attic"
    assert (await fix(hass, found))["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    assert not hass.config_entries.async_entries(DOMAIN)
    assert hass.states.get("sensor.attic_phase") is None
    assert issue(hass, issues.NODE_REMOVED, entry.entry_id) is None


async def test_a_deleted_node_that_is_back_needs_no_repair(hass: HomeAssistant, node: Node, entry: ConfigEntry) -> None:
    node.remove()
    await hass.async_block_till_done()
    node.online()
    await hass.async_block_till_done()
    assert issue(hass, issues.NODE_REMOVED, entry.entry_id) is None


async def test_a_node_that_is_away_for_a_day_can_be_removed(
    hass: HomeAssistant, node: Node, entry: ConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    node.offline()
    await hass.async_block_till_done()
    assert issue(hass, issues.NODE_GONE, entry.entry_id) is None
    freezer.tick(DAY)
    async_fire_time_changed(hass)
    await hass.async_block_till_done()
    found = issue(hass, issues.NODE_GONE, entry.entry_id)
    assert found.is_fixable
    assert found.translation_placeholders == {"node": "attic", "hours": "24"}
    await fix(hass, found)
    await hass.async_block_till_done()
    assert not hass.config_entries.async_entries(DOMAIN)


async def test_a_node_that_came_back_in_time_is_not_missed(
    hass: HomeAssistant, node: Node, entry: ConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    node.offline()
    await hass.async_block_till_done()
    node.online()
    await hass.async_block_till_done()
    freezer.tick(DAY)
    async_fire_time_changed(hass)
    await hass.async_block_till_done()
    assert issue(hass, issues.NODE_GONE, entry.entry_id) is None


async def test_an_entry_that_went_another_way_is_no_obstacle(
    hass: HomeAssistant, node: Node, entry: ConfigEntry
) -> None:
    node.remove()
    await hass.async_block_till_done()
    found = issue(hass, issues.NODE_REMOVED, entry.entry_id)
    flow = await async_create_fix_flow(hass, found.issue_id, None)
    flow.hass, flow.handler, flow.flow_id, flow.context = hass, DOMAIN, "flow", {"issue_id": found.issue_id}
    assert (await flow.async_step_confirm({}))["type"] is FlowResultType.CREATE_ENTRY
    assert hass.config_entries.async_entries(DOMAIN) == [entry]


@pytest.mark.parametrize(
    ("protocols", "kind", "theirs"),
    [
        ({"min_protocol": 8, "protocol": 9}, issues.PROTOCOL_HOME_OLD, "8, 9"),
        ({"min_protocol": 0, "protocol": 0}, issues.PROTOCOL_NODE_OLD, "0"),
    ],
)
async def test_a_protocol_that_is_not_spoken_here_names_the_side_to_update(
    hass: HomeAssistant, node: Node, entry: ConfigEntry, *, protocols: dict[str, int], kind: str, theirs: str
) -> None:
    node.card(dumps({**loads(encode_presence(node.info)), **protocols}))
    await hass.async_block_till_done()
    found = issue(hass, kind, entry.entry_id)
    assert not found.is_fixable
    assert found.translation_placeholders == {"node": "attic", "theirs": theirs, "ours": "1"}
    node.online()
    await hass.async_block_till_done()
    assert issue(hass, kind, entry.entry_id) is None


@pytest.mark.parametrize(
    ("details", "numbers"),
    [
        ({"prompt_tokens": 9000, "limit_tokens": 8192}, {"prompt_tokens": "9000", "limit_tokens": "8192"}),
        ({}, {"prompt_tokens": "?", "limit_tokens": "?"}),
    ],
)
async def test_a_context_that_is_too_small_says_by_how_much_where_that_is_known(
    hass: HomeAssistant, details: dict[str, int], numbers: dict[str, str]
) -> None:
    issues.raise_issue(hass, issues.CONTEXT_TOO_SMALL, "agent", agent="Jeeves", **details)
    assert issue(hass, issues.CONTEXT_TOO_SMALL, "agent").translation_placeholders == {"agent": "Jeeves", **numbers}


@pytest.mark.parametrize(
    ("mqtt_config_entry_data", "expected"),
    [
        ({"broker": "b", "protocol": "5", "username": "home", "password": "p"}, set[str]()),
        ({"broker": "b", "protocol": "5"}, {issues.BROKER_OPEN}),
        ({"broker": "b", "protocol": "3.1.1", "username": "home", "password": "p"}, {issues.BROKER_OLD}),
    ],
)
async def test_what_is_missing_on_the_way_to_the_broker_is_said(
    hass: HomeAssistant, entry: ConfigEntry, expected: set[str]
) -> None:
    assert {kind for kind in (issues.BROKER_OLD, issues.BROKER_OPEN) if issue(hass, kind)} == expected


async def test_without_mqtt_nothing_is_said_of_a_broker(hass: HomeAssistant) -> None:
    issues.check_broker(hass)
    assert not ir.async_get(hass).issues
