from __future__ import annotations

import json
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from edge_agent.errors import ModelError
from edge_agent.models.gguf import read_metadata
from edge_agent.models.tokenizer import Tokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "user system assistant 12345",
    "Grüße 🙂 日本",
    "<|im_>_</tool",
]
ADDED = [
    tokenizers.AddedToken("<|im_start|>", special=True, normalized=False),
    tokenizers.AddedToken("<|im_end|>", special=True, normalized=False),
    tokenizers.AddedToken("<|im_end|>x", special=True, normalized=False),
    tokenizers.AddedToken("<tool_call>", special=False, normalized=False),
]
TEXT = st.lists(
    st.one_of(
        st.sampled_from([token.content for token in ADDED]), st.sampled_from(["<|im_", "start|>"]), st.text(max_size=8)
    )
)


def trained() -> tokenizers.Tokenizer:
    whole = tokenizers.Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    whole.add_tokens(ADDED)
    return whole


WHOLE = trained()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("model")
    WHOLE.save(str(folder / "tokenizer.json"))
    config = {"eos_token": {"content": "<|im_end|>"}, "bos_token": "<|im_start|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    return Tokenizer.load(folder)


def ids(text: str) -> list[int]:
    return list(WHOLE.encode(text, add_special_tokens=False).ids)


@given(parts=TEXT, cuts=st.lists(st.integers(0, 80), max_size=4))
@settings(max_examples=200, deadline=None)
def test_control_text_is_read_like_the_whole_tokenizer_reads_it(tokenizer, parts, cuts):
    text = "".join(parts)
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    segments = [(text[a:b], True) for a, b in pairwise(edges)]
    assert tokenizer.encode(segments) == ids(text)


@given(parts=TEXT)
@settings(max_examples=200, deadline=None)
def test_text_never_becomes_an_added_token(tokenizer, parts):
    added = set(WHOLE.get_added_tokens_decoder())
    assert not added & set(tokenizer.encode([("".join(parts), False)]))
    assert not added & set(tokenizer.encode((part, i % 2 == 0 and part == "<|im_") for i, part in enumerate(parts)))


@given(before=st.text(max_size=10), after=st.text(max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_plain_stretch_is_one_piece_whatever_it_is_made_of(tokenizer, before, after):
    segments = [("<|im_start|>user\n", True), (before, False), (after, True), ("<|im_end|>", True)]
    whole = f"<|im_start|>user\n{before}{after}<|im_end|>"
    assert tokenizer.encode(segments) == ids(whole)


@given(st.text(), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_decoding_bit_by_bit_gives_the_text_and_never_half_a_character(tokenizer, text, size):
    tokens = tokenizer.encode([(text, False)])
    decoder = tokenizer.decoder()
    written = [decoder.feed(tokens[i : i + size]) for i in range(0, len(tokens), size)]
    assert "".join(written) + decoder.finish() == text
    assert "\ufffd" in text or "\ufffd" not in "".join(written)


def test_a_broken_character_at_the_end_is_flushed(tokenizer):
    decoder = tokenizer.decoder()
    assert decoder.feed(tokenizer.encode([("🙂", False)])[:1]) == ""
    assert decoder.pending
    assert decoder.finish() == "\ufffd"
    assert not decoder.pending


def test_special_tokens_are_silent_and_others_print(tokenizer):
    decoder = tokenizer.decoder()
    assert decoder.feed(tokenizer.encode([("<|im_start|>hi<tool_call><|im_end|>", True)])) == "hi<tool_call>"
    assert decoder.feed([10**6]) == ""


def test_the_files_beside_it_are_read(tokenizer):
    facts = tokenizer.facts
    assert (facts.bos, facts.eos, facts.template, facts.context) == (
        "<|im_start|>",
        "<|im_end|>",
        "{{ messages }}",
        512,
    )
    assert facts.eos_ids == {5, 6, WHOLE.token_to_id("<|im_end|>")}
    assert tokenizer.specials == tuple(token.content for token in ADDED)


def gguf(path: Path, pre: str = "gpt-2", **changes: object) -> Path:
    """A GGUF header with the trained vocabulary."""
    vocabulary = sorted(WHOLE.get_vocab().items(), key=lambda item: item[1])
    kinds = {token.content: 3 if token.special else 4 for token in ADDED}
    merges = json.loads(WHOLE.to_str())["model"]["merges"]
    values: dict[str, object] = {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [word for word, _ in vocabulary],
        "tokenizer.ggml.token_type": [kinds.get(word, 1) for word, _ in vocabulary],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.eos_token_id": WHOLE.token_to_id("<|im_end|>"),
        "tokenizer.chat_template": "{{ gguf }}",
        **changes,
    }

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode()

    def value(item: object) -> bytes:
        if isinstance(item, str):
            return struct.pack("<I", 8) + string(item)
        if isinstance(item, int):
            return struct.pack("<II", 4, item)
        assert isinstance(item, list)
        kind = 8 if isinstance(item[0], str) else 5
        body = b"".join(string(each) if kind == 8 else struct.pack("<i", each) for each in item)
        return struct.pack("<IIQ", 9, kind, len(item)) + body

    kept = {key: item for key, item in values.items() if item is not None}
    body = b"".join(string(key) + value(item) for key, item in kept.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(kept)) + body)
    return path


def test_a_gguf_reads_like_the_tokenizer_it_was_made_from(tmp_path):
    tokenizer = Tokenizer.load(gguf(tmp_path / "m.gguf"))
    for text in ("<|im_start|>user\nthe quick 123 Grüße<|im_end|>x<tool_call>", "  spaces \n\n"):
        assert tokenizer.encode([(text, True)]) == ids(text)
    assert tokenizer.facts.template == "{{ gguf }}"
    assert tokenizer.facts.eos_ids == {WHOLE.token_to_id("<|im_end|>")}
    assert tokenizer.facts.context == 2048


@pytest.mark.parametrize(("pre", "digits"), [("qwen2", 1), ("llama-bpe", 3), ("smollm", 1)])
def test_words_are_split_in_the_models_way(tmp_path, pre, digits):
    tokenizer = Tokenizer.load(gguf(tmp_path / "m.gguf", pre))
    assert tokenizer._plain.pre_tokenizer.pre_tokenize_str("12345")[0][1] == (0, digits)


def test_an_unknown_way_of_splitting_words_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match="teapot"):
        Tokenizer.load(gguf(tmp_path / "m.gguf", "teapot"))


def test_a_gguf_without_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(ModelError, match="merges"):
        Tokenizer.load(gguf(tmp_path / "m.gguf", **{"tokenizer.ggml.merges": None}))


@given(cut=st.integers(0, 3000), junk=st.binary(min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_damaged_gguf_is_a_model_error_or_still_reads(tmp_path_factory, cut, junk):
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    whole = gguf(path).read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(ModelError):
        read_metadata(path)
    path.write_bytes(whole[:cut] + junk + whole[cut + len(junk) :])
    with suppress(ModelError):
        read_metadata(path)


def test_missing_and_broken_files_are_model_errors(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in (tmp_path / "no.gguf", tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelError):
            Tokenizer.load(path)


def test_the_real_model_reads_its_own_template(smollm2):
    tokenizer = Tokenizer.load(smollm2)
    assert tokenizer.encode([("<|im_start|>", True), ("user\n", True)])[0] == 1
    assert tokenizer.facts.eos == "<|im_end|>"
    assert tokenizer.facts.eos_ids == {0, 2}
    assert "im_start" in tokenizer.facts.template
