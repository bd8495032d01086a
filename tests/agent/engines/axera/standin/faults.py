"""What goes wrong, and when: the script that console.py documents."""

import json
import os
import sys
import time
from collections import deque
from itertools import count
from pathlib import Path

from signals import die

STEPS_PER_S = 14.0
PRESETS = {
    "link": ["[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 link is slow"],
    "dead": [
        "[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 is dead",
        *(
            f"[2025-11-09 08:46:00.{30 + n}][10994][C][device][print][{n}]: pcie dma status 0x{n:08x}"
            for n in range(200)
        ),
    ],
}
STDERR = 2


class Machine:
    """The device's condition: its speed, what it says unasked, what is broken. Holds the program's only stdout."""

    def __init__(self, out, signals):
        self.out, self.signals = out, signals
        self.speed = float(os.environ.get("STANDIN_SPEED", "1"))
        self.variant = os.environ.get("STANDIN_VARIANT", "console")
        self.script = os.environ.get("STANDIN_SCRIPT")
        self.broken = 0
        self.fresh()

    def fresh(self):
        """A new run. A dead device stays dead."""
        self.pace = 1.0
        self.endless = None
        self.forced = deque()

    @property
    def step_s(self):
        return self.pace / (STEPS_PER_S * self.speed)

    def suffer(self, fault):
        getattr(self, "_" + fault["do"])(fault)

    def _lines(self, fault):
        lines = fault["text"] if "text" in fault else PRESETS[fault["preset"]]
        data = "".join(f"{line}\n" for line in lines).encode()
        to = STDERR if fault.get("to") == "stderr" else self.out.fd
        if "inside" in fault:
            self.out.interrupt_next_piece(fault["inside"], to, data)
            return
        if to == self.out.fd and not fault.get("raw"):
            self.out.flush()
        self.out.raw(data, to)

    def _errors(self, fault):
        self.broken = fault.get("steps", sys.maxsize)

    def _silence(self, fault):
        end = time.monotonic() + fault.get("seconds", float("inf"))
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 3600))

    def _deaf(self, fault):
        self.signals.ignore(fault["signals"])

    def _crash(self, fault):
        if "exit" in fault:
            self.out.flush()
            os._exit(fault["exit"])
        die(fault.get("signal", "SEGV"))

    def _endless(self, fault):
        self.endless = fault.get("ids", [])

    def _tokens(self, fault):
        self.forced.extend(fault["ids"])

    def _slow(self, fault):
        self.pace = fault["times"]


class Script:
    """The file, as it was when last read."""

    def __init__(self, path):
        self._path = Path(path) if path else None
        self._version = None
        self._told = {}
        self.read()

    def __bool__(self):
        return self._path is not None

    def read(self):
        """Whether it has changed since."""
        if not self._path:
            return False
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if version == self._version:
                return False
            self._told = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return False
        self._version = version
        return True

    def due(self, when, run, at=None, ids=None):
        """The faults of this moment; `at` None takes any."""
        for fault in self._told.get("faults", ()):
            fits = fault["when"] == when and (at is None or fault.get("at", 0) == at)
            if fits and self._selected(fault, run, ids):
                yield fault

    def pending(self, run):
        """The faults of an idle time, by milliseconds."""
        idle = [fault for fault in self._told.get("faults", ()) if fault["when"] == "idle"]
        return deque(
            sorted((each for each in idle if each.get("prompt", run) == run), key=lambda each: each.get("at", 0))
        )

    def take(self, fault, run):
        """Whether a pending fault may happen; marks it."""
        return self._selected(fault, run, None)

    def answer(self, run, ids):
        for answer in self._told.get("answers", ()):
            if self._selected(answer, run, ids):
                return answer
        return None

    def _selected(self, entry, run, ids):
        if entry.get("prompt", run) != run:
            return False
        if "contains" in entry and not _within(entry["contains"], ids or []):
            return False
        if "once" not in entry:
            return True
        marker = Path(f"{self._path}.{entry['once']}")
        if marker.exists():
            return False
        marker.touch()
        return True


def _within(part, whole):
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))


def echo(ids, eos):
    """The last user's text as a chat template leaves it in the ids; all of them if there is no such thing.

    A turn is begin, role, newline, text, end (which is eos), newline: the newline is what stands between an end and a
    begin.
    """
    begin = ids[0]
    try:
        end = len(ids) - 1 - ids[::-1].index(eos)
        start = end - 1 - ids[:end][::-1].index(begin)
        newline = ids[end + 1]
    except (ValueError, IndexError):
        return [id_ for id_ in ids if id_ != eos]
    body = ids[start + 1 : end]
    return body[body.index(newline) + 1 :] if newline in body else body


def garbage(ids, eos, limit):
    """Tokens as a dead device makes them: any, but never the end."""
    for number in count(sum(ids)):
        token = number * 2654435761 % limit
        yield token if token != eos else 0
