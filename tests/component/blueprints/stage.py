from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, override

from homeassistant.components import ai_task, conversation
from homeassistant.exceptions import HomeAssistantError

ROOT = Path(__file__).parents[3] / "blueprints"
SITE = "https://github.com/edge-agent/edge-agent/blob/main/blueprints"
MODEL = "ai_task.model"

Use = Callable[..., Awaitable[None]]
Add = Callable[..., Awaitable[None]]


class Model(ai_task.AITaskEntity):
    """Answers what a test wrote down for it, and remembers what it was asked."""

    _attr_name = "model"
    _attr_supported_features = ai_task.AITaskEntityFeature.GENERATE_DATA

    def __init__(self) -> None:
        self.entity_id = MODEL
        self.answers = deque[Any]()
        self.asked: list[ai_task.GenDataTask] = []

    @override
    async def _async_generate_data(
        self, task: ai_task.GenDataTask, chat_log: conversation.ChatLog
    ) -> ai_task.GenDataTaskResult:
        self.asked.append(task)
        if not self.answers:
            raise HomeAssistantError("the node is away")
        return ai_task.GenDataTaskResult(chat_log.conversation_id, self.answers.popleft())
