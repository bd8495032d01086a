"""A real mosquitto, agents in this process, and a client that speaks the wire with no help of ours."""

import asyncio
import contextlib
import functools
import getpass
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.app import App
from edge_agent.client import ulid
from edge_agent.config.settings import Broker, Config, schema
from edge_agent.wire import OFFLINE, ONLINE, Reply, State, Topics, WireError, decode_reply, decode_state

TOPICS = Topics()
PATIENCE_S = 20


def pytest_collection_modifyitems(items):
    if shutil.which("mosquitto") is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no mosquitto on this machine"))


class Mosquitto:
    """A broker on a free port of this host; it may be killed, stopped and started again."""

    def __init__(self, folder: Path, *lines: str, port: int = 0) -> None:
        self.port = port or self._free_port()
        self._conf = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        lines = lines or (f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true")
        lines = (*(line.replace("@PORT@", str(self.port)) for line in lines), f"user {getpass.getuser()}")
        self._conf.write_text("\n".join(lines) + "\n")
        self._process = None

    @staticmethod
    def _free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(["mosquitto", "-c", self._conf], stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def mosquitto(tmp_path):
    """Make brokers: `mosquitto(*lines of its configuration)`."""
    made = []

    def make(*lines: str, port: int = 0) -> Mosquitto:
        folder = tmp_path / f"broker{len(made)}"
        folder.mkdir()
        made.append(Mosquitto(folder, *lines, port=port))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def broker(mosquitto) -> Mosquitto:
    return mosquitto()


@functools.lru_cache(maxsize=1 << 14)
def decoded(payload: bytes) -> Reply | None:
    """A message of an answer; None for bare text."""
    try:
        return decode_reply(payload)
    except WireError:
        return None


class Wire:
    """A client that only keeps what it receives: `out`, in order, and the presence of every node."""

    def __init__(self, client: aiomqtt.Client, name: str) -> None:
        self.name = name
        self.out: list[aiomqtt.Message] = []
        self.presence: dict[tuple[str, str], list[bytes]] = {}
        self._client = client
        self._changed = asyncio.Condition()

    async def read(self) -> None:
        async for message in self._client.messages:
            if "/out/" in message.topic.value:
                self.out.append(message)
            else:
                address = TOPICS.parse(message.topic.value)
                self.presence.setdefault((address.node, address.kind), []).append(message.payload)
            async with self._changed:
                self._changed.notify_all()

    async def watch(self, pattern: str) -> None:
        """Also keep in `out` what comes on these topics."""
        await self._client.subscribe(pattern, qos=1)

    async def publish(self, topic: str, payload: bytes | str = b"", *, retain: bool = False, **properties) -> None:
        extras = None
        if properties:
            extras = Properties(PacketTypes.PUBLISH)
            for key, value in properties.items():
                setattr(extras, key, value)
        await self._client.publish(topic, payload, qos=1, retain=retain, properties=extras)

    async def send(self, payload: dict | str | bytes, *, rid: str = "", to: str = "any", **options) -> str:
        """Send a request and return its rid."""
        rid = rid or ulid()
        data = json.dumps(payload) if isinstance(payload, dict) else payload
        await self.publish(TOPICS.request(to, self.name, rid), data, **options)
        return rid

    async def ask(self, text: str, *, to: str = "any", rid: str = "", properties=None, **body) -> str:
        message = {"messages": [{"role": "user", "content": text}], **body}
        return await self.send(message, to=to, rid=rid, **(properties or {}))

    async def cancel(self, rid: str, payload: bytes = b"") -> None:
        await self.publish(TOPICS.cancel(self.name, rid), payload)

    def replies(self, rid: str) -> list[Reply]:
        """What has come for this request so far."""
        return [reply for message in self.out if (reply := decoded(message.payload)) and reply.rid == rid]

    async def until(self, holds: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(patience_s), self._changed:
            await self._changed.wait_for(holds)

    async def answer(self, rid: str, patience_s: float = PATIENCE_S) -> list[Reply]:
        """All messages of an answer, once its final has come."""
        await self.until(lambda: any(reply.final for reply in self.replies(rid)), patience_s)
        return self.replies(rid)

    async def final(self, rid: str, patience_s: float = PATIENCE_S) -> Reply:
        return next(reply for reply in await self.answer(rid, patience_s) if reply.final)

    async def code(self, rid: str) -> str:
        """The code of the error that a request ends with."""
        return (await self.final(rid)).error().code.name

    def state(self, node: str) -> State | None:
        said = self.presence.get((node, "state"), [b""])[-1]
        return decode_state(said) if said else None

    def online(self, node: str) -> bool:
        return self.presence.get((node, "status"), [OFFLINE.encode()])[-1] == ONLINE.encode()

    async def phase(self, node: str, phase: str = "ready") -> State:
        """Wait until this node is online in this phase."""

        def there() -> bool:
            state = self.state(node)
            return self.online(node) and state is not None and state.phase == phase

        await self.until(there)
        return self.state(node)


@pytest.fixture
async def wire(broker):
    """Make clients: `await wire(name, protocol=…)`, connected until the test ends."""
    async with contextlib.AsyncExitStack() as stack:
        made = 0

        async def make(name: str = "", *, port: int = 0, protocol: str = "5", presence: bool = True, **login) -> Wire:
            nonlocal made
            made += 1
            version = aiomqtt.ProtocolVersion.V5 if protocol == "5" else aiomqtt.ProtocolVersion.V311
            client = aiomqtt.Client("127.0.0.1", port or broker.port, protocol=version, **login)
            client.pending_calls_threshold = 1 << 30
            await stack.enter_async_context(client)
            name = name or f"tester-{made}"
            made_wire = Wire(client, name)
            await client.subscribe(f"{TOPICS.out(name)}/#", qos=1)
            if presence:
                await client.subscribe(TOPICS.presence("+", "+"), qos=1)
            reading = asyncio.create_task(made_wire.read())
            stack.push_async_callback(ended, reading)
            return made_wire

        yield make


async def ended(task: asyncio.Task) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and not isinstance(task.exception(), aiomqtt.MqttError | None):
        task.result()


@pytest.fixture
def configured(broker, tmp_path):
    """Make configurations of an agent with the echo engine: `configured("node", engine={…}, limits={…})`."""

    def make(node: str = "kitchen", *, engine: dict | None = None, **sections) -> Config:
        where = {"host": "127.0.0.1", "port": broker.port, "reconnect_max_s": 1, "timeout_s": 3}
        sections["broker"] = where | sections.get("broker", {})
        sections["engine"] = {"name": "echo", "options": engine or {}} | sections.get("runtime", {})
        sections.pop("runtime", None)
        return schema()({"node": node, "data_dir": str(tmp_path), **sections})

    return make


@pytest.fixture
async def agent(configured) -> AsyncIterator[Callable]:
    """Start agents in this process: `await agent("node", …)` as for `configured`, once ready; stopped with the test."""
    running: list[tuple[App, asyncio.Task]] = []

    async def start(node: str = "kitchen", *, wait: bool = True, **sections) -> App:
        app = App(configured(node, **sections))
        task = asyncio.create_task(app.run(), name=f"agent {node}")
        running.append((app, task))
        if wait:
            async with asyncio.timeout(PATIENCE_S):
                await app.door.connected.wait()
        return app

    yield start
    for app, _ in running:
        app.stop()
    if running:
        done, left = await asyncio.wait([task for _, task in running], timeout=PATIENCE_S)
        for task in left:
            task.cancel()
        assert not left, "an agent did not stop"
        for task in done:
            task.result()


@pytest.fixture
def eventually():
    """Wait for something in this process: `await eventually(lambda: …)`."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - the agent has no event for every state
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def to_broker(broker) -> Broker:
    """The broker as a client of the library is told of it."""
    return Broker(port=broker.port, timeout_s=3.0, reconnect_max_s=1.0)
