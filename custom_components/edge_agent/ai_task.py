"""AI tasks: data in the structure that was asked for, and judgements with the model's own probabilities."""

from typing import Any, override

from homeassistant.components import ai_task, conversation
from homeassistant.components.ai_task.const import DEFAULT_SYSTEM_PROMPT
from homeassistant.core import HomeAssistant
from homeassistant.helpers import llm
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from . import evaluation
from .const import AI_TASK_DATA, CONF_TIMEOUT, DEFAULT_TASK_TIMEOUT_S
from .coordinator import EdgeAgentConfigEntry
from .entity import ModelEntity
from .errors import AgentError
from .house.ground import ground
from .house.model import House
from .house.survey import take
from .prompt import Prefix
from .structure import data_of, response_format

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: EdgeAgentConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Set up one AI task entity per subentry."""
    for subentry in entry.get_subentries_of_type(AI_TASK_DATA):
        entity = EdgeAgentTask(entry.runtime_data, subentry)
        async_add_entities([entity], config_subentry_id=subentry.subentry_id)


class EdgeAgentTask(ModelEntity, ai_task.AITaskEntity):
    """Works for automations: behind whoever is speaking, and with more time."""

    _attr_supported_features = ai_task.AITaskEntityFeature.GENERATE_DATA | evaluation.FEATURE

    @override
    async def _async_generate_data(
        self, task: ai_task.GenDataTask, chat_log: conversation.ChatLog
    ) -> ai_task.GenDataTaskResult:
        if task.attachments:
            raise AgentError("attachments")
        prefix = _prefix(self.hass, chat_log)
        turn = self.turn(chat_log, prefix, area=None, priority="normal", timeout_s=self._timeout_s)
        more: dict[str, Any] = {}
        if task.structure:
            api = chat_log.llm_api
            more["response_format"] = response_format(
                task.structure, api.custom_serializer if api else llm.selector_serializer
            )
        answer = await turn.complete(**more)
        last = chat_log.content[-1]
        text = last.content or "" if isinstance(last, conversation.AssistantContent) else ""
        data = data_of(text, answer.reader.finish_reason) if task.structure else text
        return ai_task.GenDataTaskResult(conversation_id=chat_log.conversation_id, data=data)

    async def _async_evaluate(self, task: ai_task.EvaluationTask) -> ai_task.EvaluationTaskResult:
        """Weigh the answers to each question; Home Assistant 2026.11 and later ask for it."""
        if task.attachments:
            raise AgentError("attachments")
        return await evaluation.evaluate(self, task, self._timeout_s)

    @property
    def _timeout_s(self) -> float:
        return float(self.options.get(CONF_TIMEOUT, DEFAULT_TASK_TIMEOUT_S))


def _prefix(hass: HomeAssistant, chat_log: conversation.ChatLog) -> Prefix:
    """What all tasks with these tools begin with; the date and the time, which Home Assistant adds, come later."""
    api = chat_log.llm_api
    if api is None:
        return Prefix(DEFAULT_SYSTEM_PROMPT, ground((), None, House()), House())
    house = take(hass, api.llm_context.assistant)
    tools = ground(api.tools, api.custom_serializer, house)
    return Prefix(f"{DEFAULT_SYSTEM_PROMPT}\n{api.api_prompt}".strip(), tools, house)
