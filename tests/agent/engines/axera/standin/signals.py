"""SIGINT sets a flag, as the real handler does; SIGTERM keeps its default."""

import os
import resource
import signal


class Signals:
    def __init__(self):
        self.stop = False
        self._deaf = False
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _interrupted(self, *_):
        self.stop = not self._deaf

    def ignore(self, names):
        for name in names:
            if name == "INT":
                self._deaf = True
            else:
                signal.signal(signal.Signals["SIG" + name], signal.SIG_IGN)


def die(name):
    """Die as a C program does, by the signal's default and with nothing flushed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = signal.Signals["SIG" + name]
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()
