"""What the node measures of itself."""

import pytest

from edge_agent.engines.base import Usage
from edge_agent.serving.meter import Meter


def test_nothing_is_estimated_before_something_is_measured():
    meter = Meter()
    assert (meter.wait_s(10, 1), meter.reading_s(1000), meter.cache_hits) == (0.0, 0.0, 0.0)


def test_the_first_run_sets_the_speeds():
    meter = Meter()
    meter.record(Usage(prompt=100, cached=0, completion=21), first_token_s=2.0, run_s=4.0)
    assert (meter.read_tps, meter.write_tps, meter.first_token_s, meter.run_s) == (50.0, 10.0, 2.0, 4.0)
    assert meter.reading_s(200) == 4.0
    assert meter.wait_s(6, 3) == 8.0


def test_what_an_engine_says_of_itself_counts_until_something_is_measured():
    meter = Meter()
    meter.suppose(14.0, 13.0)
    assert (meter.read_tps, meter.write_tps, meter.reading_s(28)) == (14.0, 13.0, 2.0)
    meter.record(Usage(prompt=100, cached=0, completion=21), first_token_s=2.0, run_s=4.0)
    measured = meter.read_tps
    assert measured > 14.0
    meter.suppose(1.0, 1.0)
    assert meter.read_tps == measured


def test_later_runs_move_the_mean_by_a_fifth():
    meter = Meter()
    meter.record(Usage(10, 0, 11), 1.0, 2.0)
    meter.record(Usage(10, 0, 11), 1.0, 7.0)
    assert meter.run_s == pytest.approx(3.0)


def test_cached_and_short_prompts_say_nothing_of_reading_speed():
    meter = Meter()
    meter.record(Usage(prompt=1000, cached=990, completion=1), 0.1, 0.1)
    assert (meter.read_tps, meter.write_tps) == (0.0, 0.0)
    assert meter.cache_hits == pytest.approx(0.99)


def test_a_wait_behind_an_engine_without_slots_is_still_a_number():
    meter = Meter()
    meter.record(Usage(10, 0, 2), 1.0, 2.0)
    assert meter.wait_s(1, 0) == 2.0
