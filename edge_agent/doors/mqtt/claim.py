"""Before a node takes its name on the broker: does somebody alive have it? Taking it would throw that one off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Final

from edge_agent.broker import Link, Outbound
from edge_agent.errors import BrokerError, NodeNameTaken
from edge_agent.wire import ONLINE, Topics

_PATIENCE_S: Final = 2.0
_HERE: Final = b"here"
_HELLO: Final = b'{"edge":{"op":"resume"}}'
"""Runs nothing, and every agent answers it at once."""


async def claim(link: Link, topics: Topics, node: str, boot: str) -> None:
    """Raise `NodeNameTaken` if an agent of this name answers: what presence says may be left of one that lost power.

    Raises `BrokerError` if not even our own word comes back.
    """
    status, mine = topics.presence(node, "status"), topics.out(f"claim-{boot}")
    await link.subscribe(mine, replay=False)
    await link.subscribe(status)
    await link.publish(Outbound(topics.request(node, f"claim-{boot}", boot), _HELLO))
    await link.publish(Outbound(mine, _HERE))
    online = heard = False
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S), aclosing(link.messages()) as messages:
            async for message in messages:
                if message.topic == status:
                    online = message.payload == ONLINE.encode()
                    continue
                heard = True
                if message.payload != _HERE:
                    raise NodeNameTaken(f"another agent calls itself {node}: give one of them another `node` name")
                if not online:  # What is retained came before our own word: nobody is there.
                    return
    if not heard:
        topic = f"{topics.base}/#"
        raise BrokerError(f"the broker's access control list keeps this user from {topic}: let it read and write")
