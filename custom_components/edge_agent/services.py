"""The actions: ask a node anything, have prefixes read in advance, stop what runs, have a node loaded anew."""

from collections.abc import Mapping
from typing import Any, Final

import probatio
from homeassistant.components.conversation import DOMAIN as CONVERSATION_DOMAIN
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_DESCRIPTION, CONF_SELECTOR
from homeassistant.core import HomeAssistant, ServiceCall, ServiceResponse, SupportsResponse, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers import selector
from homeassistant.helpers.service import (
    async_get_config_entry,
    async_register_admin_service,
    async_register_platform_entity_service,
)

from .answer import written
from .const import CONF_MAX_TOKENS, CONF_TEMPERATURE, CONF_TIMEOUT, DEFAULT_TIMEOUT_S, DOMAIN, MANUFACTURER
from .coordinator import EdgeAgentConfigEntry, NodeCoordinator
from .errors import AgentError, wire_errors
from .structure import data_of, response_format
from .wire import DEFAULT_ROOT, POOL, Reply, WireError

SERVICE_ASK: Final = "ask"
SERVICE_PREPARE: Final = "prepare"
SERVICE_CANCEL_ALL: Final = "cancel_all"
SERVICE_RELOAD: Final = "reload"

ATTR_CONFIG_ENTRY_ID: Final = "config_entry_id"
ATTR_PROMPT: Final = "prompt"
ATTR_SYSTEM_PROMPT: Final = "system_prompt"
ATTR_TEMPLATE: Final = "template"
ATTR_VARIABLES: Final = "variables"
ATTR_STRUCTURE: Final = "structure"
ATTR_REQUIRED: Final = "required"
ATTR_PRIORITY: Final = "priority"
PRIORITIES: Final = ("voice", "normal", "batch")


def _structure(fields: Mapping[str, Mapping[str, Any]]) -> probatio.Schema:
    """Make a schema of `{field: {selector, description, required}}`, as AI tasks have it."""
    kinds = {True: probatio.Required, False: probatio.Optional}
    return probatio.Schema(
        {
            kinds[field.get(ATTR_REQUIRED, False)](name, description=field.get(CONF_DESCRIPTION)): selector.selector(
                field[CONF_SELECTOR]
            )
            for name, field in fields.items()
        }
    )


_FIELD: Final = probatio.Schema(
    {
        probatio.Required(CONF_SELECTOR): selector.validate_selector,
        probatio.Optional(CONF_DESCRIPTION): cv.string,
        probatio.Optional(ATTR_REQUIRED): cv.boolean,
    }
)
ASK_SCHEMA: Final = probatio.Schema(
    {
        probatio.Optional(ATTR_CONFIG_ENTRY_ID): cv.string,
        probatio.Optional(ATTR_PROMPT): cv.string,
        probatio.Optional(ATTR_SYSTEM_PROMPT): cv.string,
        probatio.Optional(ATTR_TEMPLATE): cv.string,
        probatio.Optional(ATTR_VARIABLES): dict,
        probatio.Optional(ATTR_STRUCTURE): probatio.All(
            probatio.Schema({cv.string: _FIELD}), probatio.Length(min=1), _structure
        ),
        probatio.Optional(CONF_MAX_TOKENS): probatio.All(probatio.Coerce(int), probatio.Range(min=1)),
        probatio.Optional(CONF_TEMPERATURE): probatio.All(probatio.Coerce(float), probatio.Range(min=0, max=2)),
        probatio.Optional(CONF_TIMEOUT, default=DEFAULT_TIMEOUT_S): probatio.All(
            probatio.Coerce(float), probatio.Range(min=1, max=3600)
        ),
        probatio.Optional(ATTR_PRIORITY, default="normal"): probatio.In(PRIORITIES),
    }
)
RELOAD_SCHEMA: Final = probatio.Schema({probatio.Required(ATTR_CONFIG_ENTRY_ID): cv.string})


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register the actions."""
    register = hass.services.async_register
    register(DOMAIN, SERVICE_ASK, _ask, ASK_SCHEMA, supports_response=SupportsResponse.ONLY)
    register(DOMAIN, SERVICE_CANCEL_ALL, _cancel_all, probatio.Schema({}), supports_response=SupportsResponse.OPTIONAL)
    async_register_platform_entity_service(
        hass, DOMAIN, SERVICE_PREPARE, entity_domain=CONVERSATION_DOMAIN, func="prepare", schema=None
    )
    async_register_admin_service(hass, DOMAIN, SERVICE_RELOAD, _reload, RELOAD_SCHEMA)


async def _ask(call: ServiceCall) -> ServiceResponse:
    """Ask one question and return its answer."""
    coordinator, target = _target(call)
    structure = call.data.get(ATTR_STRUCTURE)
    reply = await _complete(coordinator, _body(call.data, structure), target, call.data[CONF_TIMEOUT])
    with wire_errors(reply.node):
        whole = written(reply)
    answer: dict[str, Any] = {"text": whole.text, "usage": whole.usage, "node": reply.node}
    if model := reply.body.get("model"):
        answer["model"] = model
    if structure:
        answer["data"] = data_of(whole.text, whole.finish_reason)
    return answer


def _target(call: ServiceCall) -> tuple[NodeCoordinator, str]:
    """Whose client asks, and whom: the node that was chosen, or any."""
    if entry_id := call.data.get(ATTR_CONFIG_ENTRY_ID):
        chosen: EdgeAgentConfigEntry = async_get_config_entry(call.hass, DOMAIN, entry_id)
        return chosen.runtime_data, chosen.runtime_data.node
    coordinators = _coordinators(call.hass)
    if not coordinators:
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="no_node")
    return next((each for each in coordinators if each.root == DEFAULT_ROOT), coordinators[0]), POOL


def _body(data: Mapping[str, Any], structure: probatio.Schema | None) -> dict[str, Any]:
    """The request; raises `ServiceValidationError` for fields that do not go together."""
    prompt, template = data.get(ATTR_PROMPT), data.get(ATTR_TEMPLATE)
    if (prompt is None) == (template is None):
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="prompt_or_template")
    if template is None and ATTR_VARIABLES in data:
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="variables_without_template")
    edge: dict[str, Any] = {"priority": data[ATTR_PRIORITY]}
    body: dict[str, Any] = {"edge": edge}
    if template is not None:
        edge |= {"template": template, "vars": data.get(ATTR_VARIABLES, {})}
    system = data.get(ATTR_SYSTEM_PROMPT)
    messages = [("system", system), ("user", prompt)]
    if given := [{"role": role, "content": text} for role, text in messages if text is not None]:
        body["messages"] = given  # A template brings its own.
    body |= {name: data[name] for name in (CONF_MAX_TOKENS, CONF_TEMPERATURE) if name in data}
    if structure:
        body["response_format"] = response_format(structure)
    return body


async def _complete(coordinator: NodeCoordinator, body: dict[str, Any], target: str, timeout_s: float) -> Reply:
    if not coordinator.connected:
        raise AgentError("broker_lost")
    with wire_errors(MANUFACTURER if target == POOL else target):
        return await coordinator.client.complete(body, target=target, timeout_s=timeout_s)


async def _cancel_all(call: ServiceCall) -> ServiceResponse:
    """Stop every request of this Home Assistant; returns how many there were."""
    clients = {id(each.client): each.client for each in _coordinators(call.hass)}
    cancelled = sum([await client.cancel_all() for client in clients.values()])
    return {"cancelled": cancelled} if call.return_response else None


async def _reload(call: ServiceCall) -> None:
    """Have a node load its model and its configuration anew."""
    entry: EdgeAgentConfigEntry = async_get_config_entry(call.hass, DOMAIN, call.data[ATTR_CONFIG_ENTRY_ID])
    coordinator = entry.runtime_data
    if not coordinator.connected:
        raise AgentError("broker_lost")
    client, node = coordinator.client, coordinator.node
    with wire_errors(node):
        try:
            await client.order(node, "reload")
        except WireError as error:
            if error.code.name not in ("expired", "forbidden"):
                raise
            # A node is silent, or refuses, until its configuration names who may give orders.
            raise AgentError("not_operator", error.code.name, node=node, client=client.name) from error


def _coordinators(hass: HomeAssistant) -> list[NodeCoordinator]:
    entries: list[EdgeAgentConfigEntry] = hass.config_entries.async_entries(DOMAIN)
    return [entry.runtime_data for entry in entries if entry.state is ConfigEntryState.LOADED]
