"""A client's connection: what it does when it fails."""

import asyncio

import pytest

from edge_agent.config import Broker
from edge_agent.connection import _Connection, connect


@pytest.mark.parametrize("up", [False, True])
async def test_whoever_uses_a_client_hears_of_its_death(monkeypatch, up):
    async def run(connection):
        if up:
            connection.up.set_result(None)
            await asyncio.sleep(1)
        raise ZeroDivisionError

    async def use():
        async with connect(Broker(), "anna"):
            await asyncio.Event().wait()

    monkeypatch.setattr(_Connection, "run", run)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(use(), 60)
