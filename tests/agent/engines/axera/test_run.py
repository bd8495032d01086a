"""Token ids put together from the calls of `/decode`, however often a token repeats itself."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.engines.axera.run import GROUP, Run, Written

IDS = st.lists(st.integers(0, 2), max_size=20)
"""Few tokens, so that they repeat."""


def calls(ids: list[int], *, interrupted: bool) -> list[list[int]]:
    """What the program decodes in live mode: threes, the rest unless it was interrupted, and everything."""
    groups = [ids[start : start + GROUP] for start in range(0, len(ids), GROUP)]
    if groups and len(groups[-1]) < GROUP and interrupted:
        groups.pop()
    return [*groups, ids]


@given(IDS, st.booleans())
@example([7] * 3, False)
@example([7] * 6, False)
@example([7] * 9, True)
@example([7, 7], True)
def test_the_ids_are_those_that_were_written(ids, interrupted):
    written = Written()
    for call in calls(ids, interrupted=interrupted):
        before = list(written.ids)
        assert written.take(call)
        assert written.ids[: len(before)] == before
        assert written.ids == ids[: len(written.ids)]
    assert written.ids == ids
    assert written.ended or len(ids) == 0 or (interrupted and len(ids) <= GROUP)


@given(IDS)
def test_at_most_one_group_is_held_back(ids):
    written = Written()
    for number, call in enumerate(calls(ids, interrupted=False)[:-1], 1):
        written.take(call)
        assert len(written.ids) >= min(number * GROUP, len(ids)) - GROUP


def test_calls_of_one_answer_that_contradict_each_other_are_noticed():
    written = Written()
    assert written.take([1, 2, 3])
    assert not written.take([3, 2, 1, 0])


def test_an_answer_ends_at_an_end_token_at_the_room_or_with_the_run():
    for ids, room, over, expected in (
        ([5, 6, 9, 7], 10, False, ([5, 6], "stop")),
        ([5, 6, 7], 2, False, ([5, 6], "length")),
        ([5, 6, 9], 2, False, ([5, 6], "length")),
        ([5, 6], 10, False, ([5, 6], None)),
        ([5, 6], 10, True, ([5, 6], "stop")),
        ([], 10, True, ([], "stop")),
    ):
        run = Run([1], 0.0)
        run.written.ids, run.over = ids, over
        assert run.take(room, frozenset({9})) == expected
