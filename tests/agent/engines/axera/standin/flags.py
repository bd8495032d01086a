"""The command line: `--name value`, `--name=value` or `-p value`; booleans are 0 or 1."""

import sys
from pathlib import PurePath
from types import SimpleNamespace

REQUIRED = object()

FLAGS = {
    "prompt": (str, REQUIRED, "prompt"),
    "template_filename_axmodel": (str, "tinyllama-int8/tinyllama_l%d.axmodel", "axmodel path template"),
    "filename_post_axmodel": (str, "tinyllama-int8/tinyllama_post.axmodel", "post axmodel path"),
    "tokenizer_type": (int, 0, "tokenizer type 0:LLaMa 1:Qwen 2:HTTP 3:Phi3"),
    "filename_tokenizer_model": (str, "tokenizer.model", "tokenizer model path"),
    "filename_tokens_embed": (str, "tinyllama.model.embed_tokens.weight.bfloat16.bin", "tokens embed path"),
    "bos": (bool, 1, "have bos"),
    "eos": (bool, 0, "have eos"),
    "axmodel_num": (int, 22, "num of axmodel(for template)"),
    "tokens_embed_num": (int, 32000, "tokens embed num"),
    "tokens_embed_size": (int, 2048, "tokens embed size"),
    "use_mmap_load_embed": (bool, 0, "it can save os memory"),
    "dynamic_load_axmodel_layer": (bool, 0, "it can save cmm memory"),
    "live_print": (bool, 0, "print in live if set true, else print in end"),
    "continue": (bool, 0, "continuous dialogue"),
}


def parse(argv, flags):
    """The values by name, or the end of the program as the real parser has it."""
    values = {name: default for name, (_, default, _) in flags.items()}
    errors = []
    words = iter(argv[1:])
    helped = False
    for word in words:
        if word in ("--help", "-?"):
            helped = True
        elif word.startswith("--"):
            _long(word[2:], words, flags, values, errors)
        elif word == "-p":
            values["prompt"] = next(words, REQUIRED)
        elif word.startswith("-"):
            errors.append(f"undefined short option: {word}")
    errors += [f"need option: --{name}" for name, value in values.items() if value is REQUIRED]
    if helped or len(argv) == 1:
        sys.stderr.write(_usage(argv[0], flags))
        sys.exit(0)
    if errors:
        sys.stderr.write(f"{errors[0]}\n{_usage(argv[0], flags)}")
        sys.exit(1)
    return SimpleNamespace(**values)


def _long(option, words, flags, values, errors):
    name, equals, value = option.partition("=")
    if name not in flags:
        errors.append(f"undefined option: --{name}")
        return
    if not equals and (value := next(words, None)) is None:
        errors.append(f"option needs value: --{name}")
        return
    try:
        values[name] = _read(flags[name][0], value)
    except ValueError:
        errors.append(f"option value is invalid: --{name}={value}")


def _read(kind, value):
    if kind is str:
        return value
    number = int(value)
    if kind is bool and number not in (0, 1):
        raise ValueError(value)
    return number


def _usage(program, flags):
    kinds = {str: "string", int: "int", bool: "bool"}
    lines = [f"usage: {PurePath(program).name} --prompt=string [options] ... ", "options:"]
    for name, (kind, default, text) in flags.items():
        short = "-p, " if name == "prompt" else "    "
        tail = "" if default is REQUIRED else f" [={default}]"
        lines.append(f"  {short}--{name:<28} {text} ({kinds[kind]}{tail})")
    lines.append(f"  -?, --{'help':<28} print this message")
    return "\n".join(lines) + "\n"
