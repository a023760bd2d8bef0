"""Token healing: a prompt never ends inside a word, so that the model sees text cut into tokens as it learned it.

`foo(self, na` is cut `(self`, `,`, ` na` and its likely end `me` is a token that hardly ever stood after ` na`: in
training ` name` was one. So the last word (with one sign before it) is withheld from the prompt and owed by the answer:
its first tokens are chosen among those that agree with the text owed. The idea is known from guidance (Lundberg 2023).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

_TAIL = re.compile(r"(?:[^\w\r\n]|_)?[^\W_]+\Z| ?[^\w\s]{1,4}\Z|_+\Z| \Z")
_BLANK = re.compile(r"(?:\A|[\r\n])[ \t]*\Z")
_MOST = 40
"""Characters that are owed at most; a longer run of letters is left in the prompt."""


def forced_prefix_of(text: str) -> str:
    """The end of `text` that an answer should begin with again; "" at the beginning of a line."""
    if _BLANK.search(text[-200:]):
        return ""
    found = _TAIL.search(text[-_MOST - 2 :])
    return found.group() if found and len(found.group()) <= _MOST else ""


class TokenBytes:
    """The bytes of every token of a vocabulary, and which tokens agree with bytes that are owed."""

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        """`token_bytes[i]` are the bytes of token i, None or empty for one that stands for no text."""
        self._pieces = token_bytes
        self._sorted = sorted((piece, index) for index, piece in enumerate(token_bytes) if piece)
        self._index: dict[bytes, list[int]] = {}
        for piece, index in self._sorted:
            self._index.setdefault(piece, []).append(index)

    def __getitem__(self, token: int) -> bytes:
        """The bytes of a token."""
        return (self._pieces[token] if token < len(self._pieces) else None) or b""

    def compatible_tokens(self, debt: bytes) -> list[int]:
        """Tokens that begin with `debt`, and tokens that `debt` begins with; all of them pay a part of it."""
        begin = bisect_left(self._sorted, (debt, -1))
        found = []
        for piece, index in self._sorted[begin:]:
            if not piece.startswith(debt):
                break
            found.append(index)
        for size in range(1, len(debt)):
            found += self._index.get(debt[:size], [])
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """Text of tokens, white space at its beginning included; a letter that is not whole yet is left out."""
        return b"".join(self[token] for token in tokens).decode("utf-8", "ignore")


def token_bytes_of(tokenizer: Any) -> TokenBytes | None:  # noqa: ANN401 - a transformers tokenizer
    """The token_bytes of a byte-level or byte-fallback tokenizer; None for a kind that is not known here."""
    from tokenizers import decoders

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    made: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    if isinstance(backend.decoder, decoders.ByteLevel):
        of_letter = _byte_letters()
        for text, index in vocabulary.items():
            if index not in special:
                plain = all(letter in of_letter for letter in text)
                made[index] = bytes(of_letter[letter] for letter in text) if plain else text.encode()
        return TokenBytes(made)
    if "<0x0A>" in vocabulary:
        for text, index in vocabulary.items():
            if index not in special:
                byte = re.fullmatch(r"<0x([0-9A-F]{2})>", text)
                made[index] = bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()
        return TokenBytes(made)
    return None


def _byte_letters() -> dict[str, int]:
    """The letters that stand for bytes in byte-level vocabularies (GPT-2): printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
