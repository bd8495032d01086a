from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino_genai")

from edge_agent.engines.openvino.residency import Reading, Residency

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(st.lists(IDS, max_size=5), IDS)
@settings(max_examples=200, deadline=None)
def test_what_is_found_was_stored_and_never_is_the_whole_prompt(stored, ids):
    residency = Residency(capacity=1000, size=4)
    for each in stored:
        residency.store(each)
    found = residency.lookup(ids)
    assert 0 <= found.tokens < len(ids)
    shared = max((sum(1 for _ in _common(ids, each)) for each in stored), default=0)
    assert found.tokens <= shared
    assert found.tokens >= min(shared // 4 * 4, len(ids) - 1)


def _common(left, right):
    for a, b in zip(left, right, strict=False):
        if a != b:
            return
        yield a


def test_two_prompts_that_begin_inside_one_open_block_are_told_apart_from_others():
    residency = Residency(capacity=1000, size=4)
    residency.store([1, 2, 3, 4, 5, 6])
    one, other = residency.lookup([1, 2, 3, 4, 5, 6, 7]), residency.lookup([1, 2, 3, 4, 5, 6, 8])
    assert (one.tokens, one.open) == (other.tokens, other.open)
    assert one.open is not None
    assert residency.lookup([1, 2, 3, 4, 9]).open is None
    assert residency.lookup([1, 2, 3, 4, 5, 6]).open == one.open


def test_the_least_recently_used_goes_first():
    residency = Residency(capacity=2, size=2)
    residency.store([1, 1])
    residency.store([2, 2])
    assert residency.lookup([1, 1, 0]).tokens == 2
    residency.store([3, 3])
    assert residency.lookup([2, 2, 0]).tokens == 0
    assert residency.lookup([1, 1, 0]).tokens == 2


def test_reading_is_corrected_by_the_steps_it_took():
    late, early = Reading(100, 80), Reading(100, 0)
    late.step(20, wrote=False)
    assert (late.done, late.cached) == (99, 60)
    early.step(32, wrote=True)
    assert (early.done, early.cached) == (100, 68)
