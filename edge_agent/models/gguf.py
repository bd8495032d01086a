"""The metadata of a GGUF file, without its tensors.

The `gguf` package spends three seconds on a vocabulary of 49,000 words, because it wraps every word in an array; a
start pays for that each time. Source of the layout: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge_agent.errors import ModelError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MOST_BYTES: Final = 1 << 28
_MOST_ITEMS: Final = 1 << 22


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key of the file's header; raises `ModelError` for a file that is not a whole GGUF header."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise ModelError(f"{path} is not a GGUF file; fetch the model again")
            version, _, keys = _unpack(file, "IQQ")
            if version not in _VERSIONS:
                raise ModelError(f"{path} is GGUF version {version}; versions 2 and 3 can be read")
            return {_string(file): _value(file, *_unpack(file, "I")) for _ in range(_bounded(keys, _MOST_ITEMS))}
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (EOFError, UnicodeDecodeError, KeyError) as error:
        raise ModelError(f"{path} has a damaged GGUF header; fetch the model again") from error


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    whole = f"<{layout}"
    return struct.unpack(whole, _exactly(file, struct.calcsize(whole)))


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(_bounded(size, _MOST_BYTES))
    if len(data) < size:
        raise EOFError
    return data


def _bounded(number: int, most: int) -> int:
    """A damaged length must not become an allocation."""
    if number > most:
        raise EOFError
    return number


def _string(file: BinaryIO) -> str:
    (size,) = _unpack(file, "Q")
    return _exactly(file, size).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _unpack(file, _SCALARS[kind])[0]
    of, count = _unpack(file, "IQ")
    _bounded(count, _MOST_ITEMS)
    if of in _SCALARS:
        return list(_unpack(file, f"{count}{_SCALARS[of]}"))
    if of != _STRING:
        raise KeyError(of)  # Arrays of arrays: allowed on paper, written by nobody.
    return [_string(file) for _ in range(count)]
