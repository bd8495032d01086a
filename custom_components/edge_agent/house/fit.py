"""A value that is nearly what its schema wants, made so. Pure."""

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from . import words

type Schema = Mapping[str, Any]


class Impossible(Exception):
    """No argument can be made of what was given; `problem` says so to the model that gave it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: small models fill every slot they know with something."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def is_array(schema: Schema) -> bool:
    """Whether a slot takes several values."""
    return schema.get("type") == "array"


def resolve(schema: Any, defs: Schema) -> Schema:
    """Follow the references of a schema."""
    for _ in range(8):
        if not (isinstance(schema, Mapping) and "$ref" in schema):
            break
        schema = defs.get(str(schema["$ref"]).removeprefix("#/$defs/"), {})
    return schema if isinstance(schema, Mapping) else {}


def fit(value: Any, schema: Any, defs: Schema, slot: str) -> Any:
    """Make a value fit; what fits comes back as it is. Raises `Impossible`."""
    schema = resolve(schema, defs)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _either(value, [resolve(option, defs) for option in options], defs, slot)
    if "enum" in schema or "const" in schema:
        return _chosen(value, schema.get("enum", [schema.get("const")]), slot)
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either(value, [{**schema, "type": each} for each in kind], defs, slot)
    return _FITS[kind](value, schema, defs, slot) if kind in _FITS else value


def as_object(given: Any, what: str) -> dict[str, Any]:
    """An object, also from JSON text, also from JSON text in JSON text."""
    for _ in range(2):
        if isinstance(given, str):
            with suppress(ValueError):
                given = json.loads(given)
    if is_blank(given):
        return {}
    if not isinstance(given, Mapping):
        raise Impossible(f"{what} must be a JSON object")
    return dict(given)


def as_list(value: Any) -> list[Any]:
    """A list, also from its JSON text, from a comma-separated text or from its only item."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value) if value.lstrip().startswith("[") else value
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _either(value: Any, options: list[Schema], defs: Schema, slot: str) -> Any:
    fitted, problems = [], []
    for option in options:
        try:
            fitted.append(fit(value, option, defs, slot))
        except Impossible as error:
            problems.append(error.problem)
    for each in fitted:
        if each == value and type(each) is type(value):
            return value
    if not fitted:
        raise Impossible("; or ".join(problems))
    return fitted[0]


def _chosen(value: Any, options: list[Any], slot: str) -> Any:
    """One of the options; the only one, of a list of one."""
    if value in options:
        return value
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if (found := words.pick(str(value), [str(option) for option in options])) is not None:
        return next(option for option in options if str(option) == found)
    listed = ", ".join(map(str, options[:12] if len(options) <= 12 else words.near(str(value), map(str, options))))
    raise Impossible(f"{slot} cannot be {value!r}; it can be {listed}")


def _text(value: Any, _: Schema, __: Schema, slot: str) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e6 else str(value)
    raise Impossible(f"{slot} must be one text")


_TRUE: Final = words.word_set("true yes on 1 ja oui si wahr vrai waar an aan")
_FALSE: Final = words.word_set("false no off 0 nein non nee falsch faux onwaar aus uit")


def _truth(value: Any, _: Schema, __: Schema, slot: str) -> bool:
    if isinstance(value, bool):
        return value
    word = words.squeezed(str(value))
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Impossible(f"{slot} must be true or false, not {value!r}")


def _null(value: Any, _: Schema, __: Schema, slot: str) -> None:
    if value is not None:
        raise Impossible(f"{slot} must be null, not {value!r}")


def _list(value: Any, schema: Schema, defs: Schema, slot: str) -> list[Any]:
    return [fit(item, schema.get("items", {}), defs, slot) for item in as_list(value)]


def _object(value: Any, schema: Schema, defs: Schema, slot: str) -> dict[str, Any]:
    given = as_object(value, slot)
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in given]
    if missing:
        raise Impossible(f"{slot} needs {', '.join(missing)}")
    return {
        key: fit(each, properties.get(key, {}), defs, f"{slot}.{key}")
        for key, each in given.items()
        if key in properties or schema.get("additionalProperties") is not False
    }


# Numbers --------------------------------------------------------------------------------------------------------

_PARTS: Final[Mapping[str, float]] = {
    word: share
    for share, spoken in {
        0.5: "half halfway halb halfte moitie mi mitad medio helft",
        0.25: "quarter viertel quart cuarto kwart",
        1.0: "full fully max maximum voll ganz plein completo maximo vol",
        0.0: "min minimum none nothing nul cero",
    }.items()
    for word in spoken.split()
}
"""Of the range from the lower to the upper bound."""
_HUGE: Final = 1e15
"""No measure of a home is as large, and below it every whole number is exact."""
_MEASURED: Final = re.compile(r"([+-]?\d+(?:[.,]\d+)?)\s*(.*)")
_UNITS: Final = words.word_set(
    "percent prozent procent pourcent porciento degree degrees grad degre degres grado grados graden "
    "celsius fahrenheit c f k kelvin"
)
_TIMES: Final[Mapping[str, str]] = {
    word: slot
    for slot, spoken in {
        "seconds": "s sec second seconds sekunde sekunden seconde secondes seconden segundo segundos",
        "minutes": "m min minute minutes minuten minuut minuto minutos",
        "hours": "h hour hours stunde stunden heure heures hora horas uur uren",
    }.items()
    for word in spoken.split()
}


def _number(value: Any, schema: Schema, _: Schema, slot: str) -> float:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    whole = schema.get("type") == "integer"
    number = _read(value, low, high, slot)
    if whole and (low, high) == (0, 100) and 0 < number < 1:
        number *= 100  # A share of one; rounded to a whole percentage, it would be none or all.
    rounded = math.floor(number + 0.5) if whole else number
    within: float = min(max(rounded, low), high)
    if abs(number - within) >= 1:
        bounds = [f"at least {low}"] * (low > -math.inf) + [f"at most {high}"] * (high < math.inf)
        raise Impossible(f"{slot} must be {' and '.join(bounds)}, not {value}")
    return within


def _read(value: Any, low: float, high: float, slot: str) -> float:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _HUGE:
        return value
    if isinstance(value, str):
        text = value.strip()
        if found := _MEASURED.fullmatch(text):
            number, unit = float(found[1].replace(",", ".")), "".join(words.plain(found[2]))
            if abs(number) < _HUGE and (not unit or unit in _UNITS or _is_time_of(unit, slot)):
                return int(number) if number.is_integer() else number
        share = _PARTS.get("".join(words.plain(text)))
        if share is not None and math.isfinite(high - low):
            return low + share * (high - low)
    raise Impossible(f"{slot} must be a number, not {value!r}")


def _is_time_of(unit: str, slot: str) -> bool:
    return _TIMES.get(unit) == slot.removeprefix("start_")


_FITS: Final[Mapping[str, Callable[[Any, Schema, Schema, str], Any]]] = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": _truth,
    "array": _list,
    "object": _object,
    "null": _null,
}
