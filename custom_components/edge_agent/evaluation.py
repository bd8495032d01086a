"""Questions with few answers, weighed: the model does not write, it is asked how likely it would write each of them."""

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from homeassistant.components import ai_task
from homeassistant.helpers.json import json_dumps

from .answer import weights
from .entity import ModelEntity
from .errors import AgentError, wire_errors

if TYPE_CHECKING:
    from homeassistant.components.ai_task import (
        EvaluationAnswer,
        EvaluationQuestion,
        EvaluationTask,
        EvaluationTaskResult,
    )

FEATURE: Final = getattr(ai_task.AITaskEntityFeature, "EVALUATE", ai_task.AITaskEntityFeature(0))
"""Nothing, before Home Assistant 2026.11."""

_INSTRUCTIONS: Final = "You judge the situation of a home. Answer with one of the given answers alone."
_YES, _NO = "Yes", "No"
_LETTERS: Final = string.ascii_uppercase


async def evaluate(entity: ModelEntity, task: EvaluationTask, timeout_s: float) -> EvaluationTaskResult:
    """Answer every question with its probabilities; raises `AgentError`.

    The state stands before the questions, so that a node reads it once. Choices and levels are weighed by a letter
    each: longer names would be less likely for their length alone.
    """
    answers = {}
    for name, question in task.questions.items():
        choices, listed = _choices(question)
        messages = _messages(task, f"{question['instructions']}\n{listed}")
        body = {"messages": messages, "edge": {"op": "score", "choices": choices, "priority": "normal"}}
        reply = await entity.complete(body, timeout_s=timeout_s)
        with wire_errors(reply.node):
            weighed = weights(reply)
        if weighed.keys() != set(choices):
            raise AgentError("no_scores")
        answers[name] = _answer(question, [weighed[choice] for choice in choices])
    return ai_task.EvaluationTaskResult(answers)


def _messages(task: EvaluationTask, question: str) -> list[dict[str, str]]:
    state = task.state if isinstance(task.state, str) else json_dumps(task.state)
    about = f"{task.name}\n{state}" if task.state is not None else task.name
    return [
        {"role": "system", "content": f"{_INSTRUCTIONS}\n\n{about}"},
        {"role": "user", "content": question},
    ]


def _choices(question: EvaluationQuestion) -> tuple[list[str], str]:
    """What the model chooses from, and how that is put to it."""
    if question["type"] == "noul":
        return [_YES, _NO], f"Answer {_YES} or {_NO}."
    criteria: Mapping[str, str] | Sequence[str] = question["criteria"]
    if len(criteria) > len(_LETTERS):
        raise AgentError("too_many_choices", limit=len(_LETTERS))
    texts = [f"{name}: {text}" for name, text in criteria.items()] if isinstance(criteria, Mapping) else list(criteria)
    letters = [*_LETTERS[: len(texts)]]
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    return letters, f"{listed}\nAnswer with the letter."


def _answer(question: EvaluationQuestion, shares: list[float]) -> EvaluationAnswer:
    match question["type"]:
        case "noul":
            return ai_task.NoulAnswer(shares[0])
        case "choice":
            probabilities = dict(zip(question["criteria"], shares, strict=True))
            return ai_task.ChoiceAnswer(max(probabilities, key=lambda name: probabilities[name]), probabilities)
        case _:
            return ai_task.ScoreAnswer(sum(level * share for level, share in enumerate(shares)), shares)
