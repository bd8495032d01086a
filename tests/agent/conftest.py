"""Serving, the doors and the client are tested on a virtual clock: waiting takes no time, every run is the same."""

import asyncio
import selectors

VIRTUAL = ("serving", "doors", "test_client.py", "test_exchange.py")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer whenever there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 1000.0
        really_select = self._selector.select

        def select(timeout: float | None = None) -> list:
            events = really_select(timeout and 0)
            if timeout and not events:
                self._now += timeout
            return events

        self._selector.select = select

    def time(self) -> float:
        return self._now


def pytest_asyncio_loop_factories(config, item):
    del config
    virtual = any(part in VIRTUAL for part in item.path.parts)
    return {"virtual": VirtualLoop} if virtual else {"real": asyncio.new_event_loop}
