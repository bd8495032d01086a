"""One turn of a conversation: ask the node, carry out what it calls, ask again, until it has answered."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from homeassistant.components import conversation
from homeassistant.helpers import llm

from .answer import AnswerReader, Call, Text, Thought
from .client import Client
from .const import MAX_ROUNDS
from .errors import AgentError, sentence, wire_errors
from .house import repair
from .house.confirm import Done, confirmation
from .house.speech import Speakable
from .prompt import Prefix, messages

_LEAST_S: Final = 0.1
"""The shortest time that the wire knows: a request that comes too late is refused by the node."""

type Delta = conversation.AssistantContentDeltaDict | conversation.ToolResultContentDeltaDict


@dataclass(slots=True)
class Round:
    """What came of asking the node once."""

    reader: AnswerReader = field(default_factory=AnswerReader)
    calls: dict[str, llm.ToolInput] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    """By id, the calls that cannot be made, and why."""
    results: list[conversation.ToolResultContent] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Answers a chat log. `target` is the wire's, `who` is the name a person knows it by."""

    client: Client
    target: str
    who: str
    agent_id: str
    chat_log: conversation.ChatLog
    prefix: Prefix
    area: str | None = None
    """Where whoever asks is."""
    sampling: Mapping[str, Any]
    """The fields of the request that say how to answer, as OpenAI names them."""
    priority: str
    deadline: float
    """On the monotonic clock: however often the model is asked, the turn ends by then."""

    async def converse(self, language: str, *, confirm: bool) -> None:
        """Speak, and act as often as it takes.

        `confirm` lets a sentence of ours stand for the model's after actions that all succeeded: the model need not
        run again. Calls that cannot be made are explained to the model once, and the second time to the user.
        """
        helpless = False
        for _ in range(MAX_ROUNDS):
            around = await self.ask(Speakable())
            if not self.chat_log.unresponded_tool_results:
                return
            if around.impossible and helpless:
                await self._say(await self._excuse(language, next(iter(around.impossible.values()))))
                return
            helpless = helpless or bool(around.impossible)
            if confirm and (text := self._confirmation(around, language)):
                await self._say(text)
                return
        await self._say(await sentence(self.chat_log.hass, language, "too_many_rounds"))

    async def complete(self, **more: Any) -> Round:
        """Answer in writing: act as often as it takes, and return the last round. `more` are fields of the request."""
        for _ in range(MAX_ROUNDS):
            around = await self.ask(**more)
            if not self.chat_log.unresponded_tool_results:
                return around
        raise AgentError("too_many_rounds")

    async def ask(self, voice: Speakable | None = None, **more: Any) -> Round:
        """Ask for the next message of the chat log, stream it in through `voice`, and have its calls carried out.

        Raises `AgentError` for every way in which the node does not answer. Cancelling it cancels the request.
        """
        around = Round()
        async with aclosing(self._deltas(self._body(more), voice, around)) as deltas:
            async for content in self.chat_log.async_add_delta_content_stream(self.agent_id, deltas):
                if isinstance(content, conversation.ToolResultContent):
                    around.results.append(content)
        self.chat_log.async_trace({"stats": _stats(around.reader)})
        last = self.chat_log.content[-1]
        wordless = isinstance(last, conversation.AssistantContent) and not last.content
        if wordless or isinstance(last, conversation.UserContent):
            raise AgentError("no_answer", node=self.who)
        return around

    def _body(self, more: Mapping[str, Any]) -> dict[str, Any]:
        body = self.prefix.begin(messages(self.prefix, self.chat_log.content))
        edge = {**body.get("edge", {}), "priority": self.priority, "trim": True}
        return {**body, **self.sampling, **more, "stream": True, "edge": edge}

    async def _deltas(self, body: Mapping[str, Any], voice: Speakable | None, around: Round) -> AsyncGenerator[Delta]:
        """The answer as deltas of a chat log; a call that cannot be made is answered right behind it."""
        yield {"role": "assistant"}
        left = max(_LEAST_S, round(self.deadline - time.monotonic(), 1))
        with wire_errors(self.who):
            async with aclosing(self.client.ask(body, target=self.target, timeout_s=left)) as replies:
                async for reply in replies:
                    for piece in around.reader.take(reply):
                        match piece:
                            case Text(text):
                                if spoken := voice.feed(text) if voice else text:
                                    yield {"content": spoken}
                            case Thought(text):
                                yield {"thinking_content": text}
                            case Call():
                                yield {"tool_calls": [self._call(piece, around)]}
        if voice and (rest := voice.finish()):
            yield {"content": rest}
        for id_, problem in around.impossible.items():
            yield {
                "role": "tool_result",
                "tool_call_id": id_,
                "tool_name": around.calls[id_].tool_name,
                "result": llm.ToolResult(data={"error": "impossible", "error_text": problem}, error=True),
            }

    def _call(self, call: Call, around: Round) -> llm.ToolInput:
        """The call as Home Assistant takes it, put right where the model got it nearly right."""
        grounded, external = self.prefix.grounded, False
        try:
            called = repair.tool_name(call.name, grounded.names)
            if called is None:
                raise repair.Impossible(f"there is no tool {call.name}")
            name, schema = grounded.names[called], grounded.parameters(called)
            arguments = repair.arguments(schema, call.arguments, self.prefix.house, defs=grounded.defs, area=self.area)
        except repair.Impossible as problem:
            name, arguments, external = call.name, {"given": call.arguments}, True
            around.impossible[call.id] = str(problem)
        around.calls[call.id] = llm.ToolInput(name, arguments, id=call.id, external=external)
        return around.calls[call.id]

    def _confirmation(self, around: Round, language: str) -> str | None:
        """What to say after actions that all succeeded; None if the model must say it."""
        tools = {tool.name: tool for tool in self.chat_log.llm_api.tools} if self.chat_log.llm_api else {}
        done: list[Done] = []
        for result in around.results:
            tool = tools.get(result.tool_name)
            if result.result.error or tool is None or tool.annotations.read_only:
                return None
            done.append(Done(result.tool_name, around.calls[result.tool_call_id].tool_args, result.result.data))
        return confirmation(language, done)

    async def _excuse(self, language: str, problem: str) -> str:
        """Why a call cannot be made; the words for the model are English, and spoken to those who speak it."""
        if language.partition("-")[0] == "en":
            return await sentence(self.chat_log.hass, language, "impossible", {"problem": problem})
        return await sentence(self.chat_log.hass, language, "impossible_plain")

    async def _say(self, text: str) -> None:
        async def deltas() -> AsyncGenerator[Delta]:
            yield {"role": "assistant"}
            yield {"content": text}

        async for _ in self.chat_log.async_add_delta_content_stream(self.agent_id, deltas()):
            pass


_STATS: Final = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def _stats(reader: AnswerReader) -> dict[str, Any]:
    """What a turn cost, by the names that Home Assistant's debug view shows."""
    usage = reader.usage
    details = usage.get("prompt_tokens_details") or {}
    counts = {name: usage.get(key, 0) for key, name in _STATS.items()}
    return {**counts, "cached_input_tokens": details.get("cached_tokens", 0), **reader.timings}
