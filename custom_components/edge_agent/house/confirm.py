"""The sentence spoken after actions that all succeeded, so that the model need not write it. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .sentences import LANGUAGES, Language
from .words import word_set

_ENGLISH: Final = LANGUAGES["en"]
_BRIEF: Final = 40
"""Two names up to this length are said; longer ones are counted."""
_BREATH: Final = 100
"""Two sentences up to this length are said; longer ones become one that is sure to be short."""


@dataclass(frozen=True, slots=True)
class Done:
    """A tool that was called, and what came back."""

    tool: str
    arguments: Mapping[str, Any]
    response: Mapping[str, Any] | None
    """An `IntentResponseDict`, or what else the tool gave."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One thing to tell: what was done, to what, where."""

    said: str
    things: tuple[tuple[str, str], ...] = ()
    """Domain and name of each."""
    places: tuple[tuple[str, str], ...] = ()
    """Kind and name of each."""
    words: tuple[tuple[str, str], ...] = ()
    """What else stands in the sentence."""


def confirmation(language: str, done: Sequence[Done]) -> str | None:
    """Say what was done; None where only the model can: on any failure, and for what is not known here."""
    spoken = LANGUAGES.get(language.lower().partition("-")[0].partition("_")[0])
    if spoken is None or not done:
        return None
    told: dict[tuple[str, Any], _Told] = {}
    for each in done:
        one = _told(each, spoken)
        if one is None:
            return None
        key = (one.said, one.words)
        told[key] = _together(told[key], one) if key in told else one
    sentences = list(dict.fromkeys(_sentence(one, spoken) for one in told.values()))
    text = " ".join(sentences)
    return text if len(sentences) == 1 or (len(sentences) == 2 and len(text) <= _BREATH) else spoken.said["all"]


# What was done --------------------------------------------------------------------------------------------------

_SWITCHED_ON: Final = {
    "cover": "open",
    "valve": "open",
    "lock": "lock",
    "scene": "activate",
    "script": "start",
    "button": "press",
    "input_button": "press",
}
_SWITCHED_OFF: Final = {"cover": "close", "valve": "close", "lock": "unlock"}
_ACTED: Final[Mapping[str, str]] = {
    "HassTurnOn": "on",
    "HassTurnOff": "off",
    "HassSetPosition": "set",
    "HassStopMoving": "stop",
    "HassLightSet": "set",
    "HassClimateSetTemperature": "set",
    "HassFanSetSpeed": "set",
    "HassMediaNext": "next",
    "HassMediaPause": "pause",
    "HassMediaPlayerMute": "mute",
    "HassMediaPlayerUnmute": "unmute",
    "HassMediaPrevious": "previous",
    "HassMediaUnpause": "resume",
    "HassSetVolume": "volume",
    "HassSetVolumeRelative": "volume",
    "HassVacuumStart": "start",
    "HassVacuumReturnToBase": "dock",
    "HassVacuumCleanArea": "clean",
    "HassLawnMowerStartMowing": "start",
    "HassLawnMowerDock": "dock",
    "HassListAddItem": "add",
    "HassListCompleteItem": "complete",
    "HassListRemoveItem": "remove",
    "HassBroadcast": "announce",
}
"""Intents that name in their response what they acted on."""
_WROUGHT: Final[Mapping[str, str]] = {
    "HassStartTimer": "timer",
    "HassCancelTimer": "cancel timer",
    "HassCancelAllTimers": "cancel timers",
    "HassIncreaseTimer": "more time",
    "HassDecreaseTimer": "less time",
    "HassPauseTimer": "pause timer",
    "HassUnpauseTimer": "resume timer",
    "HassHumidifierSetpoint": "set",
    "HassHumidifierMode": "set",
}
"""Intents whose response names nothing: it says done, or fails."""
_SPEAKS_ENGLISH: Final = frozenset({"HassHumidifierSetpoint", "HassHumidifierMode"})


def _told(done: Done, spoken: Language) -> _Told | None:
    intent = done.tool.rpartition("__")[2]
    response = done.response
    if not isinstance(response, Mapping) or response.get("response_type") != "action_done":
        return None
    data = response.get("data", {})
    if data.get("failed"):
        return None
    own = response.get("speech", {}).get("plain", {}).get("speech")
    if own and not (intent in _SPEAKS_ENGLISH and spoken is not _ENGLISH):
        return _Told("own", words=(("text", str(own)),))
    if intent in _WROUGHT:
        return _wrought(intent, done.arguments, spoken)
    success = data.get("success", ())
    things = tuple(
        (str(each.get("id", "")).partition(".")[0], each["name"]) for each in success if each["type"] == "entity"
    )
    if intent not in _ACTED or not things:
        return None
    places = tuple((str(each["type"]), each["name"]) for each in success if each["type"] in ("area", "floor"))
    words = _words(intent, done.arguments, places, spoken)
    return None if words is None else _Told(_verb(intent, things, done.arguments), things, places, words)


def _verb(intent: str, things: Sequence[tuple[str, str]], arguments: Mapping[str, Any]) -> str:
    said = _ACTED[intent]
    if intent == "HassSetVolumeRelative":
        step = arguments.get("volume_step")
        return step if step in ("up", "down") else "up" if isinstance(step, int) and step > 0 else "down"
    special = {"HassTurnOn": _SWITCHED_ON, "HassTurnOff": _SWITCHED_OFF}.get(intent, {})
    verbs = {special.get(domain, said) for domain, _ in things}
    return verbs.pop() if len(verbs) == 1 else said


def _wrought(intent: str, arguments: Mapping[str, Any], spoken: Language) -> _Told | None:
    if intent.startswith("HassHumidifier"):
        value = _percent(arguments["humidity"]) if "humidity" in arguments else str(arguments.get("mode", ""))
        return _Told("set", (("humidifier", str(arguments.get("name", ""))),), words=(("value", value),))
    said, value = _WROUGHT[intent], _duration(arguments, spoken)
    if said in ("timer", "more time", "less time") and not value:
        return None
    if said == "timer" and arguments.get("conversation_command"):
        said = "later"
    elif said == "timer" and arguments.get("name"):
        name = str(arguments["name"])
        return _Told("named timer", words=(("name", name[:1].upper() + name[1:]), ("value", value)))
    return _Told(said, words=(("value", value),))


# The words of a sentence ----------------------------------------------------------------------------------------


def _words(
    intent: str, arguments: Mapping[str, Any], places: Sequence[tuple[str, str]], spoken: Language
) -> tuple[tuple[str, str], ...] | None:
    """What the sentence says beside the things; None if that cannot be put into words."""
    if intent.startswith("HassList"):
        return (("item", str(arguments.get("item", ""))),)
    if intent == "HassVacuumCleanArea":
        return (("value", " ".join(_english_place(name) if spoken is _ENGLISH else name for _, name in places)),)
    if _ACTED[intent] not in ("set", "volume") or intent == "HassSetVolumeRelative":
        return (("value", ""),)
    values = list(_values(intent, arguments, spoken))
    if not values or None in values:
        return None
    return (("value", _joined([value for value in values if value], spoken)),)


def _values(intent: str, arguments: Mapping[str, Any], spoken: Language) -> Iterator[str | None]:
    if color := arguments.get("color"):
        yield spoken.colors.get(str(color), str(color) if spoken is _ENGLISH else None)
    if "temperature" in arguments:
        number = _number(arguments["temperature"], spoken)
        yield f"{number} Kelvin" if intent == "HassLightSet" else spoken.degrees.format(number=number)
    for slot in ("brightness", "position", "percentage", "volume_level"):
        if slot in arguments:
            yield _percent(arguments[slot])


def _percent(number: Any) -> str:
    return f"{number} %"


def _number(number: Any, spoken: Language) -> str:
    text = f"{number:g}" if isinstance(number, (int, float)) else str(number)
    return text if spoken is _ENGLISH else text.replace(".", ",")


def _duration(arguments: Mapping[str, Any], spoken: Language) -> str:
    counted = [(int(arguments.get(unit) or 0), words) for unit, words in spoken.times.items()]
    return _joined([f"{count} {one if count == 1 else many}" for count, (one, many) in counted if count], spoken)


def _joined(parts: Sequence[str], spoken: Language) -> str:
    *most, last = parts or ("",)
    return spoken.both.format(one=", ".join(most), other=last) if most else last


# The sentence ---------------------------------------------------------------------------------------------------


def _together(one: _Told, other: _Told) -> _Told:
    """The same done twice, as one; what was done in different places was done in none."""
    places = one.places if one.places == other.places else ()
    return _Told(one.said, tuple(dict.fromkeys((*one.things, *other.things))), places, one.words)


def _sentence(told: _Told, spoken: Language) -> str:
    words = dict(told.words)
    if told.said == "own":
        return words["text"]
    english = spoken is _ENGLISH
    names = [_english_name(name) if english else name for _, name in told.things]
    what, counted = _joined(names, spoken), len(names) > 2 or sum(map(len, names)) > _BRIEF
    if len(names) > 1 and counted:
        kinds = {domain for domain, _ in told.things}
        what = f"{len(names)} {spoken.nouns.get(kinds.pop() if len(kinds) == 1 else '', spoken.nouns[''])}"
    place = told.places[0] if len(names) > 1 and counted and len(told.places) == 1 else None
    if place and english:
        what = _english_there(what, *place)
    sentence = spoken.said[told.said].format(what=what, **words)
    sentence = sentence[:1].upper() + sentence[1:]
    if spoken is LANGUAGES["fr"]:
        sentence = re.sub(r"\bde (?=[aeiouhéèêâîôAEIOUHÉÈÊÂÎÔ])", "d'", sentence)
    if place and not english:
        return spoken.place.format(place=place[1], sentence=sentence[:1].lower() + sentence[1:])
    return sentence


_COMMON: Final = word_set(
    "blind blinds cover curtain curtains door fan fireplace gate heater heating humidifier lamp lamps light lights "
    "lock machine outlet player plug radiator shade shades shutter shutters speaker spotlights strip switch thermostat "
    "tv vacuum valve window"
)
"""Words for kinds of things: what a name that ends in one calls takes an article."""


def _english_name(name: str) -> str:
    words = name.split()
    if not words or words[-1].casefold() not in _COMMON or "'" in words[0]:
        return name
    return f"the {' '.join(map(_lowered, words))}"


def _english_place(name: str) -> str:
    return name if "'" in name else f"the {' '.join(map(_lowered, name.split()))}"


def _english_there(what: str, kind: str, name: str) -> str:
    if kind == "area":
        return _ENGLISH.place.format(what=what, place=_english_place(name))
    lowered = " ".join(map(_lowered, name.split()))
    return f"{what} on the {lowered}" if "floor" in lowered else f"{what} ({lowered})"


def _lowered(word: str) -> str:
    """Without its capital, if that is all it has: the TV stays one."""
    return word.lower() if word.istitle() else word
