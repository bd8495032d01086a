"""The device's condition, and one run of the model on it at the real one's pace."""

import os
import sys
import time
from collections import deque
from itertools import chain, count, cycle

from output import Bar
from signals import die

STEPS_PER_S = 14.0
BLOCK_S = 0.4
GROUP = 3
SHORTEST_NAP_S, LONGEST_NAP_S = 0.001, 0.01
STDERR = 2
PRESETS = {
    "link": ["[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 link is slow"],
    "dead": [
        "[2025-11-09 08:46:00.029][10994][W][device manager][listen][292]: device 1 is dead",
        *(f"[2025-11-09 08:46:00.{30 + n}][10994][C][device][print][{n}]: dma status 0x{n:08x}" for n in range(200)),
    ],
}


class Machine:
    """How fast the device is, what it says unasked, what is broken. Holds the program's only stdout."""

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

    def step_s(self, tokens=1):
        """What a step takes: a token, or a block of the prompt."""
        return self.pace * (1 / STEPS_PER_S if tokens == 1 else BLOCK_S) / self.speed

    def nap(self, seconds):
        """Real seconds become the stand-in's."""
        time.sleep(seconds / self.speed)

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


class Run:
    """From the first token of `fresh`, after what is resident, to the last one written.

    The prompt goes in by `block` tokens a step, one in the console; SIGINT is seen between two layers.
    """

    def __init__(self, program, ids, fresh, positions, block=1):
        self.program, self.machine, self.out = program, program.machine, program.out
        self.ids, self.fresh, self.block = ids, fresh, block
        self.positions = positions
        self.written = []
        self._source = self._again = None
        self._start = self._first = time.monotonic()
        self._options, self._eos = program.options, program.eos

    def go(self):
        """The ids written."""
        group = []
        bar = Bar(self.out, self.positions, "token")
        done = len(self.ids) - len(self.fresh)
        while done < self.positions and not self.machine.signals.stop:
            take = max(min(self.block, len(self.ids) - done), 1)
            self._moment(done, take)
            whole = self._layers(self.machine.step_s(self.block if done < len(self.ids) else 1))
            done += take
            if not self._options.live_print:
                bar.step()
            if done < len(self.ids):
                continue
            token = self._next(whole)
            if token == self._eos:
                self._print(group)
                break
            self.written.append(token)
            group.append(token)
            if len(group) == GROUP:
                self._print(group)
                group = []
        return self.written

    def rate(self):
        """Tokens a second: with all that was read in it, unless that is told apart as ttft."""
        tokens, since = (len(self.ids), self._start) if self.block == 1 else (0, self._first)
        return (tokens + len(self.written)) / max(time.monotonic() - since, 1e-6)

    def _moment(self, done, take):
        """Every fault of the prompt tokens that go in now, and of the token that is written then."""
        program = self.program
        if not program.script:
            return
        for at in range(done, min(done + take, len(self.ids))):
            program.trouble("read", at, self.ids)
        if done + take >= len(self.ids):
            program.trouble("write", len(self.written), self.ids)

    def _layers(self, seconds):
        """Whether every layer was run."""
        machine, layers = self.machine, self._options.axmodel_num
        self._garbled = machine.broken > 0
        if self._garbled:
            machine.broken -= 1
            for _ in range(layers):
                self.out.log("E", "inference", 529, "AX_ENGINE_Execute")
        end = time.monotonic() + seconds
        nap = min(max(seconds / layers, SHORTEST_NAP_S), LONGEST_NAP_S)
        while (left := end - time.monotonic()) > 0:
            if machine.signals.stop:
                return False
            time.sleep(min(left, nap))
        return True

    def _next(self, whole):
        machine = self.machine
        if self._source is None:
            self._answer()
        if self._garbled:
            return next(self._garbage)
        if not whole:
            return self.ids[len(self.ids) // 2]  # The post model has run on a half-done step.
        if machine.forced:
            return machine.forced.popleft()
        token = next(self._source)
        if token != self._eos or machine.endless is None:
            return token
        self._again = self._again or cycle(machine.endless or self._body)
        return next(self._again)

    def _answer(self):
        """The first token: what the script or the prompt wants said."""
        self._first = time.monotonic()
        if self.block > 1:
            self.out.log("I", "Run", 0, f"ttft: {(self._first - self._start) * 1000:.2f} ms")
        told = self.program.script.answer(self.program.runs, self.ids)
        if told is None:
            told = {"ids": echo(self.ids, self._eos)}
        self._body = told["ids"] or [self.ids[0]]
        self._source = chain(told["ids"], cycle([self._eos])) if told.get("eos", True) else cycle(self._body)
        self._garbage = garbage(self.ids, self._eos, self._options.tokens_embed_num)

    def _print(self, group):
        if group and self._options.live_print:
            self.out.piece(self.program.tokenizer.decode(group))


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
