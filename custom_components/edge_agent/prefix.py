"""The prefix of an agent: written from what the home exposes, kept until that changes, read by the node in advance."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from homeassistant.components.conversation import ConversationInput
from homeassistant.components.homeassistant.exposed_entities import async_listen_entity_updates, async_should_expose
from homeassistant.const import EVENT_CORE_CONFIG_UPDATE, EVENT_STATE_CHANGED
from homeassistant.core import CALLBACK_TYPE, Context, EventStateChangedData, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import (
    area_registry as ar,
)
from homeassistant.helpers import (
    device_registry as dr,
)
from homeassistant.helpers import (
    entity_registry as er,
)
from homeassistant.helpers import (
    floor_registry as fr,
)
from homeassistant.helpers import (
    llm,
    template,
)
from homeassistant.helpers.debounce import Debouncer
from homeassistant.helpers.start import async_at_started
from homeassistant.util.event_type import EventType

from .const import DOMAIN, LOGGER
from .house.ground import ground
from .house.model import House
from .house.survey import take
from .prompt import Prefix, common_lines

ASSISTANT: Final = "conversation"
_SETTLE_S: Final = 3.0
"""Changes of the home come in bursts: so long after the first the prefix is written anew."""
_SATELLITES: Final = 8
"""So many satellites are asked which tools they add: more are of the same few kinds."""
_REGISTRIES: Final[tuple[EventType[Any], ...]] = (
    er.EVENT_ENTITY_REGISTRY_UPDATED,
    dr.EVENT_DEVICE_REGISTRY_UPDATED,
    ar.EVENT_AREA_REGISTRY_UPDATED,
    fr.EVENT_FLOOR_REGISTRY_UPDATED,
)


class PrefixKeeper:
    """Writes the prefix of one agent when it is asked for, and again after the home has changed.

    `announce` is called once Home Assistant has started, and whenever the prefix has become another.
    """

    def __init__(
        self,
        hass: HomeAssistant,
        agent_id: str,
        api_ids: list[str],
        prompt: str,
        announce: Callable[[], None],
    ) -> None:
        self._hass = hass
        self._agent_id = agent_id
        self._api_ids = api_ids
        self._prompt = prompt
        self._announce = announce
        self._prefix: Prefix | None = None
        self._stale = True
        self._lock = asyncio.Lock()
        self._satellites: set[str] = set()
        self._debouncer = Debouncer(
            hass, LOGGER, cooldown=_SETTLE_S, immediate=False, function=self._renew, background=True
        )

    @callback
    def start(self) -> Callable[[], None]:
        """Watch the home; returns what ends that."""
        bus = self._hass.bus
        ends: list[CALLBACK_TYPE] = [bus.async_listen(event, self._changed) for event in _REGISTRIES]
        ends.append(bus.async_listen(EVENT_STATE_CHANGED, self._changed, event_filter=self._concerns))
        ends.append(bus.async_listen(EVENT_CORE_CONFIG_UPDATE, self._changed))
        ends.append(async_listen_entity_updates(self._hass, ASSISTANT, self._changed))
        ends.append(async_at_started(self._hass, self._changed))
        ends.append(self._debouncer.async_shutdown)

        @callback
        def end() -> None:
            for each in ends:
                each()

        return end

    async def current(self, llm_api: llm.APIInstance | None = None) -> Prefix:
        """The prefix as the home is now; `llm_api` is what a conversation was given, which may bring a new tool."""
        if llm_api and self._prefix and (device_id := llm_api.llm_context.device_id):
            had = self._prefix.safe_names
            if device_id not in self._satellites and any(tool.name not in had for tool in llm_api.tools):
                self._satellites.add(device_id)
                self._stale = True
        async with self._lock:
            if self._prefix is None or self._stale:
                try:
                    self._stale = False
                    self._prefix = await self._write()
                except BaseException as error:
                    self._stale = True  # Also when a turn is cancelled over it.
                    if llm_api is None or not isinstance(error, HomeAssistantError):
                        raise
                    return self._own(llm_api)
        return self._prefix

    async def _renew(self) -> None:
        before = self._prefix
        try:
            now = await self.current()
        except HomeAssistantError as error:  # An API that is gone, or given to administrators alone.
            LOGGER.debug("The prefix of %s is not written in advance: %s", self._agent_id, error)
            return
        if before != now:
            self._announce()

    @callback
    def _changed(self, _: object = None) -> None:
        self._stale = True
        if self._hass.is_running:
            self._debouncer.async_schedule_call()

    @callback
    def _concerns(self, data: EventStateChangedData) -> bool:
        """Whether something that is exposed appears, disappears or is called something else."""
        old, new = data["old_state"], data["new_state"]
        if new is None:
            return True
        changes = old is None or old.name != new.name
        return changes and async_should_expose(self._hass, ASSISTANT, data["entity_id"])

    async def _write(self) -> Prefix:
        house = take(self._hass, ASSISTANT)
        if not self._api_ids:
            return Prefix(self._instructions(self._context(None)), ground((), None, House()), house)
        texts: list[str] = []
        tools: dict[str, llm.Tool] = {}
        serializer = None
        for device_id in (None, *self._devices()):
            context = self._context(device_id)
            api = await llm.async_get_api(self._hass, self._api_ids, context)
            texts.append(f"{self._instructions(context)}\n{api.api_prompt}")
            tools.update({tool.name: tool for tool in api.tools})
            serializer = api.custom_serializer
            await asyncio.sleep(0)  # Each takes some milliseconds, and others wait for the loop.
        return Prefix(common_lines(texts), ground([*tools.values()], serializer, house), house)

    def _own(self, api: llm.APIInstance) -> Prefix:
        """The prefix of one conversation: an API for administrators is given to nobody in particular."""
        house = take(self._hass, ASSISTANT)
        system = f"{self._instructions(api.llm_context)}\n{api.api_prompt}".strip()
        return Prefix(system, ground(api.tools, api.custom_serializer, house), house)

    def _devices(self) -> list[str]:
        """Satellites: what differs between them is no part of the prefix, and all their tools are."""
        registry = er.async_get(self._hass)
        found = {entry.device_id for entry in registry.entities.values() if entry.domain == "assist_satellite"}
        others = {each for each in found if each} - self._satellites
        return [*sorted(self._satellites), *sorted(others)][:_SATELLITES]

    def _context(self, device_id: str | None) -> llm.LLMContext:
        """The context of somebody who speaks from this device, as this version of Home Assistant makes it."""
        return ConversationInput(
            text="",
            context=Context(),
            conversation_id=None,
            device_id=device_id,
            satellite_id=None,
            language=self._hass.config.language,
            agent_id=self._agent_id,
        ).as_llm_context(DOMAIN)

    def _instructions(self, context: llm.LLMContext) -> str:
        """The user's prompt, unless it looks at states or at the clock: then it is no part of a prefix."""
        texts = []
        for user in ("", "\0"):  # What differs between users is no part of it either.
            variables = {"ha_name": self._hass.config.location_name, "user_name": user, "llm_context": context}
            info = template.Template(self._prompt, self._hass).async_render_to_info(variables, parse_result=False)
            watches = (info.has_time, info.all_states, info.all_states_lifecycle, info.domains, info.domains_lifecycle)
            if info.exception or info.entities or any(watches):
                return ""  # A prompt that cannot be rendered is reported by the conversation that needs it.
            texts.append(str(info.result()))
        return common_lines(texts)
