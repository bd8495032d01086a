"""The script that console.py documents: answers and faults, and whose moment it is."""

import json
from collections import deque
from pathlib import Path


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
        """Whether it has changed since. A file that is not there, or half written, changes nothing."""
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

    def due(self, when, run, at, ids=None):
        """The faults of this moment."""
        for fault in self._told.get("faults", ()):
            if fault["when"] == when and fault.get("at", 0) == at and self.fits(fault, run, ids):
                yield fault

    def idle(self, run):
        """The faults of an idle time, by milliseconds."""
        faults = [each for each in self._told.get("faults", ()) if each["when"] == "idle"]
        faults = [each for each in faults if each.get("prompt", run) == run]
        return deque(sorted(faults, key=lambda each: each.get("at", 0)))

    def answer(self, run, ids):
        return next((each for each in self._told.get("answers", ()) if self.fits(each, run, ids)), None)

    def fits(self, entry, run, ids=None):
        """Whether the selectors hold; what happens once is marked as happening now."""
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
