"""The program: start-up, the prompt loop, and what stands around an answer."""

import json
import os
import select
import time
from pathlib import Path

import flags as cli
from device import Run
from output import Bar
from signals import die
from tokenizer import Tokenizer

POSITIONS = 1024
LOAD_S = 18.0
SHUTDOWN_S = 2.0
SPIN_S = 0.001
POLL_S = 0.01
FAILED = 255
DEVICE_LINES = {
    "get_device": (381, "Get AXCL device failed{0x80300001}, find total 0 device."),
    "set_device": (386, "Set AXCL device failed{0x80300186}."),
    "engine_init": (393, "axclrtEngineInit"),
    "create_handle": (409, "AX_ENGINE_CreateHandle"),
}


class Console:
    """The axcl-llm console: one line is one prompt, and nothing is remembered between two.

    Line numbers the knowledge does not tell are 0.
    """

    flags = cli.FLAGS
    mark = ">> "

    def __init__(self, options, machine, script):
        self.options, self.machine, self.script = options, machine, script
        self.out = machine.out
        self.runs = 0
        self.tokenizer = self.client()
        self._input = bytearray()
        self._ended = False

    def main(self):
        going_on = getattr(self.options, "continue")
        self.out.put("build time: Feb 13 2025 15:44:57\n")
        self.start()
        if going_on:
            self.out.put('Type "q" to exit, Ctrl+c to stop current running\n')
        self.loaded()
        if self.options.prompt:
            self.answer(os.fsencode(self.options.prompt))
        if going_on:
            self.converse()
        self.machine.nap(SHUTDOWN_S)
        self.out.flush()
        os._exit(0)

    def start(self):
        options, out = self.options, self.out
        self._bars = 0
        self._start_trouble()
        out.log("I", "Init", 111, "LLM init start")
        self._bar = Bar(out, options.axmodel_num + 3, "count")
        if options.tokenizer_type != 2:
            out.log("E", "CreateTokenizer", 0, "unknown tokenizer type")
            die("SEGV")
        ids = self.tokenizer.start()
        if ids is None:
            self.fail("tokenizer")
        self.bos, self.eos = ids
        self._step("tokenizer init ok")
        embed = Path(options.filename_tokens_embed)
        if not embed.is_file() or embed.stat().st_size != options.tokens_embed_num * options.tokens_embed_size * 2:
            self.fail("embed")
        self._step("embed_selector init ok")
        for layer in range(options.axmodel_num):
            if not Path(self._layer(layer)).is_file():
                self.fail("layer", layer)
            self._step(f"init {layer} axmodel ok,remain_cmm(-1 MB)")
        if not Path(options.filename_post_axmodel).is_file():
            self.fail("post")
        self._step("init post axmodel ok\n")
        self.facts()
        self._load_config()
        out.log("I", "Init", 288, "LLM init ok")

    def client(self):
        return Tokenizer(self.options.filename_tokenizer_model, self.out)

    def facts(self):
        self.out.log("I", "Init", 226, "max_token_len : 1024")
        self.out.log("I", "Init", 231, "kv_cache_size : 256, kv_cache_num: 1024")

    def loaded(self):
        """What comes between start-up and the first prompt mark."""

    def _layer(self, number):
        return self.options.template_filename_axmodel.replace("%d", str(number))

    def _step(self, message):
        self.machine.nap(LOAD_S / (self.options.axmodel_num + 3))
        self._bar.step(message)
        self._bars += 1
        self._start_trouble()

    def _start_trouble(self):
        for fault in self.script.due("start", 0, self._bars):
            if fault["do"] == "fail":
                self.fail(fault["error"], max(self._bars - 2, 0))
            self.machine.suffer(fault)

    def fail(self, what, layer=0):
        options, out = self.options, self.out
        if what in DEVICE_LINES:
            out.log("E", "init", *DEVICE_LINES[what])
        bos, eos, size = int(options.bos), int(options.eos), options.tokens_embed_size
        texts = {
            "tokenizer": f"tokenizer.Init({self.tokenizer.url}, {bos}, {eos}) failed",
            "embed": f"embed_selector.Init({options.filename_tokens_embed}, {options.tokens_embed_num}, {size}) failed",
            "post": f"init post axmodel({options.filename_post_axmodel}) failed",
        }
        out.log("E", "Init", 0, texts.get(what, f"init axmodel({self._layer(layer)}) failed"))
        out.flush()
        os._exit(FAILED)

    def _load_config(self):
        try:
            told = json.loads(Path("post_config.json").read_bytes())
        except OSError:
            self.out.log("E", "load_config", 0, "config file(post_config.json) open failed")
            self.out.log("W", "Init", 0, "load postprocess config(post_config.json) failed")
            return
        pretty = json.dumps(told, indent=4, sort_keys=True)
        self.out.log("I", "load_config", 282, f"load config: \n{pretty}\n")

    def converse(self):
        while True:
            self.out.say(self.mark)
            line = self._line()
            if line == b"q":
                break
            if line:
                self.heed(line)
            elif self._ended:
                time.sleep(SPIN_S)  # The real one spins without it.
        self.trouble("quit")

    def heed(self, line):
        """A line that is neither empty nor q."""
        self.answer(line)

    def _line(self):
        """Up to a newline, which is taken away; what is left at the end of input; then nothing, for ever."""
        due, since = self.script.idle(self.runs), time.monotonic()
        while (end := self._input.find(b"\n")) < 0 and not self._ended:
            if self.script:
                if self.script.read():
                    due, since = self.script.idle(self.runs), time.monotonic()
                while due and time.monotonic() - since >= due[0].get("at", 0) / 1000:
                    if self.script.fits(fault := due.popleft(), self.runs):
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

    def answer(self, line):
        """From the line to the last byte before the prompt mark."""
        self.script.read()
        self.machine.fresh()
        self.trouble("encode")
        ids, fresh = self.encode(line)
        if not ids or not all(0 <= id_ < self.options.tokens_embed_num for id_ in ids):
            die("SEGV")  # There is no first token, or it is read from far outside of the embeddings.
        if not self.refused(fresh):
            self.machine.signals.stop = False
            self.run(ids, fresh)
        self.runs += 1

    def encode(self, line):
        """All ids, and those of them that are not resident."""
        ids = self.tokenizer.encode(line)
        ids = [self.bos] * bool(self.options.bos) + ids + [self.eos] * bool(self.options.eos)
        return ids, ids

    def refused(self, fresh):
        return False

    def run(self, ids, fresh):
        device = self.device_run(ids, fresh)
        written = device.go()
        self.out.say("\n\n")
        self.trouble("end", 0, ids)
        self.out.log("N", "Run", 610, f"hit eos,avg {device.rate():.2f} token/s\n")
        self.trouble("end", 1, ids)
        text = self.tokenizer.decode(written)
        self.trouble("end", 2, ids)
        if not self.options.live_print:
            self.out.put(f"{text}\n")
        return written, text

    def device_run(self, ids, fresh):
        return Run(self, ids, fresh, POSITIONS)

    def trouble(self, when, at=0, ids=None):
        for fault in self.script.due(when, self.runs, at, ids):
            self.machine.suffer(fault)
