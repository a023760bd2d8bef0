"""Content rules: text passes, and its secrets are redacted. Works on bytes; knows no paths and opens no files."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from c2l_lsp.cooperative import Slices
from c2l_lsp.redaction import Span, redact
from c2l_lsp.repo.filter import screen
from c2l_lsp.repo.filter.plain_text import Refusal, decode

_REMEMBERED = 8192  # texts whose secrets are known: a file is read two or three times while it is indexed


def check_content_in_slices(data: bytes) -> Slices[Refusal | str]:
    """Return the text of `data` with its secrets redacted (`redaction`), or the reason why it is refused."""
    text = decode(data)
    if isinstance(text, Refusal):
        return text
    secrets = yield from _secrets(text, blake2b(data, digest_size=16).digest())
    yield
    return redact(text, secrets)


_known: OrderedDict[bytes, list[Span]] = OrderedDict()
"""Digest of a text → the places of its secrets. Only places and digests: no text is held, and nothing is stored."""


def _secrets(text: str, digest: bytes) -> Slices[list[Span]]:
    if digest not in _known:
        found = yield from screen.secret_spans_in_slices(text)
        _known[digest] = found
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
    return _known[digest]
