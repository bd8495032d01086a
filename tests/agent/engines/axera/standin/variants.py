"""The programs of the other branches: `prefill` reads 128 tokens at once, `context` remembers the conversation."""

import json
from pathlib import Path

import flags as cli
from device import Run
from program import POSITIONS, Console
from tokenizer import UidTokenizer

BLOCK = 128
CONTEXT = 2047


class Prefill(Console):
    """A prompt is one block, or it is refused: without an answer, and without the line that ends one."""

    def facts(self):
        super().facts()
        self.out.log("I", "Init", 0, f"prefill_token_num : {BLOCK}")

    def refused(self, fresh):
        if len(fresh) <= BLOCK:
            return False
        self.out.log("E", "Run", 0, f"input_ids({len(fresh)}) > prefill_token_num({BLOCK})")
        return True

    def device_run(self, ids, fresh):
        return Run(self, ids, fresh, POSITIONS, BLOCK)


class Context(Console):
    """The runner of ax-context. The system prompt is read with the first turn: how else is not known."""

    mark = "prompt >> "
    flags = {
        **{name: flag for name, flag in cli.FLAGS.items() if name != "filename_tokenizer_model"},
        "system_prompt": (str, "", "system prompt"),
        "kvcache_path": (str, "", "kvcache path"),
        "url_tokenizer_model": (str, "http://127.0.0.1:12345", "tokenizer url"),
        "devices": (str, "0", "devices"),
    }

    def client(self):
        self._resident, self._turns = 0, []
        return UidTokenizer(self.options.url_tokenizer_model, self.out, self.machine)

    def facts(self):
        self.out.log("I", "Init", 0, f"max_token_len : {CONTEXT}")
        self.out.log("I", "Init", 0, f"kv_cache_size : 256, kv_cache_num: {CONTEXT}")
        self.out.log("I", "Init", 0, f"prefill_token_num : {BLOCK}")

    def loaded(self):
        folder = Path(self.options.kvcache_path)
        if self.options.kvcache_path and not (folder / "config.json").is_file():
            self.out.log("W", "main", 0, f"load kvcache from path: {folder} failed,generate kvcache")
            told = {"system_prompt": self.options.system_prompt, "precompute_len": 0}
            try:
                (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
            except OSError:
                self.out.log("E", "main", 0, "save kvcache failed")

    def heed(self, line):
        if line == b"reset":
            self.tokenizer.reset()
            self._resident, self._turns = 0, []
        elif line == b"dd":
            self._resident = self._turns.pop() if self._turns else 0
            self.tokenizer.last_reply = ""
        else:
            self.answer(line)

    def encode(self, line):
        return self.tokenizer.encode(line)

    def refused(self, fresh):
        self.out.log(
            "I",
            "SetKVCache",
            0,
            f"prefill_grpid:2 kv_cache_num:512 precompute_len:{self._resident} input_num_token:{len(fresh)}",
        )
        if self._resident + len(fresh) <= CONTEXT:
            return False
        self.out.log("E", "Run", 0, f"SetKVCache failed: precompute_len({self._resident}) + {len(fresh)} > {CONTEXT}")
        return True

    def device_run(self, ids, fresh):
        return Run(self, ids, fresh, CONTEXT, BLOCK)

    def run(self, ids, fresh):
        written, self.tokenizer.last_reply = super().run(ids, fresh)
        self._turns.append(self._resident)
        self._resident = len(ids) + len(written)
        remaining = CONTEXT + 1 - self._resident
        self.out.log("I", "GetKVCache", 0, f"precompute_len:{self._resident}, remaining:{remaining}")
        return written, self.tokenizer.last_reply
