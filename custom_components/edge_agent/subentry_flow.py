"""The uses of a node, conversation and AI tasks, and what can be set for each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import probatio
from homeassistant.config_entries import SOURCE_USER, ConfigEntryState, ConfigSubentryFlow, SubentryFlowResult
from homeassistant.const import CONF_LLM_HASS_API, CONF_NAME, CONF_PROMPT, UnitOfTime
from homeassistant.data_entry_flow import section
from homeassistant.helpers import llm
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TemplateSelector,
    TextSelector,
)

from .const import (
    CONF_CONFIRM,
    CONF_CONTINUE,
    CONF_LOCAL_STATES,
    CONF_MAX_TOKENS,
    CONF_PREFILL,
    CONF_TARGET,
    CONF_TEMPERATURE,
    CONF_TIMEOUT,
    CONFIRM_MODEL,
    CONFIRM_SHORT,
    CONTINUE_ALWAYS,
    CONTINUE_ASKED,
    CONTINUE_NEVER,
    DEFAULT_PROMPT,
    DEFAULT_TASK_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    MANUFACTURER,
    SECTION_ADVANCED,
    TARGET_ANY,
    TARGET_NODE,
)

CONVERSATION_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        CONF_PROMPT: DEFAULT_PROMPT,
        CONF_LLM_HASS_API: [llm.LLM_API_ASSIST],
        CONF_TARGET: TARGET_NODE,
        CONF_TIMEOUT: DEFAULT_TIMEOUT_S,
        CONF_LOCAL_STATES: True,
        CONF_CONTINUE: CONTINUE_ASKED,
        CONF_CONFIRM: CONFIRM_SHORT,
        CONF_PREFILL: True,
    }
)
TASK_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {CONF_TARGET: TARGET_NODE, CONF_TIMEOUT: DEFAULT_TASK_TIMEOUT_S}
)
_MAX_TOKENS: Final = 32768
_MAX_TIMEOUT_S: Final = 3600

type _Fields = dict[probatio.Required | probatio.Optional, Any]


class _UseFlow(ConfigSubentryFlow):
    """One form, for a new subentry and for one that is there; its fields are stored flat."""

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]]

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Add one."""
        return await self.async_step_init(user_input)

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Change one."""
        return await self.async_step_init(user_input)

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Show the form, and store what was put in."""
        entry = self._get_entry()
        if entry.state is not ConfigEntryState.LOADED:
            return self.async_abort(reason="entry_not_loaded")
        new = self.source == SOURCE_USER
        if user_input is not None:
            options = {**user_input, **user_input.get(SECTION_ADVANCED, {})}
            options.pop(SECTION_ADVANCED, None)
            if new:
                return self.async_create_entry(title=options.pop(CONF_NAME), data=options)
            return self.async_update_and_abort(entry, self._get_reconfigure_subentry(), data=options)
        options = dict(self.defaults if new else self._get_reconfigure_subentry().data)
        fields: _Fields = {probatio.Required(CONF_NAME): TextSelector()} if new else {}
        advanced = section(probatio.Schema(self._advanced()), {"collapsed": True})
        schema = probatio.Schema({**fields, **self._fields(), probatio.Required(SECTION_ADVANCED): advanced})
        suggested = self._known(options) | {CONF_NAME: f"{MANUFACTURER} {entry.title}{self.name}"}
        return self.async_show_form(
            step_id="init",
            data_schema=self.add_suggested_values_to_schema(schema, suggested | {SECTION_ADVANCED: suggested}),
        )

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        """Drop what has gone since it was chosen."""
        return options

    def _fields(self) -> _Fields:
        return {probatio.Required(CONF_TARGET, default=TARGET_NODE): _choice(CONF_TARGET, TARGET_NODE, TARGET_ANY)}

    def _advanced(self) -> _Fields:
        return {
            probatio.Optional(CONF_MAX_TOKENS): _whole(1, _MAX_TOKENS),
            probatio.Optional(CONF_TEMPERATURE): NumberSelector(
                NumberSelectorConfig(min=0, max=2, step=0.05, mode=NumberSelectorMode.BOX)
            ),
            probatio.Required(CONF_TIMEOUT, default=self.defaults[CONF_TIMEOUT]): _whole(
                5, _MAX_TIMEOUT_S, UnitOfTime.SECONDS
            ),
        }


class ConversationFlow(_UseFlow):
    """A conversation agent."""

    name = ""
    defaults = CONVERSATION_DEFAULTS

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        known = {api.id for api in llm.async_get_apis(self.hass)}
        return options | {CONF_LLM_HASS_API: [each for each in options.get(CONF_LLM_HASS_API, ()) if each in known]}

    def _fields(self) -> _Fields:
        apis = [SelectOptionDict(value=api.id, label=api.name) for api in llm.async_get_apis(self.hass)]
        return {
            probatio.Optional(CONF_PROMPT): TemplateSelector(),
            probatio.Optional(CONF_LLM_HASS_API, default=[]): SelectSelector(
                SelectSelectorConfig(options=apis, multiple=True, mode=SelectSelectorMode.LIST)
            ),
            **super()._fields(),
        }

    def _advanced(self) -> _Fields:
        return {
            probatio.Required(CONF_CONFIRM, default=CONFIRM_SHORT): _choice(CONF_CONFIRM, CONFIRM_SHORT, CONFIRM_MODEL),
            probatio.Required(CONF_CONTINUE, default=CONTINUE_ASKED): _choice(
                CONF_CONTINUE, CONTINUE_NEVER, CONTINUE_ASKED, CONTINUE_ALWAYS
            ),
            probatio.Required(CONF_LOCAL_STATES, default=True): BooleanSelector(),
            probatio.Required(CONF_PREFILL, default=True): BooleanSelector(),
            **super()._advanced(),
        }


class AITaskFlow(_UseFlow):
    """AI tasks."""

    name = " AI task"
    defaults = TASK_DEFAULTS


def _choice(key: str, *values: str) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(options=[*values], translation_key=key, mode=SelectSelectorMode.DROPDOWN)
    )


def _whole(low: int, high: int, unit: str | None = None) -> probatio.All[Any]:
    config = NumberSelectorConfig(min=low, max=high, mode=NumberSelectorMode.BOX)
    if unit:
        config["unit_of_measurement"] = unit
    return probatio.All(NumberSelector(config), probatio.Coerce(int))
