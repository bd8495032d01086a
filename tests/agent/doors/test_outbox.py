"""The outbox: in order, bounded, and nothing unconfirmed is lost with a connection."""

import asyncio

import pytest

from edge_agent.broker import Outbound
from edge_agent.doors.mqtt.outbox import Outbox
from edge_agent.errors import BrokerError

MIB = 1 << 20


class Line:
    """The part of a `Link` that an outbox uses: publishes until it is lost, at message number `breaks_at`."""

    def __init__(self, breaks_at: int = 1 << 30) -> None:
        self.sent: list[bytes] = []
        self._left = breaks_at
        self.open = asyncio.Event()
        self.open.set()

    async def publish(self, message: Outbound) -> None:
        await self.open.wait()
        if not self._left or message.payload == b"poison":
            raise BrokerError("lost")
        self._left -= 1
        self.sent.append(message.payload)


def put(outbox: Outbox, *payloads: bytes, droppable: bool = False) -> None:
    for payload in payloads:
        outbox.put(Outbound("t", payload), droppable=droppable)


async def pumped(outbox: Outbox, line: Line) -> None:
    """Pump over this line until everything is out."""
    pump = asyncio.create_task(outbox.pump(line))
    await outbox.emptied()
    pump.cancel()
    await asyncio.wait([pump])


async def test_messages_go_out_in_order_also_those_put_in_later():
    outbox, line = Outbox(), Line()
    pump = asyncio.create_task(outbox.pump(line))
    put(outbox, b"1", b"2")
    await outbox.emptied()
    put(outbox, b"3")
    await outbox.emptied()
    pump.cancel()
    assert line.sent == [b"1", b"2", b"3"]


async def test_what_was_not_confirmed_goes_over_the_next_connection():
    outbox, first, second = Outbox(), Line(breaks_at=1), Line()
    put(outbox, b"1", b"2", b"3")
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await outbox.pump(first)
    await pumped(outbox, second)
    assert (first.sent, second.sent) == ([b"1"], [b"1", b"2", b"3"])


async def test_a_message_that_costs_one_connection_after_another_is_dropped_and_no_other(caplog):
    outbox, last = Outbox(), Line()
    put(outbox, b"1", b"poison", b"3")
    for line in (Line(), Line(), Line(), Line()):
        with pytest.raises(ExceptionGroup, match="unhandled"):
            await outbox.pump(line)
    await pumped(outbox, last)
    assert last.sent == [b"3"]
    assert "does not take a message of 6 bytes" in caplog.text


async def test_chunks_are_dropped_when_too_much_waits_and_finals_never(caplog):
    outbox, line = Outbox(), Line()
    put(outbox, *[b"c" * MIB] * 40, droppable=True)
    put(outbox, b"final")
    assert outbox.dropped == 23
    assert caplog.text.count("chunks are being dropped") == 1
    await pumped(outbox, line)
    assert (len(line.sent), line.sent[-1]) == (18, b"final")


async def test_reading_waits_while_far_too_much_waits():
    outbox, line = Outbox(), Line()
    put(outbox, *[b"f" * MIB] * 33)
    line.open.clear()
    pump, room = asyncio.create_task(outbox.pump(line)), asyncio.create_task(outbox.room())
    await asyncio.sleep(60)
    assert not room.done()
    line.open.set()
    await room
    assert len(line.sent) >= 17
    pump.cancel()
