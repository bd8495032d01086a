"""Logins: passwords, certificates, and the broker configuration that ships, with its access list."""

import asyncio
import re
import ssl
import subprocess

import pytest

from edge_agent.app import App
from edge_agent.broker import Dialer
from edge_agent.config.settings import Broker, Tls
from edge_agent.connection import connect
from edge_agent.doors.mqtt.claim import claim
from edge_agent.errors import BrokerError
from edge_agent.shipped import shipped
from edge_agent.wire import Topics

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
USERS = ("edge-agent", "anna", "mallory", "olga")


@pytest.fixture(scope="module")
def passwords(tmp_path_factory):
    path = tmp_path_factory.mktemp("passwords") / "passwd"
    path.touch(mode=0o600)
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", path, user, f"{user}'s"], check=True, capture_output=True)
    return path


@pytest.fixture
def broker(mosquitto, passwords, tmp_path):
    """The shipped configuration, with the operator's block taken out of its comment for olga."""
    acl = shipped("mosquitto/edge-agent.acl").read_text()
    acl = re.sub(r"^# (user operator|topic write .*operator.*)$", r"\1", acl, flags=re.MULTILINE)
    (tmp_path / "acl").write_text(acl.replace("operator", "olga"))
    conf = shipped("mosquitto/edge-agent.conf").read_text().replace("listener 1883 ", "listener @PORT@ ")
    conf = conf.replace("/etc/mosquitto/edge-agent.passwd", str(passwords))
    return mosquitto(*conf.replace("/etc/mosquitto/edge-agent.acl", str(tmp_path / "acl")).splitlines())


def login(user: str) -> dict:
    return {"username": user, "password": f"{user}'s"}


def account(broker, user: str, **more) -> Broker:
    return Broker(port=broker.port, timeout_s=3.0, **login(user), **more)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_with_the_shipped_configuration_an_agent_and_a_client_work(agent, broker, protocol):
    await agent("kitchen", broker={**login("edge-agent"), "protocol": protocol}, admin={"clients": ["olga"]})
    async with (
        connect(account(broker, "anna", protocol=protocol), "anna") as anna,
        connect(account(broker, "olga", protocol=protocol), "olga") as olga,
    ):
        assert (await anna.complete(HELLO)).body["choices"][0]["message"]["content"] == "hello"
        assert [reply.kind async for reply in anna.ask({**HELLO, "stream": True})][-1] == "final"
        assert (await olga.order("kitchen", "drain"))["done"] is True


@pytest.mark.usefixtures("broker")
async def test_nobody_reads_or_asks_in_the_name_of_another(agent, wire):
    await agent("kitchen", broker=login("edge-agent"))
    anna = await wire("anna", **login("anna"))
    mallory = await wire("mallory", **login("mallory"))
    await anna.phase("kitchen")
    for topic in ("edge_agent/v1/out/anna", "edge_agent/v1/req/#", "#"):
        await mallory.watch(topic)
    rid = await anna.ask("a secret")
    await mallory.publish("edge_agent/v1/req/any/anna/forged", "hello")
    await mallory.publish(f"edge_agent/v1/cancel/anna/{rid}")
    await mallory.publish("edge_agent/v1/out/anna", "forged")
    assert (await anna.final(rid)).kind == "final"
    own = await mallory.ask("mine")
    await mallory.answer(own)
    await anna.answer(await anna.ask("after"))
    assert len(anna.out) == 2
    assert {message.topic.value for message in mallory.out} == {"edge_agent/v1/out/mallory"}


async def test_an_agent_under_a_users_name_is_told_of_the_access_list(broker):
    async with Dialer(account(broker, "anna"), "agent").connect() as link:
        with pytest.raises(BrokerError, match="access control list keeps this user from edge_agent/v1/#"):
            await claim(link, Topics(), "kitchen", "b5")


@pytest.mark.usefixtures("broker")
async def test_a_wrong_password_is_one_clear_error_and_tried_again(caplog, configured, monkeypatch, eventually):
    monkeypatch.setattr("edge_agent.app._GOODBYE_S", 0.1)
    app = App(configured("kitchen", broker={"username": "edge-agent", "password": "wrong"}))
    running = asyncio.create_task(app.run())
    await eventually(lambda: app.door.reconnects >= 3)
    said = [each for each in caplog.records if each.name.startswith("edge_agent.doors")]
    assert len([each for each in said if each.levelname == "WARNING"]) == 1
    assert "refuses the login: check broker.username and broker.password" in said[0].getMessage()
    app.stop()
    await running


async def test_a_client_with_a_wrong_password_is_told_at_once(broker):
    with pytest.raises(BrokerError, match="refuses the login"):
        async with connect(Broker(port=broker.port, username="anna", password="wrong"), "anna"):
            pass


async def test_where_no_broker_is_the_error_says_what_to_look_at(broker):
    broker.kill()
    with pytest.raises(BrokerError, match=r"cannot reach the broker at 127.0.0.1:\d+: .*check broker.host"):
        async with Dialer(Broker(port=broker.port), "x").connect():
            pass


def certify(folder, name: str, *signed_by: str) -> None:
    """A key and a certificate for `name`, signed by another of them or by itself."""
    signing = ["-CA", folder / f"{signed_by[0]}.pem", "-CAkey", folder / f"{signed_by[0]}.key"] if signed_by else []
    extension = [] if not signed_by else ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    out = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    subprocess.run([*command, *out, *signing, *extension], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    certify(folder, "authority")
    for name in ("broker", "edge-agent", "anna"):
        certify(folder, name, "authority")
    certify(folder, "stranger")
    return folder


@pytest.fixture
def secure(mosquitto, certificates):
    return mosquitto(
        "listener @PORT@ 127.0.0.1",
        f"cafile {certificates}/authority.pem",
        f"certfile {certificates}/broker.pem",
        f"keyfile {certificates}/broker.key",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
    )


def keys(folder, name: str) -> dict:
    return {"ca": folder / "authority.pem", "certificate": folder / f"{name}.pem", "key": folder / f"{name}.key"}


async def test_certificates_let_an_agent_and_a_client_in(agent, secure, certificates):
    tls = {name: str(path) for name, path in keys(certificates, "edge-agent").items()}
    await agent("kitchen", broker={"port": secure.port, "tls": tls})
    async with connect(Broker(port=secure.port, tls=Tls(**keys(certificates, "anna"))), "anna") as anna:
        assert (await anna.complete(HELLO)).body["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"ca": "authority.pem"},
        {"ca": "stranger.pem", "certificate": "anna.pem", "key": "anna.key"},
        {"ca": "authority.pem", "certificate": "stranger.pem", "key": "stranger.key"},
    ],
    ids=["system authorities", "no certificate", "unknown authority", "self-signed certificate"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho drops its socket unclosed
async def test_a_wrong_certificate_is_one_clear_error(secure, certificates, wrong):
    tls = Tls(**{name: certificates / file for name, file in wrong.items()})
    with pytest.raises(BrokerError, match=r"cannot reach .*check broker.host, broker.port and broker.tls"):
        async with Dialer(Broker(port=secure.port, tls=tls, timeout_s=1), "x").connect():
            pass


async def test_a_certificate_file_that_is_none_is_named_before_anything_is_sent(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BrokerError, match=r"broker.tls: ") as refused:
        async with Dialer(Broker(tls=Tls(ca=tmp_path / "ca.pem")), "x").connect():
            pass
    assert isinstance(refused.value.__cause__, ssl.SSLError)
