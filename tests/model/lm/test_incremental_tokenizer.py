"""Incremental tokenization gives the ids of the whole text and encodes only its last lines anew."""

from __future__ import annotations

import random

import pytest

from c2l_lsp.config import Model
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.incremental_tokenizer import BLOCK_LINES, IncrementalTokenizer


@pytest.fixture(scope="module")
def nano() -> BaseModel:
    return base.load(Model(id="c2l-nano", device="cpu"))


def test_ids_equal_those_of_the_whole_text(nano: BaseModel, sources: list[str]) -> None:
    blocks = nano.encode_incrementally
    assert blocks.can_split
    odd = "\n" * 40 + "x = 1\n" + " \n\t\n" * 30 + "\r\n" * 33 + "é\u2028b\x0c\n" * 40 + "    "
    for text in [*sources[:6], odd, odd.replace("\n", "\r\n"), "", "\n", "x", "\n" * 16, "a\n" * 16, "a\r" * 40]:
        for end in (len(text), len(text) // 2, len(text) // 3):
            assert blocks(text[:end]) == nano.encode(text[:end])


def test_ids_of_random_text_equal_those_of_the_whole_text(nano: BaseModel) -> None:
    dice = random.Random(0)
    parts = ["\n", "\n", "\r\n", " ", "    ", "\t", "def f", "(x)", ":", "1", "é", '"""', "\r", "\x0b", "return"]
    for _ in range(60):
        text = "".join(dice.choices(parts, k=300))
        assert nano.encode_incrementally(text) == nano.encode(text)


def test_only_the_last_lines_are_encoded_anew(nano: BaseModel) -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return nano.encode(text)

    blocks = IncrementalTokenizer(encode)
    text = "".join(f"value_{n} = {n}\n" for n in range(20 * BLOCK_LINES))
    blocks(text)
    asked.clear()
    for end in range(3):
        blocks(text + "more"[:end])
    assert sum(map(len, asked)) < 3 * 2 * BLOCK_LINES * 16
    asked.clear()
    blocks("".join(text.splitlines(keepends=True)[BLOCK_LINES:]))  # the visible context begins one block later
    assert sum(map(len, asked)) < 2 * 2 * BLOCK_LINES * 16


def test_tokenizer_with_tokens_across_line_ends_encodes_the_whole_text() -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return [ord(letter) for letter in text.replace(")\n", "\0")]

    blocks = IncrementalTokenizer(encode)
    text = "f()\n" * 50
    assert not blocks.can_split
    assert blocks(text) == encode(text)
    assert asked[-1] == asked[-2] == text
