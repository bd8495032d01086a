"""An exchange: a request repeated, repaired and brought to its one end, whatever becomes of the node."""

import asyncio
import time

import pytest

from edge_agent.exchange import ATTEMPTS, Exchange
from edge_agent.wire import Reply, WireError

BODY = {"messages": [{"role": "user", "content": "hello"}]}


class Line:
    """The part of a client that an exchange uses, with what was sent over it and when."""

    def __init__(self) -> None:
        self.connected = True
        self.serving = True
        self.living: set[tuple[str, str]] = {("kitchen", "b1")}
        self.sent: list[tuple[float, str, dict]] = []
        self.cancels: list[str | None] = []
        self.start = asyncio.get_running_loop().time()

    def lives(self, node: str, boot: str) -> bool:
        return (node, boot) in self.living

    def serves(self, target: str) -> bool:
        return self.serving

    async def send(self, target: str, rid: str, body: dict) -> None:
        assert rid == "r1"
        self.sent.append((asyncio.get_running_loop().time() - self.start, target, body))

    async def cancel(self, rid: str, keep: str | None = None) -> None:
        assert rid == "r1"
        self.cancels.append(keep)

    @property
    def resumes(self) -> list[tuple[str, dict]]:
        return [(target, body["edge"]) for _, target, body in self.sent if body is not BODY]

    @property
    def requests(self) -> list[float]:
        return [at for at, _, body in self.sent if body is BODY]


class Asking:
    """An exchange under way, and what it has yielded."""

    def __init__(self, timeout_s: float) -> None:
        self.line = Line()
        self.exchange = Exchange(self.line, "r1", "any", BODY, time.monotonic() + timeout_s)
        self.got: list[Reply] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for reply in self.exchange.replies():
            self.got.append(reply)

    async def hears(self, seq: int, kind: str = "chunk", *, node: str = "kitchen", boot: str = "b1", **body) -> None:
        self.exchange.heard(Reply("r1", seq, kind, node, boot, kind in ("final", "error"), body))
        await asyncio.sleep(0.001)

    async def fails(self) -> tuple[str, float]:
        """The code of its error, and when it came."""
        with pytest.raises(WireError) as failure:
            await self.task
        return failure.value.code.name, asyncio.get_running_loop().time() - self.line.start


@pytest.fixture
async def asking(monkeypatch):
    monkeypatch.setattr(time, "monotonic", asyncio.get_running_loop().time)
    made: list[Asking] = []

    async def ask(timeout_s: float = 120.0) -> Asking:
        made.append(Asking(timeout_s))
        await asyncio.sleep(0.001)
        return made[-1]

    yield ask
    for each in made:
        each.task.cancel()


async def test_messages_are_yielded_once_each_up_to_the_final(asking):
    call = await asking()
    for seq, kind in enumerate(("accepted", "chunk", "chunk")):
        await call.hears(seq, kind)
    await call.hears(1)
    await call.hears(3, "final")
    await call.task
    assert [reply.seq for reply in call.got] == [0, 1, 2, 3]
    assert call.exchange.finished


async def test_an_error_is_raised(asking):
    call = await asking()
    await call.hears(0, "error", error={"code": "busy", "message": "full"}, retry_after_s=3)
    assert (await call.fails())[0] == "busy"
    assert call.exchange.finished


async def test_after_a_conflict_there_is_nothing_of_ours_to_cancel(asking):
    call = await asking()
    call.exchange.heard(Reply("r1", 0, "error", "kitchen", "b1", False, {"error": {"code": "id_conflict"}}))
    assert (await call.fails())[0] == "id_conflict"
    assert call.exchange.finished


async def test_what_nobody_acknowledged_is_sent_three_times_with_growing_pauses(asking):
    call = await asking()
    code, at = await call.fails()
    assert (code, len(call.line.requests)) == ("unavailable", ATTEMPTS)
    first, second, third = call.line.requests
    assert first == 0
    assert 3.8 <= second <= 4.2
    assert 3 + 1.6 <= third - second <= 3 + 2.4
    assert at - third == pytest.approx(3.0, abs=0.1)


async def test_what_was_acknowledged_is_never_sent_again(asking):
    call = await asking()
    await call.hears(0, "accepted")
    await asyncio.sleep(25)
    assert len(call.line.requests) == 1
    assert call.line.resumes[0] == ("kitchen", {"op": "resume", "boot": "b1", "seq": 0})


async def test_a_sign_of_life_is_enough_to_wait_for_hours(asking):
    call = await asking(timeout_s=10_000)
    await call.hears(0, "accepted")
    for _ in range(500):
        await asyncio.sleep(10.5)
        await call.hears(0, "accepted")
    assert not call.task.done()
    await call.hears(1, "final")
    await call.task
    assert [reply.seq for reply in call.got] == [0, 1]


async def test_a_node_that_falls_silent_is_given_up(asking):
    call = await asking()
    await call.hears(0)
    code, at = await call.fails()
    assert (code, len(call.line.resumes)) == ("engine_failed", ATTEMPTS)
    assert at == pytest.approx(40, abs=1)


async def test_an_answer_that_nobody_knows_any_more_ends_the_request(asking):
    call = await asking()
    for seq in range(3):
        await call.hears(seq)
    await asyncio.sleep(10)
    await call.hears(0, "error", error={"code": "expired", "message": "nothing is stored"})
    assert (await call.fails())[0] == "expired"


async def test_the_first_node_to_answer_is_kept_and_others_are_sent_away_once(asking):
    call = await asking()
    await call.hears(0, "accepted", node="hall", boot="b9")
    for seq in range(3):
        await call.hears(seq, node="kitchen")
    await call.hears(1, "final", node="hall", boot="b9")
    await call.task
    assert call.line.cancels == ["hall"]
    assert {reply.node for reply in call.got} == {"hall"}


async def test_when_the_node_is_gone_before_a_word_the_request_is_sent_again(asking):
    call = await asking()
    await call.hears(0, "accepted")
    call.exchange.gone("kitchen")
    await asyncio.sleep(2)
    await call.hears(0, "accepted", node="hall", boot="b9")
    await call.hears(1, "final", node="hall", boot="b9")
    await call.task
    assert (len(call.line.requests), [reply.node for reply in call.got]) == (2, ["kitchen", "hall", "hall"])


async def test_when_the_node_is_gone_in_mid_answer_it_has_a_moment_to_return(asking):
    call = await asking()
    await call.hears(0)
    call.line.living.clear()
    call.exchange.gone("kitchen")
    code, at = await call.fails()
    assert (code, round(at)) == ("engine_failed", 2)


async def test_a_node_that_returned_with_the_same_boot_goes_on(asking):
    call = await asking()
    await call.hears(0)
    call.exchange.gone("kitchen")
    await asyncio.sleep(2.5)
    assert call.line.resumes == [("kitchen", {"op": "resume", "boot": "b1", "seq": 0})]
    await call.hears(1)
    await call.hears(2, "final")
    await call.task


async def test_a_node_that_returned_with_another_boot_is_gone(asking):
    call = await asking()
    await call.hears(0)
    call.line.living = {("kitchen", "b2")}
    call.exchange.gone("kitchen", "b2")
    assert (await call.fails())[0] == "engine_failed"


async def test_news_of_other_nodes_change_nothing(asking):
    call = await asking()
    await call.hears(0)
    call.exchange.gone("hall")
    call.exchange.gone("kitchen", "b1")
    await asyncio.sleep(5)
    assert call.line.resumes == []


async def test_after_a_reconnect_what_was_missed_is_asked_for(asking):
    call = await asking()
    await call.hears(0)
    call.exchange.reconnected()
    await asyncio.sleep(0.001)
    assert call.line.resumes == [("kitchen", {"op": "resume", "boot": "b1", "seq": 0})]


async def test_without_a_connection_nothing_is_used_up(asking):
    call = await asking()
    call.line.connected = False
    await asyncio.sleep(60)
    call.line.connected = True
    call.exchange.reconnected()
    await asyncio.sleep(2)
    assert len(call.line.requests) == 2


async def test_the_deadline_ends_it_in_any_case(asking):
    call = await asking(timeout_s=5)
    await call.hears(0, "accepted")
    assert await call.fails() == ("expired", pytest.approx(5, abs=0.1))


async def test_when_nobody_is_left_to_acknowledge_it_ends_at_once(asking):
    call = await asking()
    call.line.serving = False
    call.exchange.gone("kitchen")
    code, at = await call.fails()
    assert (code, len(call.line.requests)) == ("unavailable", 1)
    assert at < 1


async def test_a_node_that_leaves_while_others_serve_changes_nothing(asking):
    call = await asking()
    call.exchange.gone("attic")
    await call.hears(0, "final")
    await call.task
    assert len(call.line.requests) == 1


async def test_whoever_gives_up_the_connection_ends_it(asking):
    call = await asking()
    await call.hears(0, "accepted")
    call.exchange.stop()
    code, at = await call.fails()
    assert (code, call.exchange.finished) == ("unavailable", False)
    assert at < 1
