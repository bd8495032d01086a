"""C's stdout on a pipe: what was printed stays in a buffer of 4096 bytes until somebody flushes."""

import contextlib
import os
import time

BUFSIZ = 4096
COLOURS = {"E": 31, "W": 33, "I": 32, "N": 35}
BAR_WIDTH = 32


class Stdout:
    """A buffered descriptor. A reader that is gone is no error: SIGPIPE is ignored and nobody looks at the result."""

    def __init__(self, fd):
        self.fd = fd
        self._held = bytearray()
        self._inside = []

    def put(self, text):
        self._held += text.encode()
        while len(self._held) > BUFSIZ:
            self.raw(self._held[:BUFSIZ])
            del self._held[:BUFSIZ]

    def flush(self):
        self.raw(bytes(self._held))
        self._held.clear()

    def say(self, text):
        self.put(text)
        self.flush()

    def raw(self, data, fd=None):
        """Past the buffer, as a library with a descriptor of its own would write."""
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(fd or self.fd, data) :]

    def log(self, level, function, line, text):
        self.put(f"\033[1;30;{COLOURS[level]}m[{level}][{function:>32}][{line:4d}]: {text}\033[0m\n")

    def interrupt_next_piece(self, after, fd, data):
        self._inside.append((after, fd, data))

    def piece(self, text):
        """A decoded group of the answer, flushed; device lines may come in between."""
        if self._inside and text:
            after, fd, data = self._inside.pop(0)
            encoded = text.encode()
            self.flush()
            self.raw(encoded[:after])
            self.raw(data, fd)
            self.raw(encoded[after:])
        else:
            self.say(text)

    def die(self):
        """Exit as exit(3) does: flushed."""
        self.flush()


class Bar:
    """The progress bar the program draws over itself with carriage returns."""

    def __init__(self, out, total, unit):
        self._out, self._total, self._unit = out, total, unit
        self._done = 0
        self._start = time.monotonic()

    def step(self, message=""):
        self._done += 1
        spent = time.monotonic() - self._start
        rate = self._done / max(spent, 1e-6)
        blocks = "█" * (self._done * BAR_WIDTH // self._total)
        self._out.say(
            f"\033[1;30;33m\r{self._done * 100 // self._total:3d}% | {blocks:<{BAR_WIDTH}} | "
            f"{self._done:3d} / {self._total:3d} [{spent:.2f}s<{self._total / rate:.2f}s, {rate:.2f} {self._unit}/s] "
            f"\033[1;30;32m{message}\033[0m"
        )
