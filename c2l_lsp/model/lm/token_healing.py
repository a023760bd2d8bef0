"""Token healing: a prompt never ends inside a word, so that the model sees text tokenized as in training.

`foo(self, na` is tokenized `(self`, `,`, ` na`. Its likely continuation `me` hardly ever followed the token ` na` in
training, where ` name` was one token. So the last word, with one character before it, is removed from the prompt and
becomes the forced prefix of the answer: the first tokens are chosen among those that are compatible with it. The method
is that of guidance (Lundberg 2023).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

_TAIL = re.compile(r"(?:[^\w\r\n]|_)?[^\W_]+\Z| ?[^\w\s]{1,4}\Z|_+\Z| \Z")
_LINE_START = re.compile(r"(?:\A|[\r\n])[ \t]*\Z")
_MAX_PREFIX = 40
"""Characters of a forced prefix at most; a longer word stays in the prompt."""


def forced_prefix_of(text: str) -> str:
    """The end of `text` that an answer must begin with; "" at the beginning of a line."""
    if _LINE_START.search(text[-200:]):
        return ""
    found = _TAIL.search(text[-_MAX_PREFIX - 2 :])
    return found.group() if found and len(found.group()) <= _MAX_PREFIX else ""


class TokenBytes:
    """The bytes of every token of a vocabulary, with a search for the tokens compatible with a forced prefix."""

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        """`token_bytes[i]` are the bytes of token i; None or empty for a token without text."""
        self._bytes = token_bytes
        self._sorted = sorted((text, token) for token, text in enumerate(token_bytes) if text)
        self._tokens_of: dict[bytes, list[int]] = {}
        for text, token in self._sorted:
            self._tokens_of.setdefault(text, []).append(token)

    def __getitem__(self, token: int) -> bytes:
        """The bytes of a token, empty for one without text."""
        return (self._bytes[token] if token < len(self._bytes) else None) or b""

    def compatible_tokens(self, prefix: bytes) -> list[int]:
        """Tokens that begin with `prefix`, and tokens that are a beginning of it."""
        first = bisect_left(self._sorted, (prefix, -1))
        found = []
        for text, token in self._sorted[first:]:
            if not text.startswith(prefix):
                break
            found.append(token)
        for size in range(1, len(prefix)):
            found += self._tokens_of.get(prefix[:size], [])
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """Text of tokens, with its leading white space; an incomplete UTF-8 character at the end is dropped."""
        return b"".join(self[token] for token in tokens).decode("utf-8", "ignore")


def token_bytes_of(tokenizer: Any) -> TokenBytes | None:  # noqa: ANN401 - a transformers tokenizer
    """The bytes of every token of a byte-level or byte-fallback tokenizer; None for any other kind."""
    from tokenizers import decoders

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    table: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    if isinstance(backend.decoder, decoders.ByteLevel):
        byte_of = _byte_level_alphabet()
        for text, index in vocabulary.items():
            if index not in special:
                encoded = all(letter in byte_of for letter in text)
                table[index] = bytes(byte_of[letter] for letter in text) if encoded else text.encode()
        return TokenBytes(table)
    if "<0x0A>" in vocabulary:
        for text, index in vocabulary.items():
            if index not in special:
                byte = re.fullmatch(r"<0x([0-9A-F]{2})>", text)
                table[index] = bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()
        return TokenBytes(table)
    return None


def _byte_level_alphabet() -> dict[str, int]:
    """The byte of every letter of byte-level vocabularies (GPT-2): printable characters stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
