from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.chat.stops import StopFinder

LETTERS = st.text("ab\n", max_size=8)


def expected(text, stops):
    hits = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(hits)[1]], True) if hits else (text, False)


@settings(deadline=None, max_examples=300)
@given(
    pieces=st.lists(LETTERS, min_size=1, max_size=8),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3),
    finely=st.booleans(),
)
def test_however_the_text_is_cut_it_ends_at_the_first_stop(pieces, stops, finely):
    text = "".join(pieces)
    finder, out, found = StopFinder(stops), "", False
    for piece in text if finely else pieces:
        safe, found = finder.feed(piece)
        out += safe
        assert expected(text, stops)[0].startswith(out)
    assert (out + finder.flush(), found) == expected(text, stops)


def test_text_that_cannot_become_a_stop_goes_out_at_once():
    finder = StopFinder(["\nUser:"])
    assert finder.feed("Hello\nUs") == ("Hello", False)
    assert finder.feed("ual") == ("\nUsual", False)


def test_nothing_comes_out_after_a_stop():
    finder = StopFinder(["END"])
    assert finder.feed("a END b") == ("a ", True)
    assert finder.feed("more") == ("", True)
    assert finder.flush() == ""
