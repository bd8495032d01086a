"""What a call acts on: its name, area, floor, domains and device classes, brought to agree with the house. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import words
from .fit import Impossible, as_list
from .model import House, Thing


@dataclass(frozen=True, slots=True)
class Target:
    """The slots that say what a call acts on, by role: they explain, replace and contradict each other."""

    house: House
    area: str | None
    """Where the speaker is."""
    roles: Collection[str]
    """Those that the tool has slots for."""
    allowed: Mapping[str, Collection[str]]
    """What each of them may say."""

    def repaired(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give the same slots so that they agree with each other and with the house; raises `Impossible`."""
        target: dict[str, Any] = {
            role: [str(each) for each in as_list(value)] if role in _LISTS else _one(value, role)
            for role, value in given.items()
        }
        if "names" in target:
            self._named(target)
        elif "areas" in target and not self._place(target["areas"]) and self._things(target["areas"], _EXACT):
            target["names"] = target.pop("areas")
            self._named(target)
        for role in ("areas", "floors"):
            if role in target:
                self._placed(role, target)
        for role in _LISTS:
            if role in target:
                self._listed(role, target)
        return target

    # The name ----------------------------------------------------------------

    def _named(self, target: dict[str, Any]) -> None:
        text = target.pop("names")
        things = self._things(text, _EXACT)
        if not things and (self._is_place(text, target) or self._is_kind(text, target)):
            return
        things = things or self._things(text, _ALIKE)
        things = self._narrowed(things, target)
        if not things:
            raise Impossible(f"nothing is called {text!r}; there is {_listed(words.near(text, self._names()))}")
        if len({thing.name for thing in things}) > 1:
            raise Impossible(f"{text!r} could be {_listed(thing.name for thing in things)}: say which")
        target["names"] = text if text in self._names() else things[0].name
        self._drop_contradictions(things, target)

    def _names(self) -> Collection[str]:
        return self.allowed["names"] or [name for thing in self.house.things for name in thing.names]

    def _reachable(self) -> Iterable[Thing]:
        allowed = set(self._names())
        return (thing for thing in self.house.things if not allowed.isdisjoint(thing.names))

    def _things(self, text: str, tests: Iterable[Callable[[str, Thing], bool]]) -> list[Thing]:
        """The things that pass the first test that any thing passes."""
        for test in tests:
            if found := [thing for thing in self._reachable() if test(text, thing)]:
                return found
        return []

    def _narrowed(self, things: list[Thing], target: Mapping[str, Any]) -> list[Thing]:
        """Of several things with different names, those that the rest of the call means, or that are here."""
        given = self._place(target.get("areas", ""))
        kinds = [(words.kind_of(str(kind)) or (kind,))[0] for kind in target.get("domains", ())]
        for fits in (
            lambda thing: given and thing.area == given,
            lambda thing: thing.domain in kinds,
            lambda thing: self.area and thing.area == self.area,
        ):
            if len({thing.name for thing in things}) > 1:
                things = [thing for thing in things if fits(thing)] or things
        return things

    def _drop_contradictions(self, things: list[Thing], target: dict[str, Any]) -> None:
        """A name that is clear needs nothing beside it; what contradicts it was invented."""
        if "areas" in target and _nearly(target["areas"], self.house.areas) not in {thing.area for thing in things}:
            del target["areas"]
        if "floors" in target and _nearly(target["floors"], self.house.floors) not in {thing.floor for thing in things}:
            del target["floors"]
        if not {thing.domain for thing in things}.intersection(target.get("domains", ())):
            target.pop("domains", None)
        if not {thing.device_class for thing in things}.intersection(target.get("device_classes", ())):
            target.pop("device_classes", None)

    # What is no name -------------------------------------------------------------

    def _is_place(self, text: str, target: dict[str, Any]) -> bool:
        """A place given as the name of a thing moves where it belongs."""
        for role, place in (("areas", self._place(text)), ("floors", self._level(text))):
            if place and role in self.roles:
                target.setdefault(role, text if text in self.allowed[role] else place)
                return True
        return False

    def _is_kind(self, text: str, target: dict[str, Any]) -> bool:
        """A kind of thing given as a name, alone or with its place: "all lights", "lights in the kitchen"."""
        area, rest = self._parted([word for word in words.plain(text) if not words.is_link(word)])
        every = any(map(words.is_every, rest))
        spoken = " ".join(word for word in rest if not words.is_every(word))
        if spoken:
            if not self._is_meant(words.kind_of(spoken), target):
                return False
        elif not every:
            return False
        elif len(self._own()) > 1 and target.keys().isdisjoint(("areas", "floors", *_LISTS)):
            raise Impossible(f"{text!r} is too much: say of which domain, or in which area")
        here = None if every or "floors" in target or self.area not in self.house.areas else self.area
        if "areas" in self.roles and (area or here):
            target.setdefault("areas", area or here)
        return True

    def _is_meant(self, kind: words.Kind | None, target: dict[str, Any]) -> bool:
        """Say a kind with the slots there are; a device class that cannot be said would reach too far without it."""
        domain, device_class = kind or ("", None)
        if device_class and device_class not in self.allowed.get("device_classes", ()):
            return False
        if domain in self.allowed.get("domains", ()):
            target["domains"] = [domain]
        elif self._own() != {domain}:
            return False
        if device_class:
            target["device_classes"] = [device_class]
        return True

    def _own(self) -> set[str]:
        return {thing.domain for thing in self._reachable()}

    def _parted(self, spoken: list[str]) -> tuple[str | None, list[str]]:
        """The area that some of the words name, and the other words."""
        called = {words.plain(name): area for area, names in self.house.areas.items() for name in (area, *names)}
        for name in sorted(called, key=len, reverse=True):
            if set(name) <= set(spoken):
                return called[name], [word for word in spoken if word not in name]
        return None, spoken

    # Places and kinds ----------------------------------------------------------------

    def _place(self, text: str) -> str | None:
        return _called(text, self.house.areas)

    def _level(self, text: str) -> str | None:
        return _called(text, self.house.floors)

    def _placed(self, role: str, target: dict[str, Any]) -> None:
        """An area by its name, or a floor; each is often taken for the other."""
        text = target.pop(role)
        other, own, others = (
            ("floors", self._place, self._level) if role == "areas" else ("areas", self._level, self._place)
        )
        if text in self.allowed[role]:
            target[role] = text
        elif place := own(text):
            target[role] = place
        elif (place := others(text)) and other in self.roles:
            target.setdefault(other, place)
        elif place := words.pick(text, self.allowed[role]):
            target[role] = place
        else:
            near = _listed(words.near(text, self.allowed[role]))
            raise Impossible(f"there is no {role.removesuffix('s')} {text!r}; there is {near}")

    def _listed(self, role: str, target: dict[str, Any]) -> None:
        """Domains and device classes: those that are exposed, by the words people have for them."""
        given = [str(each) for each in target.pop(role)]
        for text in dict.fromkeys(given):
            kind, before = words.kind_of(text), target.get(role, [])
            if found := words.pick(text, self.allowed[role]):
                target[role] = [found]
            elif role == "device_classes" and (kind[0] if kind else text) in target.get("domains", ()):
                continue  # It says the domain once more.
            elif role == "device_classes" or not self._is_meant(kind, target):
                raise Impossible(f"no {_WORDS[role]} is {text!r}; there is {_listed(self.allowed[role])}")
            target[role] = [*dict.fromkeys((*before, *target.get(role, ())))]


ROLES: Final = ("names", "areas", "floors", "domains", "device_classes")
_LISTS: Final = ("domains", "device_classes")
_WORDS: Final = {"domains": "domain", "device_classes": "device class"}


def _one(value: Any, role: str) -> str:
    if isinstance(value, list) and len(value) > 1:
        raise Impossible(f"only one of the {role} can be given: call the tool once for each")
    return str(value[0] if isinstance(value, list) else value).strip()


def _called(text: str, places: Mapping[str, tuple[str, ...]]) -> str | None:
    """The place that a text is the name or an alias of."""
    names = {name: place for place, aliases in places.items() for name in (*aliases, place)}
    if text in names:
        return names[text]
    found = {names[name] for name in names if words.reads(text, name, words.is_plural)}
    return found.pop() if len(found) == 1 else None


def _nearly(text: str, places: Mapping[str, tuple[str, ...]]) -> str | None:
    return _called(text, places) or words.pick(text, places)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"


def _any_name(alike: Callable[[str, str], bool]) -> Callable[[str, Thing], bool]:
    return lambda text, thing: any(alike(text, name) for name in thing.names)


def _is_kind(word: str, thing: Thing) -> bool:
    kind = words.kind_of(word)
    return kind is not None and kind[0] == thing.domain


def _is_part(text: str, thing: Thing) -> bool:
    """Whether the text is a part of the thing's name, or its whole name and what or where it is."""
    given = [word for word in words.plain(text) if not words.is_link(word)]
    around = {*words.plain(thing.area or ""), *words.plain(thing.floor or "")}

    def is_meant(name: words.Words) -> bool:
        rest = [word for word in given if not any(words.is_typo(word, own) for own in name)]
        whole = len(given) - len(rest) >= len(name)
        return not rest or (whole and all(word in around or _is_kind(word, thing) for word in rest))

    return any(is_meant(words.plain(name)) for name in thing.names)


_EXACT: Final[tuple[Callable[[str, Thing], bool], ...]] = (
    _any_name(lambda text, name: text == name),
    _any_name(lambda text, name: text.strip().casefold() == name.casefold()),
    lambda text, thing: text.strip().casefold() == thing.entity_id,
    _any_name(lambda text, name: words.squeezed(text) == words.squeezed(name)),
    _any_name(words.reads),
    _any_name(lambda text, name: words.reads(text, name, words.is_plural)),
    lambda text, thing: words.squeezed(text.rpartition(".")[2]) == words.squeezed(thing.entity_id.partition(".")[2]),
)
_ALIKE: Final[tuple[Callable[[str, Thing], bool], ...]] = (
    _any_name(lambda text, name: words.reads(text, name, words.is_typo)),
    _any_name(lambda text, name: sorted(words.bare(text)) == sorted(words.plain(name))),
    _is_part,
)
"""Tests of whether a text means a thing, from the surest to the least sure."""
