"""Cuts a completion before a secret: one that the screen finds in it, or a part of one that the open file holds."""

from __future__ import annotations

from c2l_lsp.redaction import Span
from c2l_lsp.repo.filter import screen

BEFORE, AFTER = 8000, 2000
"""Characters around the cursor that are searched, in about 5 ms: more than the prompt of a shipped model holds."""

SHORTEST_PART = 6
"""So many characters in a row of a secret of the open file are not suggested."""

_OPENING = "\"'`([{=:+ \t"


def without_secrets(text: str, prefix: str, suffix: str) -> str:
    """Return a completion up to the first character of a secret; "" if nothing that says something is left.

    `prefix` and `suffix` are the text around the cursor. A literal that is begun before the cursor counts as a whole.
    """
    before, after = prefix[-BEFORE:], suffix[:AFTER]
    whole = before + text + after
    start, end = len(before), len(before) + len(text)
    spans = screen.secret_spans(whole)
    cut = min((max(first - start, 0) for first, last in spans if first < end and last > start), default=len(text))
    cut = min(cut, _copied(text, [whole[first:last] for first, last in _apart(spans, start, end)]))
    if cut == len(text):
        return text
    left = text[:cut].rstrip(_OPENING)
    return left if any(map(str.isalnum, left)) else ""


def _apart(spans: list[Span], start: int, end: int) -> list[Span]:
    """The spans that do not touch the completion."""
    return [(first, last) for first, last in spans if last <= start or first >= end]


def _copied(text: str, secrets: list[str]) -> int:
    """Where a part of one of the secrets begins in a text; its length if there is none."""
    parts = {secret[at : at + SHORTEST_PART] for secret in secrets for at in range(len(secret) - SHORTEST_PART + 1)}
    return next((at for at in range(len(text)) if text[at : at + SHORTEST_PART] in parts), len(text))
