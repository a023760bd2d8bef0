"""Which end of a text becomes the forced prefix, and which tokens are compatible with it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.token_healing import TokenBytes, forced_prefix_of, token_bytes_of


@pytest.mark.parametrize(
    ("before", "forced_prefix"),
    [
        ("def f(self, na", " na"),
        ("value = gri", " gri"),
        ("value = start_sl", "_sl"),
        ("value = start_", "_"),
        ("print(", "("),
        ("return ", " "),
        ("x = foo([", "(["),
        ("x == ", " "),
        ("grüß", "grüß"),
        ("\n        ", ""),
        ("\r\n\t", ""),
        ("    ", ""),
        ("", ""),
        ("x = " + "a" * 60, ""),
    ],
)
def test_forced_prefix_is_the_last_word_with_one_character_before_it(before: str, forced_prefix: str) -> None:
    assert forced_prefix_of(before) == forced_prefix


def test_compatible_tokens_extend_the_prefix_or_begin_it() -> None:
    token_bytes = TokenBytes([None, b" n", b" na", b" name", b" x", b"", b" namely", b"n"])
    assert sorted(token_bytes.compatible_tokens(b" na")) == [1, 2, 3, 6]
    assert token_bytes.compatible_tokens(b"?") == []
    assert token_bytes.text([3, 4]) == " name x"


@given(text=st.text(min_size=1, max_size=60))
@example(text="\uf900")  # Qwen's tokenizer normalises its input (NFC)
@settings(max_examples=60, deadline=None)
def test_token_bytes_join_to_the_encoded_text(tiny: BaseModel, text: str) -> None:
    token_bytes = token_bytes_of(tiny.tokenizer)
    assert token_bytes is not None
    normaliser = tiny.tokenizer.backend_tokenizer.normalizer
    read = text if normaliser is None else normaliser.normalize_str(text)
    assert b"".join(token_bytes[token] for token in tiny.encode(text)) == read.encode()


def test_special_tokens_have_no_bytes(tiny: BaseModel) -> None:
    token_bytes = token_bytes_of(tiny.tokenizer)
    assert token_bytes is not None
    assert all(token_bytes[token] == b"" for token in tiny.stops)
    assert not tiny.stops & set(token_bytes.compatible_tokens(b"<"))


def test_sentencepiece_tokens_map_to_spaces_and_bytes() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<0x0A>": 1, "▁a": 2, "b": 3}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    token_bytes = token_bytes_of(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert token_bytes is not None
    assert [token_bytes[token] for token in range(4)] == [b"", b"\n", b" a", b"b"]
