"""The scheduler: admission, order, cancelling, deadlines, retries and draining, on the echo engine."""

import asyncio

import pytest

from edge_agent.engines.echo import EchoEngine
from edge_agent.errors import ContextOverflow, RequestRefused, Unsupported
from edge_agent.serving.events import Accepted, Delta, Done, Failed, Queued
from edge_agent.serving.supervisor import Patience, Phase
from edge_agent.serving.turn import Rules
from edge_agent.wire import WireError

SLOW = {"write_tps": 10}
TEN = "a b c d e f g h i j"
CANCELLED = WireError("cancelled", "enough")


async def test_an_answer_is_streamed_and_then_whole(house):
    home = await house()
    key = home.ask("one two three")
    done = await home.end(key)
    assert (done.content, done.finish_reason, done.usage.completion) == ("one two three", "stop", 3)
    assert home.text(key) == "one two three"
    assert isinstance(home.events[key[1]][0], Accepted)


async def test_timings_say_where_the_time_went(house):
    home = await house({"read_tps": 100, "write_tps": 10, "prefix_cache": False})
    first, second = home.ask(TEN), home.ask(TEN)
    reading = (await home.end(first)).usage.prompt / 100
    times = (await home.end(second)).timings
    assert times.queue_s == pytest.approx(reading + 1.0, abs=0.05)
    assert times.first_token_s == pytest.approx(reading + 0.1, abs=0.01)
    assert times.total_s == pytest.approx(2 * (reading + 1.0), abs=0.1)
    assert times.write_tps == pytest.approx(10, rel=0.01)


async def test_voice_goes_before_normal_goes_before_batch(house):
    home = await house(SLOW)
    keys = [
        home.ask(text, edge={"priority": priority})
        for text, priority in (("first", "batch"), ("batch", "batch"), ("normal", "normal"), ("voice", "voice"))
    ]
    for key in keys:
        await home.end(key)
    assert home.order == ["voice", "normal", "first", "batch"]


async def test_one_client_cannot_hold_up_another(house):
    home = await house(SLOW)
    keys = [home.ask(f"a{number}", client="anna") for number in range(4)] + [home.ask("b0", client="ben")]
    for key in keys:
        await home.end(key)
    assert home.order.index("b0") == 1


async def test_those_waiting_are_told_their_place_as_it_changes(house):
    home = await house(SLOW)
    keys = [home.ask(TEN) for _ in range(4)]
    for key in keys:
        await home.end(key)
    assert [home.of(key, Accepted)[0].position for key in keys] == [0, 1, 2, 3]
    assert [event.position for event in home.of(keys[3], Queued)] == [2, 1]
    estimates = [event.eta_s for event in home.of(keys[3], Queued)]
    assert estimates == [pytest.approx(2.0, abs=0.1), pytest.approx(1.0, abs=0.1)]


async def test_a_place_that_changes_while_nothing_else_happens_is_told_within_two_seconds(house):
    home = await house({"write_tps": 1})
    _, second, third = [home.ask(TEN) for _ in range(3)]
    await asyncio.sleep(0.5)
    home.scheduler.cancel(second, CANCELLED)
    await asyncio.sleep(2)
    assert [event.position for event in home.of(third, Queued)] == [1]


async def test_a_full_backlog_refuses_with_the_time_to_come_again(house):
    home = await house(SLOW, size=1)
    first = home.ask(TEN)
    await home.first(first, Delta)
    home.ask(TEN)
    refused = home.refused(TEN)
    assert (refused.code.name, refused.retry_after_s) == ("busy", 1.0)


async def test_a_request_that_cannot_start_before_its_deadline_is_refused(house):
    home = await house({"write_tps": 1})
    await home.end(home.ask(TEN))
    for _ in range(3):
        home.ask(TEN)
    assert home.refused(TEN, timeout_s=15).code.name == "expired"
    assert len(home.scheduler.backlog) == 3
    home.ask(TEN, timeout_s=40)


async def test_only_what_goes_before_a_request_counts_against_its_deadline(house):
    home = await house({"write_tps": 1})
    await home.end(home.ask(TEN))
    running = home.ask(TEN)
    await home.until(lambda: home.scheduler.running)
    for _ in range(4):
        home.ask(TEN, edge={"priority": "batch"})
    assert home.refused(TEN, timeout_s=5, edge={"priority": "voice"}).code.name == "expired"
    voice = home.ask("quick", timeout_s=25, edge={"priority": "voice"})
    await home.end(running)
    assert (await home.end(voice)).content == "quick"


async def test_what_had_expired_when_it_came_is_not_run(house):
    home = await house()
    assert home.refused("late", timeout_s=0.0).code.name == "expired"
    assert not home.events


async def test_a_deadline_passes_while_waiting(house):
    home = await house(SLOW)
    home.ask(TEN)
    waiting = home.ask("never", timeout_s=0.5)
    assert await home.code(waiting) == "expired"
    assert not home.of(waiting, Delta)


async def test_a_deadline_passes_while_running_and_the_engine_is_free_for_the_next(house):
    home = await house(SLOW)
    cut = home.ask(TEN, timeout_s=0.55)
    following = home.ask("next")
    assert await home.code(cut) == "expired"
    assert home.text(cut) == "a b c d e"
    assert isinstance(await home.end(following), Done)


async def test_cancelling_what_waits_ends_it(house):
    home = await house(SLOW)
    home.ask(TEN)
    waiting = home.ask("never")
    assert home.scheduler.cancel(waiting, CANCELLED)
    assert await home.code(waiting) == "cancelled"
    assert not home.scheduler.cancel(waiting, CANCELLED)


async def test_cancelling_what_runs_stops_it_within_a_token(house):
    home = await house(SLOW)
    key = home.ask(TEN)
    await home.until(lambda: len(home.of(key, Delta)) == 3)
    assert home.scheduler.cancel(key, CANCELLED)
    before = asyncio.get_running_loop().time()
    assert await home.code(key) == "cancelled"
    assert asyncio.get_running_loop().time() - before < 0.1
    assert (home.text(key), home.scheduler.running) == ("a b c", 0)


async def test_cancelling_before_the_first_step_still_ends_it_once(house):
    home = await house()
    key = home.ask("never")

    def cancel_as_soon_as_it_runs():
        home.changed.set()
        if home.scheduler.running:
            home.scheduler.cancel(key, CANCELLED)
            home.scheduler.cancel(key, WireError("internal", "the second reason does not count"))

    home.scheduler._changed = cancel_as_soon_as_it_runs
    assert await home.code(key) == "cancelled"
    assert not home.of(key, Delta)


async def test_cancelling_what_is_finished_changes_nothing(house):
    home = await house()
    key = home.ask("hello")
    done = await home.end(key)
    assert not home.scheduler.cancel(key, CANCELLED)
    assert await home.end(key) is done


async def test_a_turn_that_had_produced_nothing_runs_again_on_the_next_engine(house):
    engines = iter([{"rules": [{"fail": "out of memory"}]}, {}])
    home = await house(create=lambda: EchoEngine(next(engines)))
    key = home.ask("hello")
    assert (await home.end(key)).content == "hello"
    assert home.supervisor.restarts == 1
    assert len(home.of(key, Accepted)) == 1


async def test_a_turn_runs_at_most_twice(house):
    home = await house({"rules": [{"fail": "out of memory"}]})
    key = home.ask("hello")
    assert await home.code(key) == "engine_failed"
    await home.until(lambda: home.supervisor.restarts == 2)


async def test_a_turn_that_had_told_something_is_not_run_again(house):
    engines = iter([{"rules": [{"fail": "out of memory", "fail_after": 2}]}, {}])
    home = await house(create=lambda: EchoEngine(next(engines)))
    key = home.ask(TEN, stream=True)
    assert await home.code(key) == "engine_failed"
    assert home.text(key) == "a b"


async def test_a_turn_that_had_written_but_told_nothing_is_run_again(house):
    engines = iter([{"rules": [{"fail": "out of memory", "fail_after": 2}]}, {}])
    home = await house(create=lambda: EchoEngine(next(engines)))
    assert (await home.end(home.ask(TEN))).content == TEN


@pytest.mark.parametrize(
    "error", [RequestRefused("no"), Unsupported("no"), ContextOverflow(2, 1), WireError("internal", "no")]
)
async def test_what_one_request_did_wrong_breaks_no_engine_and_is_not_tried_again(house, error):
    class Picky(EchoEngine):
        async def generate(self, prompt, sampling):
            if "bad" in prompt.text:
                raise error
            async for piece in super().generate(prompt, sampling):
                yield piece

    home = await house(create=lambda: Picky({"write_tps": 10, "parallel": 2}))
    bystander = home.ask(TEN)
    bad = [home.ask("bad") for _ in range(9)]
    assert {await home.code(key) for key in bad} == {error.code.name}
    assert (await home.end(bystander)).content == TEN
    assert home.supervisor.restarts == 0


async def test_what_broke_the_engine_is_told_in_one_bounded_line(house):
    home = await house({"rules": [{"fail": "gone " * 100 + "\n/home/builder/core.cpp:117", "fail_after": 1}]})
    error = (await home.end(home.ask("hello", stream=True))).error
    assert (error.code.name, error.message) == ("engine_failed", ("gone " * 100)[:256])
    await home.until(lambda: home.supervisor.phase is not Phase.READY)
    assert home.supervisor.why == error.message


async def test_a_stalled_engine_is_restarted_and_its_turn_fails(house):
    engines = iter([{"rules": [{"hang_after": 2}]}, {}])
    home = await house(create=lambda: EchoEngine(next(engines)), rules=Rules(stall_s=7.0))
    before = asyncio.get_running_loop().time()
    key = home.ask(TEN, stream=True)
    assert await home.code(key) == "engine_failed"
    assert asyncio.get_running_loop().time() - before == pytest.approx(7.0, abs=0.1)
    assert home.text(key) == "a b"
    assert (await home.end(home.ask("and again"))).content == "and again"


async def test_requests_wait_for_an_engine_that_is_being_restarted(house):
    engines = iter([{"rules": [{"fail": "gone", "fail_after": 1}]}, {"load_s": 5}])
    home = await house(create=lambda: EchoEngine(next(engines)))
    assert await home.code(home.ask("a b", stream=True)) == "engine_failed"
    await home.until(lambda: home.supervisor.phase is not Phase.READY)
    assert (await home.end(home.ask("patient"))).content == "patient"


async def test_nothing_is_admitted_while_the_engine_is_loading_for_the_first_time(house):
    home = await house({"load_s": 60}, ready=False)
    refused = home.refused("too early")
    assert (refused.code.name, refused.retry_after_s) == ("unavailable", 2.0)


async def test_when_the_engine_has_failed_for_good_those_waiting_are_told(house):
    home = await house({"rules": [{"fail": "broken"}]}, patience=Patience(restarts=0))
    keys = [home.ask("one"), home.ask("two", client="ben")]
    assert {await home.code(key) for key in keys} == {"unavailable"}
    assert home.refused("three").retry_after_s is None


async def test_prepare_yields_to_a_chat_and_is_resumed_from_what_it_has_read(house):
    home = await house({"read_tps": 100, "block": 10, "write_tps": 10})
    prepared = home.ask(" ".join(["word"] * 200), edge={"op": "prepare"})
    await home.until(lambda: home.scheduler.running)
    await asyncio.sleep(1)
    chat = home.ask("quick", edge={"priority": "batch"})
    await home.end(chat)
    assert not home.of(prepared, Done | Failed)
    done = await home.end(prepared)
    assert (done.content, done.usage.cached >= 90) == ("", True)


async def test_a_prepare_can_be_cancelled_while_it_is_being_interrupted(house):
    home = await house({"read_tps": 100, "block": 10, "write_tps": 10})
    prepared = home.ask("word " * 200, edge={"op": "prepare"})
    await home.until(lambda: home.scheduler.running)
    await asyncio.sleep(1)
    home.ask("quick")
    [run] = home.scheduler._running.values()
    while not run.stopped:  # noqa: ASYNC110 - the very next step matters
        await asyncio.sleep(0)
    assert home.scheduler.cancel(prepared, CANCELLED)
    assert await home.code(prepared) == "cancelled"


async def test_prepare_does_not_interrupt_prepare(house):
    home = await house({"read_tps": 100, "block": 10})
    keys = [home.ask(f"{name} " * 100, edge={"op": "prepare"}) for name in ("one", "two")]
    first, second = [await home.end(key) for key in keys]
    assert home.order[0].startswith("one")
    assert first.usage.cached == 0
    assert second.timings.queue_s >= 1.0


async def test_what_was_prepared_is_resident_for_the_next_chat(house):
    home = await house()
    system = {"role": "system", "content": "You keep a house. " * 20}
    await home.end(home.ask("", edge={"op": "prepare"}, messages=[system, {"role": "user", "content": "?"}]))
    done = await home.end(home.ask("", messages=[system, {"role": "user", "content": "hello"}]))
    assert done.usage.cached > 60


async def test_draining_finishes_what_runs_and_sends_away_what_waits(house):
    home = await house(SLOW)
    running, waiting = home.ask(TEN), home.ask("never")
    await home.first(running, Delta)
    await home.scheduler.drain(grace_s=60)
    assert (await home.end(running)).content == TEN
    assert await home.code(waiting) == "draining"
    assert home.refused("later").code.name == "draining"


async def test_draining_stops_what_takes_longer_than_the_grace(house):
    home = await house(SLOW)
    running = home.ask(TEN)
    await home.first(running, Delta)
    await home.scheduler.drain(grace_s=0.35)
    assert await home.code(running) == "draining"
    assert home.text(running) == "a b c d"


async def test_a_prepare_interrupted_while_draining_is_not_put_back(house):
    home = await house({"read_tps": 10, "block": 10})
    prepared = home.ask("word " * 100, edge={"op": "prepare"})
    await home.until(lambda: home.scheduler.running)
    home.ask("quick")
    await asyncio.sleep(0)
    await home.scheduler.drain(grace_s=60)
    assert await home.code(prepared) == "draining"
    assert (len(home.scheduler.backlog), home.scheduler.running) == (0, 0)


async def test_when_the_scheduler_itself_is_stopped_everyone_is_told(house):
    home = await house({"write_tps": 10})
    running, waiting = home.ask(TEN), home.ask("never")
    await home.first(running, Delta)
    started = home.ask("not even begun", client="ben")
    home.tasks[1].cancel()
    assert {await home.code(key) for key in (running, waiting, started)} == {"draining"}


async def test_a_fault_of_our_own_is_told_as_internal_and_the_next_is_served(house, caplog):
    class Faulty(EchoEngine):
        async def generate(self, prompt, sampling):
            if "fault" in str(prompt):
                raise ZeroDivisionError
            async for piece in super().generate(prompt, sampling):
                yield piece

    home = await house(create=lambda: Faulty({}))
    assert await home.code(home.ask("fault")) == "internal"
    assert "ZeroDivisionError" in caplog.text
    assert (await home.end(home.ask("fine"))).content == "fine"


async def test_as_many_turns_run_at_once_as_the_engine_has_slots(house):
    home = await house({"parallel": 3, "write_tps": 10})
    before = asyncio.get_running_loop().time()
    keys = [home.ask(TEN) for _ in range(6)]
    await home.first(keys[0], Delta)
    assert (home.scheduler.running, len(home.scheduler.backlog)) == (3, 3)
    for key in keys:
        await home.end(key)
    assert asyncio.get_running_loop().time() - before == pytest.approx(2.0, abs=0.1)


async def test_a_slow_reader_that_keeps_nothing_resident_is_counted_in_the_estimate(house):
    home = await house({"prefix_cache": False, "read_tps": 14})
    home.scheduler.meter.suppose(14.0, 14.0)
    key = home.ask("word " * 112, timeout_s=600)
    [accepted] = home.of(key, Accepted)
    assert accepted.eta_s == pytest.approx(10, rel=0.1)
    refused = home.refused("word " * 1120, timeout_s=30)
    assert refused.code.name == "expired"
    home.scheduler.cancel(key, WireError("cancelled", "enough"))
    await home.end(key)


async def test_an_engine_with_a_cache_is_not_judged_by_the_length_of_a_prompt(house):
    home = await house({"prefix_cache": True})
    home.scheduler.meter.suppose(14.0, 14.0)
    key = home.ask("word " * 5, timeout_s=600)
    assert home.of(key, Accepted)[0].eta_s is None
    await home.end(key)
