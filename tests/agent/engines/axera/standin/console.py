#!/usr/bin/env python3
"""A stand-in for the vendor's console program (main_axcl_aarch64, branch axcl-llm): same flags, bytes, and faults.

Run as a child on a plain pipe: `console.py FLAGS`. It imports nothing of the agent and needs the standard library only.

Environment
    STANDIN_SPEED     1 (default) is real: 14 tokens read or written a second, 18 s to load, 2 s to shut down; 200 is
                      200 times as fast. The tokenizer client's time-outs and its second before a retry are always real.
    STANDIN_VARIANT   "console" (default); "context" for the runner of branch ax-context (uid tokenizer, "prompt >> ");
                      "prefill" for the one that reads 128 tokens at once.
    STANDIN_SCRIPT    path of a JSON file, read at start, before every prompt, and while idle whenever it changes
                      (replace it with os.replace). Without it the answer is the ids of the last user text, then eos.

The script: {"answers": [ANSWER, ...], "faults": [FAULT, ...]}, both optional.

Selectors, for both, all optional, all must hold
    "prompt": N       only the Nth run of this process, 0 being the first; for "idle" and "quit": after N runs
    "contains": [..]  only if these ids occur in the prompt's ids, in a row (not for "start", "encode", "idle", "quit")
    "once": "name"    only if the file STANDIN_SCRIPT + ".name" is not there; it is made as this happens, so that
                      the next process does without the fault, and a test sees that it has happened

ANSWER (the first that fits is given)
    {"ids": [..]}                   these ids, then eos; [] is an empty answer
    {"ids": [..], "eos": false}     these ids again and again, until the 1024th position or SIGINT

FAULT: {"when": MOMENT, "at": N, "do": ACTION, ...}; "at" is 0 if left out
    "start"   after N bars of the start-up (0: before the first log line is printed, 1: the tokenizer is there,
              2: embeddings, 3...: layers, last: post model)
    "idle"    N milliseconds (real ones) after a prompt mark was printed, or after the script changed
    "encode"  a line has arrived, before /encode; "at" is ignored
    "read"    before prompt token N goes in (N counts from 0)
    "write"   N tokens have been written (N counts from 0), before the next one
    "end"     0: after the "\n\n" that follows the answer; 1: after the "hit eos" line, which is not flushed yet;
              2: after the final /decode, before the prompt mark
    "quit"    "q" has arrived; "at" is ignored

ACTION
    "lines"    device lines: "text": [..] or "preset": "dead" (the device is dead and 200 lines), "link" (one line);
               "to": "stdout" (default) | "stderr"; "raw": true overtakes what stdout's buffer still holds;
               "inside": N waits for the next piece of the answer and goes in after N of its bytes
    "errors"   the device is gone: from here on (later prompts too) every step prints AX_ENGINE_Execute errors for
               every layer, and tokens are garbage without an end; "steps": N ends it after N steps
    "silence"  nothing happens any more, "seconds": S ends it (real ones); SIGTERM and SIGKILL work, SIGINT is noted
    "deaf"     "signals": ["INT", "TERM"] are ignored from here on
    "crash"    "signal": "SEGV" (default; what stdout's buffer holds is lost) or "exit": N (it is flushed)
    "endless"  eos does not come any more in this run; the answer's ids are repeated, or "ids": [..] are
    "tokens"   "ids": [..] are written next ("write" only), such as <|endoftext|> or half a character
    "slow"     "times": X makes every token last X times as long, for the rest of this run
    "fail"     "start" only: "error": "tokenizer" | "embed" | "layer" | "post" | "get_device" | "set_device" |
               "engine_init" | "create_handle": the real lines, then exit code 255
"""

import sys

from device import Machine
from faults import Script
from flags import parse
from output import Stdout
from program import Console
from signals import Signals
from variants import Context, Prefill

PROGRAMS = {"console": Console, "context": Context, "prefill": Prefill}


def main() -> None:
    machine = Machine(Stdout(1), Signals())
    program = PROGRAMS[machine.variant]
    program(parse(sys.argv, program.flags), machine, Script(machine.script)).main()


if __name__ == "__main__":
    main()
