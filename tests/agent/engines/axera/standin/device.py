"""The program: start-up, the prompt loop, and a run of the model at the real one's pace."""

import json
import os
import select
import time
from itertools import chain, cycle
from pathlib import Path

import flags as cli
from faults import echo, garbage
from output import Bar
from signals import die
from tokenizer import Tokenizer

POSITIONS = 1024
GROUP = 3
LOAD_S = 18.0
SHUTDOWN_S = 2.0
SPIN_S = 0.001
POLL_S = 0.01
SHORTEST_NAP_S = 0.001
FAILED = 255
DEVICE_LINES = {
    "get_device": (381, "Get AXCL device failed{0x80300001}, find total 0 device."),
    "set_device": (386, "Set AXCL device failed{0x80300186}."),
    "engine_init": (393, "axclrtEngineInit"),
    "create_handle": (409, "AX_ENGINE_CreateHandle"),
}


class Runner:
    """The axcl-llm console: one line is one prompt, and nothing is remembered between two."""

    flags = cli.FLAGS
    mark = ">> "
    positions = POSITIONS

    def __init__(self, options, machine, script):
        self.options, self.machine, self.script = options, machine, script
        self.out = machine.out
        self.runs = 0
        self._input = bytearray()
        self._ended = False

    def main(self):
        self.start()
        if getattr(self.options, "continue"):
            self.out.put('Type "q" to exit, Ctrl+c to stop current running\n')
        if self.options.prompt:
            self.answer(self.options.prompt.encode(errors="surrogateescape"))
        if getattr(self.options, "continue"):
            self.converse()
        time.sleep(SHUTDOWN_S / self.machine.speed)
        self.out.flush()
        os._exit(0)

    # Start

    def start(self):
        options, out = self.options, self.out
        self._bars = 0
        self._trouble(0)
        out.log("I", "Init", 111, "LLM init start")
        self._bar = Bar(out, options.axmodel_num + 3, "count")
        if options.tokenizer_type != 2:
            out.log("E", "CreateTokenizer", 0, "unknown tokenizer type")
            die("SEGV")
        ids = self.connect()
        if ids is None:
            self.fail("tokenizer")
        self.bos, self.eos = ids
        self._step("tokenizer init ok")
        embed = Path(options.filename_tokens_embed)
        if not embed.is_file() or embed.stat().st_size != options.tokens_embed_num * options.tokens_embed_size * 2:
            self.fail("embed")
        self._step("embed_selector init ok")
        for layer in range(options.axmodel_num):
            if not Path(options.template_filename_axmodel.replace("%d", str(layer))).is_file():
                self.fail("layer", layer)
            self._step(f"init {layer} axmodel ok,remain_cmm(-1 MB)")
        if not Path(options.filename_post_axmodel).is_file():
            self.fail("post")
        self._step("init post axmodel ok\n")
        self.facts()
        self._load_config()
        out.log("I", "Init", 288, "LLM init ok")

    def connect(self):
        self.tokenizer = Tokenizer(self.options.filename_tokenizer_model, self.out)
        return self.tokenizer.start()

    def facts(self):
        self.out.log("I", "Init", 226, "max_token_len : 1024")
        self.out.log("I", "Init", 231, "kv_cache_size : 256, kv_cache_num: 1024")

    def _step(self, message):
        time.sleep(LOAD_S / self.machine.speed / (self.options.axmodel_num + 3))
        self._bar.step(message)
        self._bars += 1
        self._trouble(self._bars)

    def _trouble(self, bars):
        for fault in self.script.due("start", 0, bars):
            if fault["do"] == "fail":
                self.fail(fault["error"], max(bars - 2, 0))
            self.machine.suffer(fault)

    def fail(self, what, layer=0):
        options, out = self.options, self.out
        if what == "tokenizer":
            text = f"tokenizer.Init({options.filename_tokenizer_model}, {int(options.bos)}, {int(options.eos)}) failed"
        elif what == "embed":
            text = (
                f"embed_selector.Init({options.filename_tokens_embed}, {options.tokens_embed_num}, "
                f"{options.tokens_embed_size}) failed"
            )
        elif what == "post":
            text = f"init post axmodel({options.filename_post_axmodel}) failed"
        else:
            text = f"init axmodel({options.template_filename_axmodel.replace('%d', str(layer))}) failed"
        if what in DEVICE_LINES:
            out.log("E", "init", *DEVICE_LINES[what])
        out.log("E", "Init", 0, text)
        out.flush()
        os._exit(FAILED)

    def _load_config(self):
        try:
            told = json.loads(Path("post_config.json").read_bytes())
        except OSError:
            self.out.log("E", "load_config", 274, "config file(post_config.json) open failed")
            self.out.log("W", "Init", 285, "load postprocess config(post_config.json) failed")
            return
        pretty = json.dumps(told, indent=4, sort_keys=True)
        self.out.log("I", "load_config", 282, f"load config: \n{pretty}\n")

    # Prompt loop

    def converse(self):
        while True:
            self.out.say(self.mark)
            line = self._line()
            if line == b"q":
                break
            if line:
                self.answer(line)
            elif self._ended:
                time.sleep(SPIN_S)
        for fault in self.script.due("quit", self.runs):
            self.machine.suffer(fault)

    def _line(self):
        """Up to a newline, which is taken away; what is left at the end of input; then nothing, for ever."""
        due, since = self.script.pending(self.runs), time.monotonic()
        while (end := self._input.find(b"\n")) < 0 and not self._ended:
            if self.script:
                if self.script.read():
                    due, since = self.script.pending(self.runs), time.monotonic()
                while due and time.monotonic() - since >= due[0].get("at", 0) / 1000:
                    fault = due.popleft()
                    if self.script.take(fault, self.runs):
                        self.machine.suffer(fault)
                if not select.select([0], [], [], POLL_S)[0]:
                    continue
            data = os.read(0, 4096)
            self._ended = not data
            self._input += data
        if end < 0:
            end = len(self._input)
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        return line

    # One run

    def answer(self, line):
        """From the line to the last byte before the prompt mark."""
        self.script.read()
        self.machine.fresh()
        for fault in self.script.due("encode", self.runs):
            self.machine.suffer(fault)
        ids = self.tokenizer.encode(line)
        ids = [self.bos] * bool(self.options.bos) + ids + [self.eos] * bool(self.options.eos)
        self.run(ids)
        self.runs += 1

    def run(self, ids):
        if not ids or not all(0 <= id_ < self.options.tokens_embed_num for id_ in ids):
            die("SEGV")  # No first token, or a read far outside of the embeddings.
        self.machine.signals.stop = False
        start = time.monotonic()
        written = self.steps(ids)
        self.out.say("\n\n")
        self._end(0, ids)
        rate = (len(ids) + len(written)) / max(time.monotonic() - start, 1e-6)
        self.out.log("N", "Run", 610, f"hit eos,avg {rate:.2f} token/s\n")
        self._end(1, ids)
        text = self.tokenizer.decode(written)
        self._end(2, ids)
        if not self.options.live_print:
            self.out.put(f"{text}\n")
        return text

    def _end(self, at, ids):
        for fault in self.script.due("end", self.runs, at, ids):
            self.machine.suffer(fault)

    def steps(self, ids):
        """One token a step, read or written; what was written."""
        written, group = [], []
        bar = Bar(self.out, self.positions, "token")
        source = None
        for step in range(self.positions):
            if self.machine.signals.stop:
                break
            self._moment(step, ids, written)
            whole = self._layers()
            if not self.options.live_print:
                bar.step()
            if step + 1 < len(ids):
                continue
            source = source or self._tokens(ids)
            token = self._next(source, ids, whole)
            if token == self.eos:
                self._print(group)
                break
            written.append(token)
            group.append(token)
            if len(group) == GROUP:
                self._print(group)
                group = []
        return written

    def _moment(self, step, ids, written):
        faults = list(self.script.due("read", self.runs, step, ids)) if step < len(ids) else []
        if step + 1 >= len(ids):
            faults += self.script.due("write", self.runs, len(written), ids)
        for fault in faults:
            self.machine.suffer(fault)

    def _layers(self):
        """Whether every layer was run; SIGINT is seen between two."""
        machine = self.machine
        if machine.broken:
            machine.broken -= 1
            for _ in range(self.options.axmodel_num):
                self.out.log("E", "inference", 529, "AX_ENGINE_Execute")
            self._garbled = True
        else:
            self._garbled = False
        end = time.monotonic() + machine.step_s
        nap = max(machine.step_s / self.options.axmodel_num, SHORTEST_NAP_S)
        while (left := end - time.monotonic()) > 0:
            if machine.signals.stop:
                return False
            time.sleep(min(left, nap))
        return True

    def _tokens(self, ids):
        told = self.script.answer(self.runs, ids)
        if told is None:
            told = {"ids": echo(ids, self.eos)}
        self._again = None
        self._answer = told["ids"] or [ids[0]]
        self._garbage = garbage(ids, self.eos, self.options.tokens_embed_num)
        if told.get("eos", True):
            return chain(told["ids"], cycle([self.eos]))
        return cycle(self._answer)

    def _next(self, source, ids, whole):
        machine = self.machine
        if machine.forced:
            return machine.forced.popleft()
        if not whole:
            return ids[len(ids) // 2]  # The post model has run on a half-done step.
        if self._garbled:
            return next(self._garbage)
        token = next(source)
        if token == self.eos and machine.endless is not None:
            self._again = self._again or cycle(machine.endless or self._answer)
            return next(self._again)
        return token

    def _print(self, group):
        if group and self.options.live_print:
            self.out.piece(self.tokenizer.decode(group))
