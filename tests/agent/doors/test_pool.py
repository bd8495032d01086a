"""Membership in the pool: by shared subscription where the broker proves to have one, plainly where not."""

import asyncio

import pytest

from edge_agent.doors.mqtt.pool import Pool
from edge_agent.wire import Topics

SHARED = "$share/home/edge_agent/v1/req/any/+/+"
PLAIN = "edge_agent/v1/req/any/+/+"


class Broker:
    """The part of a `Link` that a pool uses."""

    def __init__(self, *, shares: bool) -> None:
        self.delivers = shares
        self.filters: set[str] = set()

    async def shares(self, topic: str) -> bool:
        assert topic.startswith("edge_agent/v1/out/probe-")
        return self.delivers

    async def subscribe(self, pattern: str, *, replay: bool = True) -> None:
        assert not replay
        self.filters.add(pattern)

    async def unsubscribe(self, pattern: str) -> None:
        self.filters.remove(pattern)


class Member:
    def __init__(self, *, shares: bool = True) -> None:
        self.wanted = True
        self.changes = 0
        self.broker = Broker(shares=shares)
        self.pool = Pool(Topics(), "home", lambda: self.wanted, self.changed)

    def changed(self) -> None:
        self.changes += 1

    async def wants(self, wanted: bool) -> None:
        self.wanted = wanted
        self.pool.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_broker_that_shares_is_believed_once_it_has_delivered():
    node = Member()
    await node.pool.enter(node.broker)
    assert (node.pool.shared, node.broker.filters, node.changes) == (True, {SHARED}, 1)


async def test_where_nothing_is_shared_the_node_is_alone_and_says_so(caplog):
    node = Member(shares=False)
    await node.pool.enter(node.broker)
    assert (node.pool.shared, node.broker.filters) == (False, {PLAIN})
    assert "must be alone in its pool" in caplog.text


@pytest.mark.parametrize(("shares", "pattern"), [(True, SHARED), (False, PLAIN)])
async def test_a_member_leaves_and_comes_back_as_wanted(shares, pattern):
    node = Member(shares=shares)
    await node.pool.enter(node.broker)
    running = asyncio.create_task(node.pool.run(node.broker))
    for wanted in (False, False, True, True, False):
        await node.wants(wanted)
        assert node.broker.filters == ({pattern} if wanted else set())
    running.cancel()


async def test_a_new_connection_is_proved_and_entered_again():
    node = Member()
    await node.pool.enter(node.broker)
    node.broker.filters.clear()
    node.broker.delivers = False
    await node.pool.enter(node.broker)
    assert node.broker.filters == {PLAIN}
