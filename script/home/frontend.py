"""Home Assistant as its frontend sees it: REST and WebSocket, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp

_PATIENCE_S: Final = 30.0
_MAX_MESSAGE: Final = 64 << 20

JSON = dict[str, Any]


class Refused(Exception):
    """Home Assistant answered with an error: `code` and what it says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Home:
    """One user's connection. Every wait has a limit, and raises `TimeoutError` beyond it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.url = url
        self._session = session
        self._socket = socket
        self._id = 0
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._events: dict[int, asyncio.Queue[Any]] = {}

    # The two transports

    async def rest(self, method: str, path: str, body: object = None) -> Any:
        """One REST request; its JSON, or its text."""
        async with self._session.request(method, self.url + path, json=body) as answer:
            if answer.status >= 400:
                raise Refused(str(answer.status), await answer.text())
            return await (answer.json() if answer.content_type == "application/json" else answer.text())

    async def call(self, command: str, **data: Any) -> Any:
        """One WebSocket command and its result."""
        number, result = await self._send({"type": command, **data})
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await result
        finally:
            del self._results[number]

    @asynccontextmanager
    async def subscription(self, command: str, **data: Any) -> AsyncIterator[asyncio.Queue[Any]]:
        """A WebSocket command that is answered by events; they come out of the queue."""
        events: asyncio.Queue[Any] = asyncio.Queue()
        number, result = await self._send({"type": command, **data}, events)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await result
            yield events
            with suppress(Refused):  # Some end by themselves.
                await self.call("unsubscribe_events", subscription=number)
        finally:
            del self._results[number], self._events[number]

    async def _send(self, message: JSON, events: asyncio.Queue[Any] | None = None) -> tuple[int, asyncio.Future[Any]]:
        self._id += 1
        number = self._id
        self._results[number] = asyncio.get_running_loop().create_future()
        if events is not None:
            self._events[number] = events
        await self._socket.send_json({"id": number, **message})
        return number, self._results[number]

    async def read(self) -> None:
        """Bring what comes to whoever waits for it, until the connection ends."""
        async for frame in self._socket:
            messages = frame.json()
            for message in messages if isinstance(messages, list) else [messages]:
                self._heard(message)
        for result in self._results.values():
            if not result.done():
                result.set_exception(ConnectionError("Home Assistant closed the connection"))

    def _heard(self, message: JSON) -> None:
        number = message.get("id", 0)
        if message["type"] == "event" and number in self._events:
            self._events[number].put_nowait(message["event"])
        elif (result := self._results.get(number)) and not result.done():
            if message.get("success", True):
                result.set_result(message.get("result"))
            else:
                result.set_exception(Refused(message["error"]["code"], message["error"]["message"]))

    # States and services

    async def states(self) -> dict[str, JSON]:
        """Every state by its entity."""
        return {state["entity_id"]: state for state in await self.call("get_states")}

    async def state(self, entity: str) -> JSON:
        return (await self.states())[entity]

    async def until(self, entity: str, holds: Callable[[JSON], object], patience_s: float = _PATIENCE_S) -> JSON:
        """Wait until an entity has a state of which this holds."""
        async with self.subscription("subscribe_events", event_type="state_changed") as events:
            state = (await self.states()).get(entity)
            async with asyncio.timeout(patience_s):
                while state is None or not holds(state):
                    event = await events.get()
                    if event["data"]["entity_id"] == entity:
                        state = event["data"]["new_state"]
            return state

    async def service(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        target: Mapping[str, Any] | None = None,
        returns: bool = False,
    ) -> Any:
        """Call `domain.service`; its response if it returns one."""
        domain, _, service = name.partition(".")
        request = {"domain": domain, "service": service, "service_data": dict(data or {}), "return_response": returns}
        if target is not None:
            request["target"] = dict(target)
        return (await self.call("call_service", **request)).get("response")

    # Config entries and their flows

    async def flow(self, handler: str, *answers: JSON) -> JSON:
        """Start a config flow as a user does, and answer its forms; the last step."""
        return await self._flow("flow", {"handler": handler}, *answers)

    async def reconfigure(self, entry: JSON, *answers: JSON) -> JSON:
        """The flow that changes an entry."""
        return await self._flow("flow", {"handler": entry["domain"], "entry_id": entry["entry_id"]}, *answers)

    async def subentry_flow(self, entry: JSON, kind: str, *answers: JSON, subentry: str | None = None) -> JSON:
        """The flow that adds a subentry to an entry, or changes the one named."""
        start = {"handler": [entry["entry_id"], kind]} | ({"subentry_id": subentry} if subentry else {})
        return await self._flow("subentries/flow", start, *answers)

    async def answer(self, flow: str, answer: JSON, path: str = "flow") -> JSON:
        """Answer the form that a flow shows."""
        step: JSON = await self.rest("POST", f"/api/config/config_entries/{path}/{flow}", answer)
        return step

    async def _flow(self, path: str, start: JSON, *answers: JSON) -> JSON:
        step: JSON = await self.rest("POST", f"/api/config/config_entries/{path}", start)
        for answer in answers:
            step = await self.answer(step["flow_id"], answer, path)
        return step

    async def discovered(self, handler: str, unique_id: str | None = None, patience_s: float = _PATIENCE_S) -> JSON:
        """Wait until something offers to be set up by this integration; the flow that does."""
        async with self.subscription("config_entries/flow/subscribe") as events, asyncio.timeout(patience_s):
            while True:
                for change in await events.get():
                    flow: JSON = change.get("flow") or {}
                    mine = flow.get("handler") == handler and unique_id in (None, flow["context"].get("unique_id"))
                    if change["type"] != "removed" and mine:
                        return flow

    async def entry(
        self, domain: str, state: str = "loaded", *, entry_id: str | None = None, patience_s: float = _PATIENCE_S
    ) -> JSON:
        """Wait until an entry of this domain, or the one named, is in this state."""
        async with self.subscription("config_entries/subscribe") as events, asyncio.timeout(patience_s):
            while True:
                for change in await events.get():
                    entry: JSON = change["entry"]
                    mine = (entry["domain"], entry["state"]) == (domain, state)
                    if change["type"] != "removed" and mine and entry_id in (None, entry["entry_id"]):
                        return entry

    # Assist

    async def run_pipeline(
        self, text: str, *, pipeline: str | None = None, conversation: str | None = None, patience_s: float = 90
    ) -> list[JSON]:
        """Say something to Assist, as its dialog does; every event of the run."""
        request: JSON = {"start_stage": "intent", "end_stage": "intent", "input": {"text": text}}
        request |= {"pipeline": pipeline} if pipeline else {}
        request |= {"conversation_id": conversation} if conversation else {}
        heard: list[JSON] = []
        async with self.subscription("assist_pipeline/run", **request) as events, asyncio.timeout(patience_s):
            while not heard or heard[-1]["type"] != "run-end":
                heard.append(await events.get())
        return heard


@asynccontextmanager
async def signed_in(url: str, token: str) -> AsyncIterator[Home]:
    """Connect as the user of an access token."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(f"{url}/api/websocket", max_msg_size=_MAX_MESSAGE) as socket,
    ):
        await socket.receive_json()  # auth_required
        await socket.send_json({"type": "auth", "access_token": token})
        answer = await socket.receive_json()
        if answer["type"] != "auth_ok":
            raise Refused(answer["type"], answer.get("message", ""))
        home = Home(url, session, socket)
        reading = asyncio.create_task(home.read(), name="home assistant")
        try:
            yield home
        finally:
            reading.cancel()
            await asyncio.wait([reading])
