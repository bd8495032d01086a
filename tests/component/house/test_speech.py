from __future__ import annotations

import itertools
import random
from typing import Final

import pytest

from custom_components.edge_agent.house.speech import Speakable


def spoken(*pieces: str) -> str:
    speakable = Speakable()
    return "".join(map(speakable.feed, pieces)) + speakable.finish()


CLEANED: Final = [
    ("**Bold** and *italic* and ***both***.", "Bold and italic and both."),
    ("__Bold__ and _italic_ and ~~gone~~.", "Bold and italic and gone."),
    ("**Note:** text", "Note: text"),
    ("# Heading\n## Another\ntext", "Heading\nAnother\ntext"),
    ("- one\n- two\n  - three\n* four\n+ five\n• six", "one\ntwo\nthree\nfour\nfive\nsix"),
    ("1. one\n2. two", "1. one\n2. two"),
    ("- **Lamp**: on", "Lamp: on"),
    ("> quoted\n> > twice", "quoted\ntwice"),
    ("text\n---\nmore\n***", "text\nmore\n"),
    ("Use `turn_on` now", "Use turn_on now"),
    ("Run:\n```python\na * b_c\n# no heading\n```\nDone", "Run:\na * b_c\n# no heading\nDone"),
    ("See [the manual](https://a.b/c_(d)) now", "See the manual now"),
    ("See [**bold** link](x)!", "See bold link!"),
    ("| Room | Temp |\n|---|:--:|\n| Kitchen | 21 |\n", "Room, Temp\nKitchen, 21\n"),
    ("| a | -5 | |", "a, -5"),
    ("Done \U0001f389", "Done"),
    ("Done \U0001f389!", "Done!"),
    ("Hello \U0001f44b\U0001f3fd world", "Hello world"),
    ("\U0001f3e0 Home", "Home"),
    ("\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "family"),
    ("\u2764\ufe0f love \u2600 sun", "love sun"),
    ("flag \U0001f1e9\U0001f1ea here", "flag here"),
    ("1\ufe0f\u20e3 First, 2\u20e3 second", "First, second"),
    ("\u00a9\ufe0f and \u00a9", "and \u00a9"),
    ("England \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f.", "England."),
    ("a\n\n\U0001f389\n\nb", "a\n\n\n\nb"),
]
KEPT: Final = [
    "2 * 3 = 6",
    "2*3*4 and 2 ** 3",
    "snake_case and intent__HassTurnOn",
    "#1 is first, the #2 second",
    "5 < 6 and 7 > 6",
    "It's Anna's lamp; the lamp 'x' \"y\".",
    "It costs $5, 3 \u20ac, \u00a32 or 100 \u00a5.",
    "21.5 \u00b0C, 40 %, -5 degrees, ~5 minutes",
    "-5 degrees\n-6 degrees",
    "[1] and [x] (y), ]( and [",
    "a | b",
    "Zwei  spaces\tand tabs  ",
    "line\nline\n\nparagraph\n",
    "\u0915\u094d\u200d\u0937 \u0645\u06cc\u200c\u062e",
    "\u00bfQu\u00e9 tal? \u00c7a va\u2026 \u2013 \u2014 \u201cquote\u201d",
    "http://a.b/c?d=e&f=g",
    "",
    " ",
    "\n",
]


@pytest.mark.parametrize(("text", "said"), CLEANED)
def test_what_only_eyes_can_use_is_not_spoken(text: str, said: str) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize("text", KEPT)
def test_what_can_be_spoken_stays_as_it_is(text: str) -> None:
    assert spoken(text) == text


@pytest.mark.parametrize("text", [text for text, _ in CLEANED] + KEPT)
def test_it_does_not_matter_where_the_text_was_cut(text: str) -> None:
    whole = spoken(text)
    assert spoken(*text) == whole
    for first, second in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert spoken(text[:first], text[first:second], text[second:]) == whole


def test_nor_does_it_for_any_text_at_all() -> None:
    alphabet = [
        "*",
        "**",
        "_",
        "`",
        "```",
        "~~",
        "[",
        "]",
        "(",
        ")",
        "](",
        "|",
        "-",
        ":",
        "#",
        ">",
        " ",
        "  ",
        "\n",
        "a",
        "B",
    ]
    alphabet += ["1", "\ufe0f", "\u20e3", "\u200d", "\U0001f389", "\u00a9", ".", "=", "+", "\u2022"]
    generator = random.Random(5)
    for _ in range(3000):
        pieces = generator.choices(alphabet, k=generator.randint(1, 14))
        whole = spoken("".join(pieces))
        assert spoken(*pieces) == spoken(*"".join(pieces)) == whole, pieces


def test_letters_come_out_at_once() -> None:
    speakable = Speakable()
    for piece in ("The", " kit", "chen", " lamp", " is", " on."):
        assert speakable.feed(piece) == piece


@pytest.mark.parametrize(
    ("begun", "said"),
    [
        ("**", ""),
        ("**B", "B"),
        ("a *", "a"),
        ("a *b", "a b"),
        ("snake_", "snake"),
        ("[", ""),
        ("[not a link] ", "[not a link]"),
        ("[a\n", "[a\n"),
        ("- ", ""),
        ("- x", "x"),
        ("4", ""),
        ("42 ", "42"),
        ("Hi!", "Hi!"),
    ],
)
def test_nothing_is_held_back_longer_than_it_must(begun: str, said: str) -> None:
    assert Speakable().feed(begun) == said


def test_a_bracket_that_never_closes_does_not_hold_the_speech_up() -> None:
    assert len(Speakable().feed("[" + "word " * 100)) > 400
    assert len(Speakable().feed("[a](" + "b" * 3000)) > 2000
