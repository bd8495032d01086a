"""Regular expressions as XGrammar's EBNF, and the words that schemas share with them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge_agent.errors import RequestRefused, Unsupported

COUNTED: Final = 64
"""Characters of a string that are counted, and repetitions of one regular expression, nested ones multiplied.

The runtime's matcher needs 0.1 s for a token at 128, and 1 s at 1,024.
"""
_ENDLESS: Final = 9
"""What a repetition without end counts for: more than the root of `COUNTED`, so that none holds another."""

_CODE: Final = r"\U"
_DELETE: Final = 0x7F
"""The first character behind the printable ones of ASCII."""
_CLASSES: Final = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_WORD": "a-zA-Z0-9_",
    "CATEGORY_SPACE": r" \t\n\r",
}


def literal(text: str) -> str:
    """Give text as EBNF: a string, or several where one would be misread.

    The runtime prints the grammar and reads it again. Between the two, a hexadecimal digit behind a character that is
    no printable ASCII becomes part of that one's code, so they never stand side by side in a string or a set.
    """
    pieces = re.split(r"(?<=[^ -~])(?=[0-9a-fA-F])", text)
    return " ".join('"' + "".join(map(_escaped, piece)) + '"' for piece in pieces)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if " " <= char <= "~" else f"\\U{ord(char):08X}"


def refused(what: str) -> Unsupported:
    """Say what a grammar cannot promise."""
    return Unsupported(f"{what} cannot be enforced")


def times(least: int, most: int | None, limit: int) -> str:
    """Give the suffix of a repetition."""
    if max(least, most or 0) > limit or (most is not None and least > most):
        raise refused(f"a repetition of {least} to {most} times")
    return f"{{{least},{'' if most is None else most}}}"


def expression(regex: str) -> str:
    """Give an expression, read with Python's own parser.

    What a grammar cannot say (look-around, back-references) or the matcher cannot bear is refused by name.
    """
    parser = importlib.import_module("re._parser")
    try:
        parsed = parser.parse(regex)
        if parsed.state.flags != re.UNICODE:
            raise refused("a flag in a regular expression")
        if (weight := _weight(parsed)) > COUNTED:
            raise refused(f"a regular expression with {weight} repetitions (an endless one counts as {_ENDLESS})")
        return _sequence(parsed)
    except (parser.error, OverflowError, RecursionError) as error:
        raise RequestRefused(f"not a regular expression: {error}") from error


def _weight(nodes: Any) -> int:
    """How many repetitions the matcher may have to tell apart."""
    weight = 0
    for kind, value in nodes:
        match str(kind):
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, inner = value
                weight += max(low, _ENDLESS if str(high) == "MAXREPEAT" else high) * max(1, _weight(inner))
            case "SUBPATTERN":
                weight += _weight(value[3])
            case "BRANCH":
                weight += sum(map(_weight, value[1]))
    return weight


def _sequence(nodes: Any) -> str:
    return " ".join(filter(None, (_node(str(kind), value) for kind, value in nodes))) or '""'


def _node(kind: str, value: Any) -> str:
    if kind == "AT" and str(value) in _ANCHORS:
        return ""  # What is written is the whole text anyway.
    if kind not in _NODES or (kind == "SUBPATTERN" and (value[1] or value[2])):
        raise refused(f"{kind.lower().replace('_', ' ')} in a regular expression")
    return _NODES[kind](value)


def _repeated(value: Any) -> str:
    low, high, inner = value
    if high > 1 and inner.getwidth()[0] == 0:
        raise refused("a repetition of what may be empty")
    return f"({_sequence(inner)}){times(low, None if str(high) == 'MAXREPEAT' else high, COUNTED)}"


def _set(members: Any) -> str:
    written = [part for kind, value in members for part in _member(str(kind), value)]
    # Codes stand last, where no digit can follow one: `literal` says why.
    return f"[{''.join(sorted(written, key=lambda part: part != '^' and 1 + part.startswith(_CODE)))}]"


def _member(kind: str, value: Any) -> list[str]:
    match kind:
        case "NEGATE":
            return ["^"]
        case "LITERAL":
            return [_class_char(value)]
        case "RANGE" if value[0] < _DELETE < value[1]:
            return [*_member(kind, (value[0], _DELETE - 1)), *_member(kind, (_DELETE, value[1]))]
        case "RANGE":
            return [f"{_class_char(value[0])}-{_class_char(value[1])}"]
        case "CATEGORY" if str(value) in _CLASSES:
            return [_CLASSES[str(value)]]
    raise refused(f"{str(value).lower().replace('_', ' ')} in a set of characters")


def _class_char(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\U{code:08X}"


_ANCHORS: Final = ("AT_BEGINNING", "AT_BEGINNING_STRING", "AT_END", "AT_END_STRING")
_NODES: Final[Mapping[str, Callable[[Any], str]]] = {
    "LITERAL": lambda code: literal(chr(code)),
    "NOT_LITERAL": lambda code: f"[^{_class_char(code)}]",
    "ANY": lambda _: r"[^\n]",
    "IN": _set,
    "BRANCH": lambda value: f"({' | '.join(_sequence(each) for each in value[1])})",
    "SUBPATTERN": lambda value: f"({_sequence(value[3])})",
    "MAX_REPEAT": _repeated,
    "MIN_REPEAT": _repeated,
}
