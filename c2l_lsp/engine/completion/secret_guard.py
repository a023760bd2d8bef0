"""Cuts a completion before a secret: one that the screen finds in it, or a part of one that the open file holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from c2l_lsp.repo.filter import screen

SHORTEST_PART = 6
"""So many characters in a row of a secret of the open file are not suggested."""

_CONTEXT = 400  # characters before the cursor that are read with a completion: a literal can begin there
_BEFORE, _AFTER = 24_000, 8_000  # characters of the open file: more than the prompt of a shipped model holds
_BLOCK_LINES = 16
_STEP = 4096  # characters
_CACHED_BLOCKS = 512
_OPENING = "\"'`([{=:+ \t"


def without_secrets(text: str, prefix: str, suffix: str) -> str:
    """Return a completion up to the first character of a secret; "" if nothing that says something is left.

    `prefix` and `suffix` are the text around the cursor. A literal that is begun before the cursor counts as a whole.
    """
    cut = min(_first_secret(text, prefix, suffix), _first_copy(text, prefix, suffix))
    if cut == len(text):
        return text
    left = text[:cut].rstrip(_OPENING)
    return left if any(map(str.isalnum, left)) else ""


def _first_secret(text: str, prefix: str, suffix: str) -> int:
    """Where a secret begins in a completion; its length if there is none."""
    before = _last_lines(prefix)
    whole = before + text + suffix.partition("\n")[0][:_CONTEXT]
    start, end = len(before), len(before) + len(text)
    spans = screen.secret_spans(whole)
    return min((max(first - start, 0) for first, last in spans if first < end and last > start), default=len(text))


def _last_lines(prefix: str) -> str:
    """The last characters of the text before the cursor, from the beginning of a line if one begins there."""
    last = prefix[-_CONTEXT:]
    return last.partition("\n")[2] if len(prefix) > _CONTEXT and "\n" in last else last


def _first_copy(text: str, prefix: str, suffix: str) -> int:
    """Where a part of a secret of the open file begins in a completion; its length if there is none."""
    parts = frozenset[str]().union(*map(_parts_of_secrets, _blocks(_recent(prefix), suffix[:_AFTER])))
    if not parts:
        return len(text)
    return next((at for at in range(len(text)) if text[at : at + SHORTEST_PART] in parts), len(text))


def _recent(prefix: str) -> str:
    """About the last _BEFORE characters, from a place that is the same for a slightly longer prefix."""
    return prefix[max(0, len(prefix) - _BEFORE) // _STEP * _STEP :]


def _blocks(before: str, after: str) -> Iterator[str]:
    """The lines around the cursor in blocks, most of which the next keystroke leaves as they are."""
    head, _, line = before.rpartition("\n")
    rest, _, tail = after.partition("\n")
    for lines in (head.split("\n"), [line + "\n" + rest], tail.split("\n")):
        for start in range(0, len(lines), _BLOCK_LINES):
            yield "\n".join(lines[start : start + _BLOCK_LINES])


@lru_cache(_CACHED_BLOCKS)
def _parts_of_secrets(block: str) -> frozenset[str]:
    """All runs of SHORTEST_PART characters of the secrets in some lines."""
    secrets = (block[first:last] for first, last in screen.secret_spans(block))
    return frozenset(
        secret[at : at + SHORTEST_PART] for secret in secrets for at in range(len(secret) - SHORTEST_PART + 1)
    )
