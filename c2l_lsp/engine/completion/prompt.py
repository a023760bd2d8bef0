"""From the text around a cursor to token ids: which part of the file, in which order. Nothing else ever goes in."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.token_healing import forced_prefix_of

PREFIX_SHARE = 0.75
"""Share of the prompt that belongs to the text before the cursor when both sides are long."""

_CHARS_PER_TOKEN = 8  # generous: text is cut to the token budget after tokenising
_STEP_LINES = (
    16  # a clipped prefix starts at every 16th line, so that typing leaves its beginning, and its KV, in place
)
_STEP_TOKENS = 64  # what follows the cursor may stand first: it must not grow shorter with every token typed


@dataclass(frozen=True)
class Prompt:
    """Ids to feed. `fim` says whether the model was asked to fill between two texts or to go on.

    `forced_prefix` is the end of the text before the cursor, withheld: the answer begins with it.
    """

    ids: list[int]
    fim: bool
    forced_prefix: str = ""


def build(model: BaseModel, prefix: str, suffix: str, max_tokens: int, reserve: int, heal: bool = True) -> Prompt:
    """The prompt of a cursor between `prefix` and `suffix`.

    At most `max_tokens`, and at least `reserve` positions of the model are left for the answer. A model without
    fill-in-the-middle, or an empty rest of the file, is prompted with the prefix alone. With `heal` it does not end
    inside a word (see c2l_lsp.model.lm.token_healing).
    """
    forced_prefix = forced_prefix_of(prefix) if heal and model.token_bytes is not None else ""
    prefix = prefix.removesuffix(forced_prefix) if forced_prefix else prefix
    room = max(16, min(max_tokens, model.max_context - reserve) - 4)
    fill = model.fim is not None and bool(suffix.strip())
    after = model.encode_cached(suffix[: room * _CHARS_PER_TOKEN]) if fill else []
    kept_after = min(len(after), max(int(room * (1 - PREFIX_SHARE)), 1))
    before = _before(model, prefix, room - kept_after)
    after = after[: max(kept_after, (room - len(before)) // _STEP_TOKENS * _STEP_TOKENS)]
    if fill and model.fim is not None:
        return Prompt(model.fim.prompt(before, after), True, forced_prefix)
    return Prompt([model.start, *before], False, forced_prefix)


def _before(model: BaseModel, prefix: str, room: int) -> list[int]:
    """The end of the prefix that fits, starting at a line where a slightly longer prefix would start too."""
    if len(prefix) <= room:  # a token is at least one byte for every tokenizer in use, so this always fits
        return model.encode_incrementally(prefix)
    lines = prefix.splitlines(keepends=True)
    first = _first_line(lines, room * _CHARS_PER_TOKEN)
    ids = model.encode_incrementally("".join(lines[first:]))
    while len(ids) > room and first + _STEP_LINES < len(lines):
        first = (first // _STEP_LINES + 1) * _STEP_LINES
        ids = model.encode_incrementally("".join(lines[first:]))
    return ids[-room:]


def _first_line(lines: list[str], chars: int) -> int:
    size = 0
    for back, line in enumerate(reversed(lines)):
        size += len(line)
        if size > chars:
            first = len(lines) - back
            return min(-(-first // _STEP_LINES) * _STEP_LINES, len(lines) - 1)
    return 0
