"""The dialer: which protocol it speaks, what it says when it is not let in, and that it leaves nothing open."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from edge_agent.broker import Dialer
from edge_agent.config.settings import Broker
from edge_agent.errors import BrokerError

ACCEPTED = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}
OLD = {4: ACCEPTED[4], 5: b"\x20\x02\x00\x01"}
OLD_BUT_POLITE = {4: ACCEPTED[4], 5: b"\x20\x03\x00\x84\x00"}
MUTE_TO_5 = {4: ACCEPTED[4], 5: b""}


class Server:
    """Answers each CONNECT by the level of its protocol, as told; `heard` are the levels that came."""

    def __init__(self, answers: dict[int, bytes]) -> None:
        self.answers = answers
        self.heard: list[int] = []
        self.port = 0
        self.visits: list[asyncio.Task] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.append(asyncio.current_task())
        packet = await reader.read(1 << 14)
        if packet:
            self.heard.append(packet[packet.index(b"MQTT") + 4])
            writer.write(self.answers[self.heard[-1]])
            await self.go_on(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def go_on(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()


class Refusing(Server):
    """Grants every subscription but shared ones; confirms what is published."""

    async def go_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while packet := await reader.read(1 << 14):
            if packet[0] >> 4 == 8:
                writer.write(b"\x90\x03" + packet[2:4] + (b"\x80" if b"$share" in packet else b"\x01"))


@asynccontextmanager
async def server(answers: dict[int, bytes], kind: type[Server] = Server) -> AsyncIterator[Server]:
    made = kind(answers)
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield made
    if made.visits:
        await asyncio.wait(made.visits)


async def attempt(dialer: Dialer) -> str:
    """Connect once: the version spoken, or the error."""
    try:
        async with dialer.connect() as link:
            return "5" if link.v5 else "3.1.1"
    except BrokerError as error:
        return str(error)


@pytest.mark.parametrize("answers", [OLD, OLD_BUT_POLITE, MUTE_TO_5], ids=["old", "polite", "mute"])
async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1_at_the_second_attempt(answers):
    async with server(answers) as broker:
        dialer = Dialer(Broker(port=broker.port, timeout_s=0.3), "x")
        assert "cannot reach" in await attempt(dialer)
        assert [await attempt(dialer), await attempt(dialer)] == ["3.1.1", "3.1.1"]
        assert broker.heard == [5, 4, 4]


async def test_a_version_that_was_asked_for_is_kept():
    async with server(OLD) as broker:
        dialer = Dialer(Broker(port=broker.port, timeout_s=0.3, protocol="5"), "x")
        for _ in range(3):
            assert "cannot reach" in await attempt(dialer)
        assert broker.heard == [5, 5, 5]


async def test_a_broker_that_spoke_mqtt_5_once_is_never_spoken_to_otherwise():
    async with server(ACCEPTED) as broker:
        dialer = Dialer(Broker(port=broker.port, timeout_s=0.3), "x")
        assert await attempt(dialer) == "5"
        broker.answers = {4: b"", 5: b""}
        for _ in range(3):
            await attempt(dialer)
        broker.answers = ACCEPTED
        assert await attempt(dialer) == "5"
        assert set(broker.heard) == {5}


async def test_a_broker_that_is_not_there_says_nothing_about_its_version():
    async with server(ACCEPTED) as broker:
        dialer = Dialer(Broker(port=broker.port, timeout_s=0.3), "x")
    assert "cannot reach the broker at 127.0.0.1" in await attempt(dialer)
    assert dialer._v5


async def test_a_name_that_no_host_can_have_is_a_broker_that_cannot_be_reached():
    assert "cannot reach the broker at a..b" in await attempt(Dialer(Broker(host="a..b"), "x"))


@pytest.mark.parametrize(("level", "code"), [("5", b"\x20\x03\x00\x86\x00"), ("3.1.1", b"\x20\x02\x00\x05")])
async def test_a_refused_login_is_named(level, code):
    async with server({5: code, 4: code}) as broker:
        dialer = Dialer(Broker(port=broker.port, protocol=level), "x")
        assert "refuses the login: check broker.username and broker.password" in await attempt(dialer)


async def test_attempts_that_fail_leave_no_socket_behind():
    async with server({4: b"", 5: b""}) as broker:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                await attempt(Dialer(Broker(port=broker.port, timeout_s=0.1), "x"))
            gc.collect()
    assert [each for each in caught if issubclass(each.category, ResourceWarning)] == []


async def test_it_connects_again_and_again_and_tells_every_loss():
    lost: list[str] = []
    async with server(ACCEPTED) as broker:
        dialer = Dialer(Broker(port=broker.port, reconnect_max_s=1.0), "x")
        served = 0

        async def serve(link):
            nonlocal served
            served += 1
            assert link.v5
            if served < 3:
                raise BrokerError(f"loss {served}")

        await dialer.keep(serve, lambda error: lost.append(str(error)))
    assert lost == ["loss 1", "loss 2"]


async def test_what_is_no_loss_passes_through():
    async with server(ACCEPTED) as broker:

        async def serve(_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await Dialer(Broker(port=broker.port), "x").keep(serve, lambda _: None)


async def test_a_cancel_that_comes_together_with_an_answer_is_not_lost():
    client = Dialer(Broker(), "x")._client(None)
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client._wait_for(answer, None))
    await asyncio.sleep(0)
    answer.set_result(None)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_refused_shared_subscription_is_an_answer_and_any_other_an_error():
    async with (
        server(ACCEPTED, Refusing) as broker,
        Dialer(Broker(port=broker.port, protocol="3.1.1"), "x").connect() as link,
    ):
        await link.subscribe("plain")
        assert not await link.shares("probe")
        with pytest.raises(BrokerError, match="refuses a subscription"):
            await link.subscribe("$share/group/topic")


def incoming(size: int) -> aiomqtt.Message:
    return aiomqtt.Message("t", bytes(size), 1, retain=False, mid=1, properties=None)


async def test_what_was_read_and_not_yet_handled_is_bounded_by_its_bytes():
    inbox = Dialer(Broker(), "x")._client(None)._queue
    for _ in range(32):
        inbox.put_nowait(incoming(1 << 20))
    with pytest.raises(asyncio.QueueFull):
        inbox.put_nowait(incoming(1))
    inbox.get_nowait()
    inbox.put_nowait(incoming(1))
