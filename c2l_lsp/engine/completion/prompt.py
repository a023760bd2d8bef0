"""Prompts: token ids from the text around a cursor. A prompt holds text of the cursor's own file and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.token_healing import forced_prefix_of

PREFIX_SHARE = 0.75
"""Share of the prompt for the text before the cursor, if the text on both sides is too long."""

_CHARACTERS_PER_TOKEN = 8  # an upper estimate to cut text before tokenising; ids are cut to the exact limit afterwards
_LINE_STEP = 16  # a clipped prefix starts at every 16th line, so its start, and the KV cache, survive typing
_TOKEN_STEP = 64  # likewise for a suffix that comes first in the prompt: it must not shrink with every token typed


@dataclass(frozen=True)
class Prompt:
    """Token ids to prefill.

    `fim`: the model is asked to fill in between prefix and suffix, rather than to continue the prefix.
    `forced_prefix`: text before the cursor that the prompt leaves out. The answer has to begin with it (token healing).
    """

    ids: list[int]
    fim: bool
    forced_prefix: str = ""


def build(model: BaseModel, prefix: str, suffix: str, max_tokens: int, reserve: int, heal: bool = True) -> Prompt:
    """Return the prompt for a cursor between `prefix` and `suffix`.

    It has at most `max_tokens` tokens and leaves `reserve` positions of the model's context for the answer. The suffix
    is left out if it is blank or the model has no fill-in-the-middle tokens. With `heal`, the prompt does not end
    inside a word (see `c2l_lsp.model.lm.token_healing`).
    """
    forced_prefix = forced_prefix_of(prefix) if heal and model.token_bytes is not None else ""
    prefix = prefix.removesuffix(forced_prefix) if forced_prefix else prefix
    room = max(16, min(max_tokens, model.max_context - reserve) - 4)
    fill = model.fim is not None and bool(suffix.strip())
    after = model.encode_cached(suffix[: room * _CHARACTERS_PER_TOKEN]) if fill else []
    min_after = min(len(after), max(int(room * (1 - PREFIX_SHARE)), 1))
    before = _encode_prefix(model, prefix, room - min_after)
    after = after[: max(min_after, (room - len(before)) // _TOKEN_STEP * _TOKEN_STEP)]
    if fill and model.fim is not None:
        return Prompt(model.fim.prompt(before, after), True, forced_prefix)
    return Prompt([model.start_id, *before], False, forced_prefix)


def _encode_prefix(model: BaseModel, prefix: str, room: int) -> list[int]:
    """The last tokens of the prefix, at most `room`, from a line at which a slightly longer prefix starts too."""
    if len(prefix) <= room:  # it always fits: a token of every supported tokenizer has at least one byte
        return model.encode_incrementally(prefix)
    lines = prefix.splitlines(keepends=True)
    first = _first_line(lines, room * _CHARACTERS_PER_TOKEN)
    ids = model.encode_incrementally("".join(lines[first:]))
    while len(ids) > room and first + _LINE_STEP < len(lines):
        first = (first // _LINE_STEP + 1) * _LINE_STEP
        ids = model.encode_incrementally("".join(lines[first:]))
    return ids[-room:]


def _first_line(lines: list[str], characters: int) -> int:
    """Index of the line from which about the last `characters` are left: a multiple of _LINE_STEP, or the last line."""
    size = 0
    for back, line in enumerate(reversed(lines)):
        size += len(line)
        if size > characters:
            first = len(lines) - back
            return min(-(-first // _LINE_STEP) * _LINE_STEP, len(lines) - 1)
    return 0
