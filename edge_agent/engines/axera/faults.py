"""What can go wrong with the card and its program: how it looks, what it means and what helps."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.errors import DeviceLost, EngineFailed, ModelError

RESET: Final = "reset the card or reboot the host, then: edge-agent admin NODE reload"
FETCH: Final = "fetch the model again, or free the card's memory"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table. `error` says whether starting again helps; its text ends with the remedy."""

    sign: re.Pattern[str]
    meaning: str
    remedy: str
    error: type[EngineFailed | ModelError]
    times: int = 1
    """So many such lines in one run make it a fault."""

    def raised(self, line: str) -> EngineFailed | ModelError:
        """The error, with the line that told."""
        return self.error(f"{self.meaning}; {self.remedy} ({line[-120:]})")


def _fault(sign: str, meaning: str, remedy: str, error: type[EngineFailed | ModelError], times: int = 1) -> Fault:
    return Fault(re.compile(sign), meaning, remedy, error, times)


FAULTS: Final[Sequence[Fault]] = (
    _fault(r"device \d+(?: is|:) dead", "the card has died", RESET, DeviceLost),
    _fault(r"Set AXCL device failed", "the card does not answer", RESET, DeviceLost),
    _fault(r"AX_ENGINE_CreateHandle", "the card takes no model", RESET, DeviceLost),
    _fault(r"axclrtEngineInit", "the card's engine does not start", RESET, DeviceLost),
    _fault(
        r"Get AXCL device failed", "no card was found", "look at its slot and driver: edge-agent doctor", EngineFailed
    ),
    _fault(r"tokenizer\.Init\(.*failed", "the program could not reach our tokenizer", "look for a proxy", EngineFailed),
    _fault(r"init axmodel\(.*failed", "a layer of the model cannot be loaded", FETCH, ModelError),
    _fault(r"embed_selector\.Init|init post axmodel\(.*failed", "the model cannot be loaded", FETCH, ModelError),
    _fault(
        r"need option|undefined option|unknown tokenizer type",
        "the program does not take these flags",
        "set binary, variant and flags in engine.options",
        ModelError,
    ),
    _fault(r"AX_ENGINE_Execute", "the card computes nothing any more", "it is started again", EngineFailed, times=3),
    _fault(r"^\[E\]|\]\[E\]", "the program reports one error after another", "it is started again", EngineFailed, 64),
)


class Watch:
    """Reads the program's lines for faults; counts anew with every run."""

    def __init__(self) -> None:
        self._counts = Counter[Fault]()

    def run(self) -> None:
        """A run begins."""
        self._counts.clear()

    def line(self, text: str) -> EngineFailed | ModelError | None:
        """The fault that this line completes."""
        for fault in FAULTS:
            if fault.sign.search(text):
                self._counts[fault] += 1
                return fault.raised(text) if self._counts[fault] >= fault.times else None
        return None


def ended(code: int, last: Sequence[str]) -> EngineFailed:
    """The program has ended by itself: how, and its last words."""
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGSEGV:
            how += ", as it is when the tokenizer's answer takes more than a second"
    return EngineFailed(": ".join([f"the console program {how}", *filter(None, [" | ".join(last)])]))
