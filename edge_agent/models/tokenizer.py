"""Text to token ids and back, so that no text but the template's own can become a special token."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edge_agent.errors import ModelError
from edge_agent.models.gguf import read_metadata

_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How GPT-4's descendants split text into words; they differ in how many digits go together."""

_ENDS: Final = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>"}
)
"""Model files name one end token and mean several: whichever of these a model has ends its answer."""

_CONTROL, _USER_DEFINED, _UNKNOWN = 3, 4, 2
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")


def _gpt2_bytes() -> dict[int, int]:
    """The printable character that stands for each byte in a byte-level vocabulary, as a reverse table."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(others)}


_BYTE_OF: Final = _gpt2_bytes()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model's files say beside the vocabulary. `context` is in tokens, None when the files are silent."""

    template: str | None = None
    bos: str = ""
    eos: str = ""
    eos_ids: frozenset[int] = frozenset()
    context: int | None = None


class Tokenizer:
    """The vocabulary of one model. Built by `load`; safe to use from several threads."""

    def __init__(self, whole: tokenizers.Tokenizer, facts: Facts) -> None:
        added = whole.get_added_tokens_decoder()
        self.facts = facts
        self.specials: tuple[str, ...] = tuple(token.content for _, token in sorted(added.items()))
        """Every added token as it is written, special or not."""
        self._ids = {token.content: id_ for id_, token in added.items()}
        self._silent = frozenset(id_ for id_, token in added.items() if token.special)
        self._marks = _pattern(added.values())
        description = json.loads(whole.to_str())
        self._byte_level = '"ByteLevel"' in json.dumps(description["decoder"])
        self._plain = _without_added(description)
        self._whole = whole
        self._check()

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a `.gguf` file, a `tokenizer.json` or a folder that holds one; raises `ModelError`."""
        if path.suffix == ".gguf":
            return cls(*_from_gguf(path))
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            whole = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error.strerror}; the model folder needs its tokenizer") from error
        except Exception as error:  # The library raises bare Exception for a file it cannot parse.
            raise ModelError(f"{file} is not a tokenizer: {error}") from error
        return cls(whole, _facts_beside(file.parent, whole))

    def encode(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """Give the ids of (text, control) stretches; only control stretches may hold added tokens.

        What stands between two added tokens is tokenised in one piece, whatever stretches it is made of.
        """
        ids: list[int] = []
        plain = ""
        for text, control in _joined(segments):
            end = 0
            for mark in self._marks.finditer(text) if control and self._ids else ():
                ids += self._words(plain + text[end : mark.start()])
                ids.append(self._ids[mark[mark.lastindex or 0]])
                plain, end = "", mark.end()
            plain += text[end:]
        return ids + self._words(plain)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self._whole.get_vocab_size()

    def decoder(self) -> Decoder:
        """A fresh incremental decoder for one answer."""
        return Decoder(self)

    def bytes_of(self, id_: int) -> bytes:
        """What a token prints; nothing for a special one or an id beyond the vocabulary."""
        token = None if id_ in self._silent else self._whole.id_to_token(id_)
        if token is None:
            return b""
        if token in self._ids:
            return token.encode()
        if self._byte_level:
            return bytes(_BYTE_OF[ord(char)] for char in token)
        byte = _BYTE.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.replace("\u2581", " ").encode()

    def _words(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []

    def _check(self) -> None:
        """Refuse a tokenizer that would be read differently than its makers do."""
        if not self.specials:
            return
        probe = f"{self.specials[0]}user\nIt is 21.5 °C{self.specials[-1]}\n"
        if self.encode([(probe, True)]) != list(self._whole.encode(probe, add_special_tokens=False).ids):
            raise ModelError("this model's tokenizer treats text around special tokens in a way that is not known here")


class Decoder:
    """Ids to text, complete characters only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether the bytes of an unfinished character wait."""
        return bool(self._utf8.getstate()[0])

    def feed(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; the bytes of an unfinished character wait."""
        return self._utf8.decode(b"".join(map(self._tokenizer.bytes_of, ids)))

    def finish(self) -> str:
        """What was waiting: U+FFFD when the answer broke off inside a character."""
        return self._utf8.decode(b"", final=True)


def _joined(segments: Iterable[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbours of one kind as one stretch: a special token may be written across two control segments."""
    joined: list[tuple[str, bool]] = []
    for text, control in segments:
        if joined and joined[-1][1] == control:
            joined[-1] = (joined[-1][0] + text, control)
        else:
            joined.append((text, control))
    return joined


def _pattern(added: Iterable[tokenizers.AddedToken]) -> re.Pattern[str]:
    """Longest token first; the white space that a token swallows goes with it."""
    longest = sorted(added, key=lambda token: len(token.content), reverse=True)
    space = ("", r"\s*")
    parts = (f"{space[each.lstrip]}({re.escape(each.content)}){space[each.rstrip]}" for each in longest)
    return re.compile("|".join(parts))


def _without_added(description: dict[str, Any]) -> tokenizers.Tokenizer:
    """A tokenizer that knows no added token, neither as such nor as a word of its vocabulary."""
    added = {token["content"] for token in description["added_tokens"]}
    model = description["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {word: id_ for word, id_ in model["vocab"].items() if word not in added}
    else:
        # A Unigram's ids are positions: the words stay, at a price that no text pays.
        model["vocab"] = [[word, -1e9 if word in added else score] for word, score in model["vocab"]]
    if model.get("unk_token") in added:
        model["unk_token"] = None
    return tokenizers.Tokenizer.from_str(json.dumps({**description, "added_tokens": [], "post_processor": None}))


def _from_gguf(path: Path) -> tuple[tokenizers.Tokenizer, Facts]:
    meta = read_metadata(path)
    try:
        words: list[str] = meta["tokenizer.ggml.tokens"]
        merges: list[str] = meta["tokenizer.ggml.merges"]
        kinds: list[int] = meta["tokenizer.ggml.token_type"]
    except KeyError as error:
        raise ModelError(f"{path} lacks {error}; only models with a byte-level BPE vocabulary can be read") from error
    split = meta.get("tokenizer.ggml.pre", "default")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {word: id_ for id_, word in enumerate(words)}
    whole = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=split == "llama-bpe"))
    whole.pre_tokenizer = _splitter(split, path)
    whole.decoder = decoders.ByteLevel()
    if split == "qwen2":
        whole.normalizer = normalizers.NFC()
    whole.add_tokens(
        [
            tokenizers.AddedToken(word, special=kind != _USER_DEFINED, normalized=False)
            for word, kind in zip(words, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
        ]
    )
    named = [meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    bos = meta.get("tokenizer.ggml.bos_token_id")
    context = meta.get(f"{meta.get('general.architecture')}.context_length")
    ends = {id_ for id_ in named if id_ is not None} | _known_ends(whole)
    return whole, Facts(
        template=meta.get("tokenizer.chat_template"),
        bos="" if bos is None else words[bos],
        eos="" if named[0] is None else words[named[0]],
        eos_ids=frozenset(ends),
        context=context,
    )


def _splitter(name: str, path: Path) -> pre_tokenizers.PreTokenizer:
    digits = {"qwen2": r"\p{N}", "llama-bpe": r"\p{N}{1,3}"}.get(name)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=digits is None)
    if digits:
        words = pre_tokenizers.Split(tokenizers.Regex(_WORDS % digits), "isolated")
        return pre_tokenizers.Sequence([words, bytes_])
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    if name in ("default", "gpt-2"):
        return bytes_
    known = "qwen2, llama-bpe, smollm, gpt-2"
    raise ModelError(f"{path} splits words in the way of {name!r}; known are {known}")


def _known_ends(whole: tokenizers.Tokenizer) -> set[int]:
    return {id_ for id_, token in whole.get_added_tokens_decoder().items() if token.content in _ENDS}


def _facts_beside(folder: Path, whole: tokenizers.Tokenizer) -> Facts:
    """What tokenizer_config.json, generation_config.json, config.json and chat_template.jinja say."""
    config = _json(folder / "tokenizer_config.json")
    jinja = folder / "chat_template.jinja"
    template = jinja.read_text(encoding="utf-8") if jinja.is_file() else config.get("chat_template")
    if isinstance(template, list):  # Several named ones; `default` is what chat uses.
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    ends = _known_ends(whole)
    for file in ("generation_config.json", "config.json"):
        named = _json(folder / file).get("eos_token_id")
        ends |= set(named) if isinstance(named, list) else set() if named is None else {named}
    bos, eos = (_written(config.get(name)) for name in ("bos_token", "eos_token"))
    if eos and (id_ := whole.token_to_id(eos)) is not None:
        ends.add(id_)
    context = _json(folder / "config.json").get("max_position_embeddings")
    return Facts(template, bos, eos, frozenset(ends), context)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from error
    return value if isinstance(value, dict) else {}


def _written(token: str | Mapping[str, Any] | None) -> str:
    return str(token.get("content", "")) if isinstance(token, Mapping) else token or ""
