"""The shipped broker configuration, in a real mosquitto."""

import getpass
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.shipped import shipped
from edge_agent.wire import Topics

TOPICS = Topics()
USERS = ("edge-agent", "anna", "mallory", "operator")
PROTOCOLS = (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5)

pytestmark = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="no mosquitto on this machine")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def broker(conf: Path) -> Iterator[None]:
    with subprocess.Popen(["mosquitto", "-c", conf], stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            while not (said and said[-1].rstrip().endswith("running")):
                said.append(process.stderr.readline())
                assert said[-1], f"mosquitto did not start: {said}"
            yield
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """The shipped configuration, with users, a free port and the operator's block taken out of its comment."""
    folder, port = tmp_path_factory.mktemp("mosquitto"), free_port()
    (folder / "passwd").touch(mode=0o600)
    for user in USERS:
        subprocess.run(
            ["mosquitto_passwd", "-b", folder / "passwd", user, f"{user}'s"], check=True, capture_output=True
        )
    acl = shipped("mosquitto/edge-agent.acl").read_text()
    (folder / "acl").write_text(re.sub(r"^# (user operator|topic write .*operator.*)$", r"\1", acl, flags=re.MULTILINE))
    conf = shipped("mosquitto/edge-agent.conf").read_text()
    conf = conf.replace("listener 1883 ", f"listener {port} ")
    conf = conf.replace("/etc/mosquitto/edge-agent.", f"{folder}/")
    (folder / "conf").write_text(f"{conf}\nuser {getpass.getuser()}\n")
    with broker(folder / "conf"):
        yield port


@pytest.fixture(params=PROTOCOLS, ids=["3.1.1", "5"])
def login(port, request):
    """A client of the broker, by user."""

    def client(user: str) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", port, username=user, password=f"{user}'s", protocol=request.param)

    return client


async def received(client: aiomqtt.Client, last: str) -> list[str]:
    """Topics that arrive, up to the one that is known to come last."""
    topics: list[str] = []
    async for message in client.messages:
        topics.append(str(message.topic))
        if topics[-1] == last:
            break
    return topics


async def test_a_user_reads_nothing_of_anothers_answers(login):
    async with login("edge-agent") as agent, login("mallory") as mallory:
        for topic in ("#", "edge_agent/#", "edge_agent/v1/out/#", TOPICS.out("anna"), "edge_agent/v1/req/#"):
            await mallory.subscribe(topic, qos=1)
        own = TOPICS.out("mallory")
        seen = TOPICS.presence("node-1", "status")
        asked = TOPICS.request("any", "anna", "1")
        for topic in (TOPICS.out("anna"), f"{TOPICS.out('anna')}/x", asked, TOPICS.cancel("anna", "1"), seen, own):
            await agent.publish(topic, b"x", qos=1)
        assert set(await received(mallory, own)) == {seen, own}


async def test_a_user_writes_only_under_its_own_name(login):
    allowed = [TOPICS.request("any", "mallory", "1"), TOPICS.request("node-1", "mallory", "2")]
    allowed.append(TOPICS.cancel("mallory", "1"))
    forbidden = [
        TOPICS.request("any", "anna", "1"),
        TOPICS.cancel("anna", "1"),
        TOPICS.admin("node-1", "mallory", "1"),
        TOPICS.admin("node-1", "operator", "1"),
        TOPICS.out("anna"),
        TOPICS.out("mallory"),
        TOPICS.presence("node-1", "status"),
        TOPICS.presence("node-1", "info"),
        "edge_agent/v1/req/any/anna/mallory/1",
        "homeassistant/light/x/set",
    ]
    async with login("edge-agent") as agent, login("mallory") as mallory:
        await agent.subscribe("edge_agent/v1/#", qos=1)
        for topic in (*forbidden, *allowed):
            await mallory.publish(topic, b"x", qos=1)
        assert await received(agent, allowed[-1]) == allowed


async def test_an_operator_administers_under_the_own_name_alone(login):
    async with login("edge-agent") as agent, login("operator") as operator:
        await agent.subscribe("edge_agent/v1/admin/node-1/+/+", qos=1)
        for client in ("anna", "operator"):
            await operator.publish(TOPICS.admin("node-1", client, "1"), b"x", qos=1)
        own = TOPICS.admin("node-1", "operator", "1")
        assert await received(agent, own) == [own]


async def test_the_agent_shares_requests_and_takes_the_largest(login):
    async with login("edge-agent") as agent, login("anna") as anna:
        await agent.subscribe("$share/edge_agent/edge_agent/v1/req/any/+/+", qos=1)
        await anna.publish(TOPICS.request("any", "anna", "1"), bytes(262144), qos=1)
        message = await anext(agent.messages)
        assert len(message.payload) == 262144


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_nobody_comes_in_without_the_right_password(port, protocol):
    for user, password in ((None, None), ("anna", None), ("anna", "wrong"), ("eve", "eve's")):
        with pytest.raises(aiomqtt.MqttError, match=r"(?i)not authori[sz]ed"):
            await aiomqtt.Client("127.0.0.1", port, username=user, password=password, protocol=protocol).__aenter__()


async def test_the_broker_of_the_demo_is_open_and_on_this_host_only(tmp_path):
    port = free_port()
    template = shipped("mosquitto/demo.conf.in").read_text()
    assert "listener @PORT@ 127.0.0.1\n" in template
    conf = tmp_path / "conf"
    conf.write_text(template.replace("@PORT@", str(port)))
    with broker(conf):
        async with aiomqtt.Client("127.0.0.1", port) as anyone:
            await anyone.subscribe("x", qos=1)
            await anyone.publish("x", bytes(262144), qos=1)
            assert len((await anext(anyone.messages)).payload) == 262144
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
