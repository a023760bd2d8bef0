"""Redacted text: lengths and lines stay, and what is learned of it are the pieces between marks."""

from __future__ import annotations

import random

from c2l_lsp.model.hypernet import chunking
from c2l_lsp.redaction import MARK, longest_piece, pieces, redact, without_marks


def test_marks_keep_length_and_lines() -> None:
    text = "a = 'one\r\ntwo\nthree' + b"
    found = redact(text, [(5, 18)])
    assert found == f"a = '{MARK * 3}\r\n{MARK * 3}\n{MARK * 4}e' + b"
    assert (len(found), found.count("\n")) == (len(text), text.count("\n"))


def test_text_without_secrets_is_the_same_object() -> None:
    text = "x = 1\n" * 3
    assert redact(text, []) is text
    assert pieces(text) == [text]
    assert pieces("") == []


def test_pieces_end_at_marks_and_begin_after_them() -> None:
    marked = f"a = '{MARK}{MARK}\n{MARK}'\nb = '{MARK}'\n"
    assert pieces(marked) == ["a = '", "'\nb = '", "'\n"]
    assert longest_piece(marked) == "'\nb = '"
    assert without_marks(marked) == "a = ''\nb = ''\n"
    assert pieces(MARK * 3) == []
    assert longest_piece(MARK) == ""


def test_chunks_are_pieces_of_the_chunks_without_secrets() -> None:
    """A secret moves no cut: the chunks before and after it stay as they are."""
    rng = random.Random(2)
    blocks = [f"def f{n}(a):\n" + "".join(f"    a = a + {rng.random()}\n" for _ in range(20)) for n in range(30)]
    text = "\n".join(blocks)
    at = text.index("f15(") + 40
    marked = redact(text, [(at, at + 12)])
    plain, cut = chunking.split(text), chunking.split(marked)
    assert "".join(cut) == without_marks(marked)
    assert not any(MARK in chunk for chunk in cut)
    assert len(set(plain) - set(cut)) == 1
    assert len(set(cut) - set(plain)) == 2
