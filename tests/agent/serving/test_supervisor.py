"""The supervisor: an engine that breaks is started again, with growing patience, until that is vain."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge_agent.engines.base import Health
from edge_agent.engines.echo import EchoEngine
from edge_agent.errors import DeviceLost, EngineFailed, ModelError
from edge_agent.serving.events import Delta
from edge_agent.serving.supervisor import TRANSITIONS, Patience, Phase, Sign


class Scripted(EchoEngine):
    """Follows a script from life to life: an exception to raise on loading, or how often it is healthy."""

    def __init__(self, lives: Iterator[Exception | int]) -> None:
        super().__init__({})
        self.life = next(lives)
        self.closed = False

    async def __aenter__(self):
        if isinstance(self.life, Exception):
            raise self.life
        return await super().__aenter__()

    async def __aexit__(self, *exc):
        self.closed = True
        await super().__aexit__(*exc)

    async def health(self):
        self.life -= 1
        return Health(ok=self.life >= 0, detail="" if self.life >= 0 else "deaf", memory=7)


FOREVER = 1 << 30


@pytest.fixture
def scripted(house):
    """Open a house whose engine lives as told; the engines made so far are `home.engines`."""

    async def open_house(*lives, ready=True, **how):
        script, engines = iter(lives), []

        def create():
            engines.append(Scripted(script))
            return engines[-1]

        home = await house(create=create, ready=ready, **how)
        home.engines = engines
        return home

    return open_house


def now() -> float:
    return asyncio.get_running_loop().time()


def test_from_every_phase_there_is_a_way_to_ready_and_none_is_dead():
    for start in Phase:
        reached = {start}
        while more := {to for (phase, _), to in TRANSITIONS.items() if phase in reached} - reached:
            reached |= more
        assert reached == set(Phase)
    assert {sign for _, sign in TRANSITIONS} == set(Sign)


def test_clients_are_told_loading_while_the_engine_recovers():
    assert [phase.announced for phase in Phase] == ["loading", "ready", "loading", "failed"]


async def test_an_engine_that_does_not_load_is_tried_again_with_growing_pauses(scripted):
    failures = [EngineFailed("no device")] * 4
    start = now()
    home = await scripted(*failures, FOREVER, patience=Patience(backoff_s=1, backoff_max_s=4))
    assert 0.8 * (1 + 2 + 4 + 4) <= now() - start <= 1.2 * (1 + 2 + 4 + 4)
    assert (home.supervisor.phase, home.supervisor.restarts) == (Phase.READY, 4)


async def test_too_many_failures_within_the_window_and_it_gives_up_saying_why(scripted):
    home = await scripted(*[EngineFailed("no device")] * 3, ready=False, patience=Patience(restarts=2))
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    assert home.supervisor.why == "3 failures in a row; the last: no device"
    assert len(home.engines) == 3


async def test_old_failures_are_forgotten(scripted):
    patience = Patience(restarts=1, window_s=100)
    home = await scripted(EngineFailed("once"), FOREVER, FOREVER, patience=patience)
    await asyncio.sleep(101)
    home.supervisor.broke(home.supervisor.loaded, EngineFailed("again"))
    await home.until(lambda: len(home.engines) == 3 and home.supervisor.loaded)
    assert home.supervisor.phase is Phase.READY


async def test_what_has_failed_is_tried_again_every_few_minutes_and_stays_failed_meanwhile(scripted):
    lives = [ModelError("no network"), ModelError("no network"), EngineFailed("no device"), FOREVER]
    home = await scripted(*lives, ready=False, patience=Patience(failed_s=300))
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    start, phases = now(), set()
    while not home.supervisor.loaded:
        phases.add(home.supervisor.phase)
        await asyncio.sleep(10)
    assert phases == {Phase.FAILED}
    assert now() - start == pytest.approx(900, abs=20)
    assert (home.supervisor.phase, home.supervisor.why) == (Phase.READY, "")
    assert (await home.end(home.ask("hello"))).content == "hello"


@pytest.mark.parametrize("fault", [OSError("out of processes"), ZeroDivisionError()])
async def test_whatever_an_engine_raises_it_is_tried_again(scripted, caplog, fault):
    home = await scripted(fault, FOREVER)
    assert (home.supervisor.phase, home.supervisor.restarts) == (Phase.READY, 1)
    assert type(fault).__name__ in caplog.text


async def test_an_operator_s_error_of_an_engine_that_ran_is_no_end(scripted):
    home = await scripted(FOREVER, FOREVER, patience=Patience(health_s=5))

    async def gone():
        raise ModelError("the disk is gone")

    home.engines[0].health = gone
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    await home.until(lambda: home.supervisor.loaded)


async def test_what_only_a_person_can_mend_is_tried_at_once_when_told(scripted):
    home = await scripted(ModelError("the files are damaged"), FOREVER, ready=False)
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    refused = home.refused("hello")
    assert (refused.code.name, refused.retry_after_s) == ("unavailable", None)
    assert "the files are damaged" in refused.message
    await asyncio.sleep(200)
    assert len(home.engines) == 1
    home.supervisor.reload()
    await home.until(lambda: home.supervisor.loaded)
    assert (await home.end(home.ask("hello"))).content == "hello"


async def test_an_engine_whose_device_is_lost_is_not_started_again_until_told(scripted):
    home = await scripted(DeviceLost("dead: reset the card"), FOREVER, ready=False)
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    assert home.supervisor.why == "dead: reset the card"
    await asyncio.sleep(86_400)
    assert (len(home.engines), home.supervisor.restarts) == (1, 0)
    home.supervisor.reload()
    await home.until(lambda: home.supervisor.loaded)


async def test_a_device_lost_while_nothing_runs_is_seen_at_the_first_look(scripted):
    home = await scripted(FOREVER, patience=Patience(health_s=5))

    async def lost():
        return Health(ok=False, detail="dead: reset the card", lost=True)

    home.engines[0].health = lost
    start = now()
    await home.until(lambda: home.supervisor.phase is Phase.FAILED)
    assert now() - start <= 5.1
    assert (home.supervisor.why, home.engines[0].closed) == ("dead: reset the card", True)


async def test_what_runs_when_the_device_is_lost_fails_at_once_and_what_waits_is_sent_away(scripted):
    home = await scripted(FOREVER)

    async def generate(*_):
        await asyncio.sleep(1)
        raise DeviceLost("dead: reset the card")
        yield

    home.engines[0].generate = generate
    home.engines[0].capabilities = replace(home.engines[0].capabilities, parallel=1)
    running, waiting = home.ask("one"), home.ask("two", client="bert")
    assert await home.code(running) == "engine_failed"
    assert await home.code(waiting) == "unavailable"
    assert home.supervisor.phase is Phase.FAILED


async def test_an_engine_that_knows_its_speed_is_believed_before_anything_has_run(scripted):
    home = await scripted(FOREVER)

    async def health():
        return Health(ok=True, read_tps=14.0, write_tps=13.0)

    home.engines[0].health = health
    await home.until(lambda: home.scheduler.meter.read_tps)
    assert (home.scheduler.meter.read_tps, home.scheduler.meter.write_tps) == (14.0, 13.0)
    assert await home.code(home.ask("word " * 500, timeout_s=20)) == "expired"


async def test_an_engine_that_takes_too_long_to_load_counts_as_failed(house):
    engines = iter([{"load_s": 1000}, {}])
    home = await house(create=lambda: EchoEngine(next(engines)), patience=Patience(start_s=10))
    assert home.supervisor.restarts == 1


async def test_one_bad_look_is_forgiven_and_two_in_a_row_are_a_stall(scripted):
    home = await scripted(2, FOREVER, patience=Patience(health_s=5))
    start = now()
    await home.until(lambda: home.supervisor.restarts)
    assert home.supervisor.why == "deaf"
    assert now() - start == pytest.approx(5 + 5 + 1, abs=0.1)
    await home.until(lambda: len(home.engines) == 2 and home.supervisor.loaded)
    assert home.engines[0].closed


async def test_reloading_closes_the_engine_and_starts_another_without_losing_a_request(scripted):
    home = await scripted(FOREVER, FOREVER)
    key = home.ask("hello")
    home.supervisor.reload()
    assert home.supervisor.loaded is None
    await home.end(key)
    assert (len(home.engines), home.engines[0].closed) == (2, True)


async def test_any_number_of_reloads_is_no_failure(scripted):
    home = await scripted(*[FOREVER] * 9, patience=Patience(restarts=1))
    for number in range(2, 9):
        home.supervisor.reload()
        await home.until(lambda number=number: len(home.engines) == number and home.supervisor.loaded)
    assert home.supervisor.phase is Phase.READY


async def test_only_the_engine_in_use_can_be_reported_broken(scripted):
    home = await scripted(FOREVER, FOREVER)
    first = home.supervisor.loaded
    home.supervisor.broke(first, EngineFailed("gone"))
    home.supervisor.broke(first, EngineFailed("gone twice"))
    await home.until(lambda: home.supervisor.loaded)
    home.supervisor.broke(first, EngineFailed("a late report"))
    assert home.supervisor.loaded is not None
    assert home.supervisor.restarts == 1


async def test_stopping_closes_the_engine(scripted):
    home = await scripted(FOREVER)
    home.ask("hello there")
    home.tasks[0].cancel()
    await asyncio.wait([home.tasks[0]])
    assert home.engines[0].closed


async def test_every_look_brings_news_of_the_engine(scripted):
    home = await scripted(FOREVER)
    await home.until(lambda: home.supervisor.health.ok)
    assert home.supervisor.health.memory == 7
    assert not home.of(("anna", "1"), Delta)
