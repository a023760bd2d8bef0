from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.corpus.tokenizer import SPECIAL, CodeTokenizer, pretrained, train_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from c2l_lsp.errors import TrainingError

FRAGMENTS = ["\n", "\r\n", "    ", "\t", "def ", "self.x", "é漢🙂", "0x1F", "  # a", "\u2028", "\x00"]
PIECES = st.sampled_from([*FRAGMENTS, *SPECIAL])


@given(text=st.one_of(st.text(), st.lists(PIECES).map("".join)))
@settings(max_examples=200, deadline=None)
def test_decoding_restores_every_text(tokenizer: CodeTokenizer, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.lists(PIECES).map("".join))
@settings(max_examples=100, deadline=None)
def test_only_newline_tokens_cross_the_end_of_a_line(tokenizer: CodeTokenizer, text: str) -> None:
    for number in tokenizer.encode(text):
        token = tokenizer.decode([number])
        assert "\n" not in token or not token.strip("\r\n\t ")
        assert not token.rstrip("\r\n\t ") or "\n" not in token


def test_indentation_is_one_token_and_digits_are_separate(tokenizer: CodeTokenizer) -> None:
    shown = [tokenizer.decode([i]) for i in tokenizer.encode("if x:\n        y = 123\n")]
    assert "\n        " in shown
    assert shown[-4:] == ["1", "2", "3", "\n"]


def test_special_tokens_in_a_file_are_ordinary_text(tokenizer: CodeTokenizer) -> None:
    assert tokenizer.end not in tokenizer.encode("x = '<|endoftext|>'")


def test_transformers_produces_the_same_tokens(
    tokenizer: CodeTokenizer, tokenizer_folder: Path, sources: list[str]
) -> None:
    loaded = pretrained(tokenizer_folder)
    assert loaded(sources[0])["input_ids"] == tokenizer.encode(sources[0])
    assert loaded.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(SPECIAL)))
    assert loaded("<|fim_prefix|>x")["input_ids"][0] == tokenizer.prefix
    assert loaded.eos_token_id == tokenizer.end


def test_small_vocabulary_and_missing_file_raise(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="256 bytes"):
        train_tokenizer(["x"], 100)
    with pytest.raises(TrainingError, match=r"no tokenizer\.json"):
        CodeTokenizer(tmp_path)
