"""Setting up a node: found by MQTT or named by hand, and asked for a token before it is taken."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, override

import probatio
from homeassistant.components import mqtt
from homeassistant.config_entries import (
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryData,
    ConfigSubentryFlow,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryNotReady
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.selector import SelectSelector, SelectSelectorConfig, SelectSelectorMode, TextSelector
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo

from .client import SETTLE_S, Client, NodeView
from .connection import connect, mqtt_entry, mqtt_loaded
from .const import AI_TASK_DATA, CONF_NODE, CONF_ROOT, CONVERSATION, DOMAIN, LOGGER, MANUFACTURER
from .subentry_flow import CONVERSATION_DEFAULTS, TASK_DEFAULTS, AITaskFlow, ConversationFlow
from .wire import DEFAULT_ROOT, POOL, PROTOCOL, Info, Topics, WireError, decode_info, is_segment

_TOKEN_S: Final = 30.0
"""How long a node may take for the one token it is asked for."""
_BY_CODE: Final = {
    "busy": "node_busy",
    "draining": "node_loading",
    "expired": "node_silent",
    "forbidden": "forbidden",
    "rate_limited": "node_busy",
    "unavailable": "node_silent",
}
"""What the form says for a code of the wire; the others are the node's own words."""
_BY_PHASE: Final = {"loading": "node_loading", "draining": "node_loading", "failed": "node_failed"}


class EdgeAgentConfigFlow(ConfigFlow, domain=DOMAIN):
    """One entry is one node."""

    VERSION = 1
    _info: Info
    """The card of a node that was discovered."""

    def __init__(self) -> None:
        self._visible: list[str] = []
        self._words = ""
        """What the node itself says about an error."""

    @classmethod
    @callback
    @override
    def async_get_supported_subentry_types(cls, config_entry: ConfigEntry) -> dict[str, type[ConfigSubentryFlow]]:
        return {CONVERSATION: ConversationFlow, AI_TASK_DATA: AITaskFlow}

    @override
    async def async_step_mqtt(self, discovery_info: MqttServiceInfo) -> ConfigFlowResult:
        """Take a card that appeared on the default root."""
        card = discovery_info.payload
        try:
            node = Topics(DEFAULT_ROOT).parse(discovery_info.topic).node
            await self.async_set_unique_id(f"{DEFAULT_ROOT}/{node}")
            self._abort_if_unique_id_configured()
            info = decode_info(card if isinstance(card, bytes) else str(card).encode())
        except WireError as refusal:
            if refusal.code.name == "unsupported_version":
                return self.async_abort(reason=_older(refusal), description_placeholders={"node": node})
            return self.async_abort(reason="invalid_discovery_info")
        if info.node != node:
            return self.async_abort(reason="invalid_discovery_info")
        self._info = info
        self.context["title_placeholders"] = {"name": node, "model": info.model}
        return await self.async_step_discovery_confirm()

    async def async_step_discovery_confirm(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask whether to use the node that was found."""
        info, errors = self._info, {}
        if user_input is not None:
            errors = await self._test(DEFAULT_ROOT, info.node)
            if not errors:
                return self._create(DEFAULT_ROOT, info.node)
        about = {"model": info.model, "engine": info.engine, "context": str(info.context)}
        return self.async_show_form(
            step_id="discovery_confirm",
            errors=errors,
            description_placeholders={"node": info.node, "message": self._words, **about},
        )

    @override
    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Set up a node by its name."""
        if mqtt_entry(self.hass) is None:
            return self.async_abort(
                reason="mqtt_missing",
                description_placeholders={"url": "/config/integrations/dashboard/add?domain=mqtt"},
            )
        errors: dict[str, str] = {}
        if user_input is None:
            self._visible = await self._look_around()
        else:
            root, node = _named(user_input)
            errors = _check(root, node)
            if not errors:
                await self.async_set_unique_id(f"{root}/{node}", raise_on_progress=False)
                self._abort_if_unique_id_configured()
                errors = await self._test(root, node)
            if not errors:
                return self._create(root, node)
        suggested = user_input or {CONF_NODE: next(iter(self._visible), "")}
        return self._show("user", suggested, errors)

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Let an entry stand for another node, or for its node on another root."""
        entry = self._get_reconfigure_entry()
        errors: dict[str, str] = {}
        if user_input is None:
            self._visible = await self._look_around()
        else:
            root, node = _named(user_input)
            errors = _check(root, node)
            if not errors:
                if await self.async_set_unique_id(f"{root}/{node}", raise_on_progress=False) not in (None, entry):
                    return self.async_abort(reason="already_configured")
                errors = await self._test(root, node)
            if not errors:
                return self._move(entry, root, node)
        return self._show("reconfigure", user_input or entry.data, errors)

    def _show(self, step: str, suggested: Mapping[str, Any], errors: dict[str, str]) -> ConfigFlowResult:
        options = SelectSelectorConfig(options=self._visible, custom_value=True, mode=SelectSelectorMode.DROPDOWN)
        schema = probatio.Schema(
            {
                probatio.Required(CONF_NODE): SelectSelector(options),
                probatio.Required(CONF_ROOT, default=DEFAULT_ROOT): TextSelector(),
            }
        )
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(schema, suggested),
            errors=errors,
            description_placeholders={"node": suggested.get(CONF_NODE, ""), "message": self._words},
        )

    async def _look_around(self) -> list[str]:
        """Return the nodes on the default root that no entry stands for."""
        taken = self._async_current_ids(include_ignore=False)
        try:
            async with _client(self.hass, DEFAULT_ROOT) as client:
                await _settle(client)
                seen = (view.name for view in client.nodes.values() if view.online)
                return sorted(node for node in seen if f"{DEFAULT_ROOT}/{node}" not in taken)
        except ConfigEntryNotReady:
            return []

    async def _test(self, root: str, node: str) -> dict[str, str]:
        """Ask the node for a token; returns what the form has to say when it gives none."""
        self._words = ""
        try:
            async with _client(self.hass, root) as client:
                await _settle(client, node)
                if problem := self._absent(client.nodes.get(node, NodeView(node))):
                    return {"base": problem}
                await client.complete(
                    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "edge": {"priority": "voice"}},
                    target=node,
                    timeout_s=_TOKEN_S,
                )
        except ConfigEntryNotReady:
            return {"base": "cannot_connect"}
        except WireError as error:
            self._words = error.message
            return {"base": _BY_CODE.get(error.code.name, "node_failed")}
        except Exception:  # noqa: BLE001 - a form must come back, whatever it was
            LOGGER.exception("Asking the node %s for a token failed", node)
            return {"base": "unknown"}
        return {}

    def _absent(self, view: NodeView) -> str | None:
        """Say why the node cannot be asked, as far as its presence tells."""
        if not view.online:
            return "node_not_found"
        if view.refusal is not None:
            self._words = view.refusal.message
            return _older(view.refusal) if view.refusal.code.name == "unsupported_version" else "node_failed"
        if view.state is None:
            return "node_loading"
        self._words = view.state.why
        return None if view.ready else _BY_PHASE.get(view.state.phase, "node_loading")

    def _create(self, root: str, node: str) -> ConfigFlowResult:
        name = f"{MANUFACTURER} {node}"
        return self.async_create_entry(
            title=node,
            data={CONF_ROOT: root, CONF_NODE: node},
            subentries=[
                ConfigSubentryData(
                    subentry_type=CONVERSATION, data=dict(CONVERSATION_DEFAULTS), title=name, unique_id=None
                ),
                ConfigSubentryData(
                    subentry_type=AI_TASK_DATA, data=dict(TASK_DEFAULTS), title=f"{name} AI task", unique_id=None
                ),
            ],
        )

    def _move(self, entry: ConfigEntry, root: str, node: str) -> ConfigFlowResult:
        """Change the entry; its device goes along, with the areas and names that people gave it."""
        before = entry.data
        devices = dr.async_get(self.hass)
        identifier = (DOMAIN, f"{before[CONF_ROOT]}/{before[CONF_NODE]}")
        if device := devices.async_get_device_by_identifier(identifier, entry.entry_id):
            devices.async_update_device(device.id, new_identifiers={(DOMAIN, f"{root}/{node}")})
        return self.async_update_and_abort(
            entry,
            unique_id=f"{root}/{node}",
            title=node if entry.title == before[CONF_NODE] else entry.title,
            data={CONF_ROOT: root, CONF_NODE: node},
        )


@asynccontextmanager
async def _client(hass: HomeAssistant, root: str) -> AsyncGenerator[Client]:
    """Lend the client of a root; raises `ConfigEntryNotReady` at once while the broker cannot be reached."""
    if not mqtt_loaded(hass) or not mqtt.is_connected(hass):
        raise ConfigEntryNotReady
    connection = await connect(hass, root)
    try:
        yield connection.client
    finally:
        connection.close()


async def _settle(client: Client, node: str | None = None) -> None:
    """Wait until presence shows this node, or any, or for as long as it may be on its way."""
    changed = asyncio.Event()
    unlisten = client.listen(lambda _: changed.set())
    try:
        async with asyncio.timeout(SETTLE_S):
            while not any(map(_seen, client.nodes.values() if node is None else [client.nodes.get(node)])):
                await changed.wait()
                changed.clear()
    except TimeoutError:
        pass  # It is not there, which the caller sees for itself.
    finally:
        unlisten()


def _seen(view: NodeView | None) -> bool:
    """Whether all of a node's presence has come."""
    return view is not None and view.online and view.state is not None and bool(view.info or view.refusal)


def _named(user_input: Mapping[str, Any]) -> tuple[str, str]:
    return user_input[CONF_ROOT].strip().strip("/"), user_input[CONF_NODE].strip()


def _check(root: str, node: str) -> dict[str, str]:
    errors = {}
    if not all(map(is_segment, root.split("/"))):
        errors[CONF_ROOT] = "invalid_root"
    if not is_segment(node) or node == POOL:
        errors[CONF_NODE] = "invalid_node"
    return errors


def _older(refusal: WireError) -> str:
    """Which side of a card's protocol has to be upgraded."""
    return "home_old" if min(refusal.details["supported"], default=0) > PROTOCOL else "node_old"
