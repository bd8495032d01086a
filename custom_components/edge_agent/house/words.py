"""Words as people, speech recognition and small models write them, compared by what they mean. Pure."""

import difflib
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

type Words = tuple[str, ...]


def word_set(text: str) -> frozenset[str]:
    """A set of words, written as a text."""
    return frozenset(text.split())


_ARTICLES: Final = word_set(
    "a an the my our your "
    "der die das den dem des ein eine einen einem einer mein meine meinen meinem meiner unser unsere "
    "le la les l un une du de d mon ma mes notre nos "
    "el los las unos unas mi mis del nuestra nuestro "
    "het een mijn onze ons"
)
_ENDINGS: Final = ("s", "es", "en", "n", "e", "er", "x")
"""Of plurals, in the five languages that confirmations are spoken in."""
_ALIKE: Final = 0.8
_SHORT: Final = 4
"""A word shorter than this has no typing errors: what looks like one is another word."""

type Kind = tuple[str, str | None]
"""A domain and, where the word says more than that, a device class."""

_KINDS: Final[Mapping[str, Kind]] = {
    word: kind
    for kind, listed in {
        ("light", None): "light lights lighting bulb bulbs licht lichter beleuchtung lumiere lumieres luz luces "
        "lichten verlichting",
        ("cover", None): "cover covers",
        ("cover", "blind"): "blind blinds jalousie jalousien rollo rollos store stores persiana persianas",
        ("cover", "shade"): "shade shades",
        ("cover", "shutter"): "shutter shutters rollladen rolladen volet volets rolluik rolluiken",
        ("cover", "curtain"): "curtain curtains vorhang vorhange rideau rideaux cortina cortinas gordijn gordijnen",
        ("fan", None): "fan fans ventilator ventilatoren ventilateur ventilateurs ventilador ventiladores",
        ("switch", None): "switch switches schalter schakelaar schakelaars",
        ("switch", "outlet"): "plug plugs socket sockets outlet outlets steckdose steckdosen prise prises enchufe "
        "enchufes stopcontact stopcontacten",
        ("lock", None): "lock locks schloss schlosser serrure serrures cerradura cerraduras slot sloten",
        ("climate", None): "climate thermostat thermostats heating heizung heizungen chauffage calefaccion verwarming",
        ("media_player", None): "mediaplayer mediaplayers player players",
        ("media_player", "tv"): "tv tvs television televisions fernseher televisor televisie",
        ("media_player", "speaker"): "speaker speakers lautsprecher enceinte enceintes altavoz altavoces luidspreker",
        ("vacuum", None): "vacuum vacuums staubsauger aspirateur aspirateurs aspiradora aspiradoras stofzuiger",
    }.items()
    for word in listed.split()
}
_EVERY: Final = word_set("all every everything alle alles tous toutes tout todos todas")
_LINKS: Final = word_set(
    "in on at of for from the my our im am auf fur von der die das dem dans sur pour de du des la le les "
    "en por para del el los las op voor van het"
)
"""Words that only say how the others belong together."""


@lru_cache(4096)
def plain(text: str) -> Words:
    """The words of a text without case, accents and marks."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return tuple(re.findall(r"[^\W_]+", "".join(char for char in folded if not unicodedata.combining(char))))


def bare(text: str) -> Words:
    """The plain words of a text without the articles that it begins with.

    For what was said, never for names: in some home, the den is a room and no article.
    """
    words = plain(text)
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return words


def squeezed(text: str) -> str:
    """All letters and digits of a text in one: `turn_on`, `Turn On` and `turnOn` are the same."""
    return "".join(re.findall(r"[^\W_]+", text.casefold()))


def is_plural(one: str, other: str) -> bool:
    """Whether two words are the same, but for an ending that makes a plural."""
    short, long = sorted((one, other), key=len)
    if len(short) <= 2:
        return short == long
    return long in {short, f"{short[:-1]}ies", *(short + ending for ending in _ENDINGS)}


def is_typo(one: str, other: str) -> bool:
    """Whether one word is the other with a slip of the finger, or in the plural; numbers have no slips."""
    if is_plural(one, other):
        return True
    if min(len(one), len(other)) < _SHORT or one[0] != other[0] or not (one.isalpha() and other.isalpha()):
        return False
    return difflib.SequenceMatcher(a=one, b=other).ratio() >= _ALIKE or _is_swapped(one, other)


def _is_swapped(one: str, other: str) -> bool:
    """Whether two letters that stand together changed places, and nothing else."""
    if len(one) != len(other):
        return False
    first, *rest = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return rest == [first + 1] and one[first : first + 2] == other[first : first + 2][::-1]


def same(one: Words, other: Words, alike: Callable[[str, str], bool]) -> bool:
    """Whether two names have the same words in the same order, each compared by `alike`."""
    return len(one) == len(other) and all(map(alike, one, other, strict=True))


def reads(text: str, name: str, alike: Callable[[str, str], bool] = operator.eq) -> bool:
    """Whether a text, with or without its article, is a name, each word compared by `alike`."""
    own = plain(name)
    return same(plain(text), own, alike) or same(bare(text), own, alike)


def pick(text: str, options: Iterable[str]) -> str | None:
    """The one option that a text means, if it can be told; the text itself where it is an option."""
    listed = list(options)
    if text in listed:
        return text
    tests: tuple[Callable[[str], bool], ...] = (
        lambda option: squeezed(option) == squeezed(text),
        lambda option: reads(text, option, is_plural),
        lambda option: reads(text, option, is_typo),
    )
    for meant in tests:
        if found := [option for option in listed if meant(option)]:
            return found[0] if len(found) == 1 else None
    return None


def kind_of(text: str) -> Kind | None:
    """The kind of thing that a text means, if it says nothing else: "the lights" → light."""
    return _KINDS.get("".join(bare(text)))


def is_every(word: str) -> bool:
    """Whether a plain word asks for all there is."""
    return word in _EVERY


def is_link(word: str) -> bool:
    """Whether a plain word means nothing on its own."""
    return word in _LINKS


def near(text: str, names: Iterable[str], most: int = 5) -> list[str]:
    """The names that come closest to a text, and if none is close, the first few."""
    by_key = {" ".join(plain(name)): name for name in names}
    close: list[str] = difflib.get_close_matches(" ".join(plain(text)), by_key, most, 0.5)
    found: list[str] = [by_key[key] for key in close]
    return found or sorted(by_key.values())[:most]
