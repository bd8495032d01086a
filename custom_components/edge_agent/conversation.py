"""The conversation agent: streams the model's answer, lets it act, and has its prefix read before it is needed."""

from typing import Final, Literal, override

from homeassistant.components import conversation
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT, MATCH_ALL
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import (
    CONF_CONFIRM,
    CONF_CONTINUE,
    CONF_LOCAL_STATES,
    CONF_PREFILL,
    CONF_TIMEOUT,
    CONFIRM_MODEL,
    CONTINUE_ALWAYS,
    CONTINUE_ASKED,
    CONVERSATION,
    DEFAULT_PROMPT,
    DEFAULT_TIMEOUT_S,
    DOMAIN,
    LOGGER,
)
from .coordinator import EdgeAgentConfigEntry, NodeCoordinator
from .entity import ModelEntity
from .errors import AgentError
from .prefix import PrefixKeeper
from .prompt import Prefix

PARALLEL_UPDATES = 0
_PREPARE_S: Final = 300.0
"""How long a node may take to read the prefix: at 13 tokens a second some hundred tokens take half a minute."""


async def async_setup_entry(
    hass: HomeAssistant, entry: EdgeAgentConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Set up one agent per subentry."""
    for subentry in entry.get_subentries_of_type(CONVERSATION):
        agent = EdgeAgentConversation(entry.runtime_data, subentry)
        async_add_entities([agent], config_subentry_id=subentry.subentry_id)


class EdgeAgentConversation(ModelEntity, conversation.ConversationEntity, conversation.AbstractConversationAgent):
    """One agent."""

    _attr_supports_streaming = True

    def __init__(self, coordinator: NodeCoordinator, subentry: ConfigSubentry) -> None:
        super().__init__(coordinator, subentry)
        self._api_ids: list[str] = self.options.get(CONF_LLM_HASS_API, [])
        self._prompt: str = self.options.get(CONF_PROMPT) or DEFAULT_PROMPT
        self._timeout_s = float(self.options.get(CONF_TIMEOUT, DEFAULT_TIMEOUT_S))
        self._reading = False
        if self._api_ids and not self.options.get(CONF_LOCAL_STATES, True):
            self._attr_supported_features = conversation.ConversationEntityFeature.CONTROL

    @property
    @override
    def supported_languages(self) -> list[str] | Literal["*"]:
        return MATCH_ALL

    @override
    async def async_added_to_hass(self) -> None:
        await super().async_added_to_hass()
        self._keeper = PrefixKeeper(self.hass, self.entity_id, self._api_ids, self._prompt, self._read_ahead)
        self.async_on_remove(self._keeper.start())
        self.async_on_remove(lambda: self.note(None))
        conversation.async_set_agent(self.hass, self.coordinator.config_entry, self)

    @override
    async def async_will_remove_from_hass(self) -> None:
        conversation.async_unset_agent(self.hass, self.coordinator.config_entry)
        await super().async_will_remove_from_hass()

    @override
    async def async_prepare(self, language: str | None = None) -> None:
        """Have the node read the prefix while the user is still speaking."""
        self._read_ahead()

    async def prepare(self) -> None:
        """Have the node read the prefix; raises `AgentError` when it does not, and an issue when it cannot."""
        await self._prepare(await self._keeper.current())

    async def _prepare(self, prefix: Prefix) -> None:
        body = prefix.begin([])
        body["edge"] = {**body.get("edge", {}), "op": "prepare"}
        try:
            await self.complete(body, timeout_s=_PREPARE_S)
        except AgentError as error:
            self.note(error)
            raise
        self.note(None)

    @override
    async def _async_handle_message(
        self, user_input: conversation.ConversationInput, chat_log: conversation.ChatLog
    ) -> conversation.ConversationResult:
        try:
            await chat_log.async_provide_llm_data(
                user_input.as_llm_context(DOMAIN), self._api_ids, self._prompt, user_input.extra_system_prompt
            )
        except conversation.ConverseError as error:
            return error.as_conversation_result()
        try:
            turn = self.turn(
                chat_log,
                await self._keeper.current(chat_log.llm_api),
                area=area_of(self.hass, user_input.device_id),
                priority="voice",
                timeout_s=self._timeout_s,
            )
            await turn.converse(user_input.language, confirm=self.options.get(CONF_CONFIRM) != CONFIRM_MODEL)
        except AgentError as error:
            self.note(error)
            await error.localise(self.hass, user_input.language)
            raise
        self.note(None)
        result = conversation.async_get_result_from_chat_log(user_input, chat_log)
        if (after := self.options.get(CONF_CONTINUE, CONTINUE_ASKED)) != CONTINUE_ASKED:
            result.continue_conversation = after == CONTINUE_ALWAYS
        return result

    @callback
    @override
    def _presence(self) -> None:
        if self.available and not self._was_available and self.hass.is_running:
            self._read_ahead()
        super()._presence()

    @callback
    def _read_ahead(self) -> None:
        """Have the prefix read in advance, if the user wants that, once at a time."""
        if self._reading or not self.available or not self.options.get(CONF_PREFILL, True):
            return
        self._reading = True
        entry = self.coordinator.config_entry
        entry.async_create_background_task(self.hass, self._read(), f"{DOMAIN} read ahead")

    async def _read(self) -> None:
        """Read until nothing has changed meanwhile; what goes wrong is told when it matters."""
        read: Prefix | None = None
        try:
            while (prefix := await self._keeper.current()) != read:
                await self._prepare(prefix)
                read = prefix
        except HomeAssistantError as error:
            LOGGER.debug("The prefix of %s was not read in advance: %s", self.entity_id, error)
        finally:
            self._reading = False


@callback
def area_of(hass: HomeAssistant, device_id: str | None) -> str | None:
    """The name of the area that a device is in."""
    device = dr.async_get(hass).async_get(device_id) if device_id else None
    area_id = dr.async_get_effective_area_id(hass, device) if device else None
    area = ar.async_get(hass).async_get_area(area_id) if area_id else None
    return area.name if area else None
