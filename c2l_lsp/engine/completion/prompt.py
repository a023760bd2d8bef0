"""Prompts: token ids from the text around a cursor. A prompt holds text of the cursor's own file and nothing else.

A model reads only the tokens that a prompt does not share with the one before. So a prompt changes at its end alone
while the user types. In the order prefix-suffix-middle (see `fim`) the text behind the cursor stands behind the text
before it. There the prefix ends at a line break, the anchor, and everything typed since belongs to the middle.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.lm.fim import FimTokens
from c2l_lsp.model.lm.token_healing import forced_prefix_of

PREFIX_SHARE = 0.75
"""Share of the prompt for the text before the cursor, if the text on both sides is too long."""

MAX_TYPED = 256
"""Tokens of text between the anchor and the cursor, at most; in a short prompt a fifth of it."""

_CHARACTERS_PER_TOKEN = 8  # an upper estimate to cut text before tokenising; ids are cut to the exact limit afterwards
_LINE_STEP = 16  # a clipped prefix starts at every 16th line, so its start, and the KV cache, survive typing
_TOKEN_STEP = 64  # likewise for a suffix that comes first in the prompt: it must not shrink with every token typed
_ANCHORS = 16  # documents


@dataclass(frozen=True)
class Prompt:
    """Token ids to prefill.

    `fim`: the model is asked to fill in between prefix and suffix, rather than to continue the prefix.
    `forced_prefix`: text before the cursor that the prompt leaves out. The answer has to begin with it (token healing).
    """

    ids: list[int]
    fim: bool
    forced_prefix: str = ""


@dataclass(frozen=True)
class _Anchor:
    """The part of a prompt that stays while its document changes only behind `before` and before `suffix`.

    `before`, `suffix`: text; `before_ids`, `after_ids`: what the prompt holds of both. `room`: tokens of the prompt.
    """

    before: str
    suffix: str
    before_ids: list[int]
    after_ids: list[int]
    room: int

    def typed(self, prefix: str, suffix: str, room: int) -> str | None:
        """The text between the anchor and the cursor; None if the document has changed elsewhere."""
        if (suffix, room) != (self.suffix, self.room):
            return None
        first = max(0, len(prefix) - len(self.before) - MAX_TYPED * _CHARACTERS_PER_TOKEN)
        at = prefix.rfind(self.before, first) if self.before else 0
        return None if at < 0 else prefix[at + len(self.before) :]


class Anchors:
    """The anchor of each of the last documents; a key names a document."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, _Anchor] = OrderedDict()

    def get(self, key: str) -> _Anchor | None:
        """Return the anchor of a document."""
        return self._found.get(key)

    def put(self, key: str, anchor: _Anchor) -> None:
        """Keep an anchor; the document whose anchor was set longest ago is forgotten."""
        self._found[key] = anchor
        self._found.move_to_end(key)
        while len(self._found) > _ANCHORS:
            self._found.popitem(last=False)


def build(
    model: BaseModel,
    prefix: str,
    suffix: str,
    max_tokens: int,
    reserve: int,
    heal: bool = True,
    anchors: Anchors | None = None,
    document: str = "",
) -> Prompt:
    """Return the prompt for a cursor between `prefix` and `suffix`.

    It has at most `max_tokens` tokens and leaves `reserve` positions of the model's context for the answer. The suffix
    is left out if it is blank or the model has no fill-in-the-middle tokens. With `heal`, the prompt does not end
    inside a word (see `c2l_lsp.model.lm.token_healing`). `anchors` are those of earlier prompts; `document` names this
    one among them.
    """
    forced_prefix = forced_prefix_of(prefix) if heal and model.token_bytes is not None else ""
    prefix = prefix.removesuffix(forced_prefix) if forced_prefix else prefix
    room = max(16, min(max_tokens, model.max_context - reserve) - 4)
    if model.fim is None or not suffix.strip():
        return Prompt([model.start_id, *_encode_prefix(model, prefix, room)], False, forced_prefix)
    if model.fim.order == "psm":
        ids = _anchored(model, model.fim, prefix, suffix, room, anchors or Anchors(), document)
    else:
        ids = model.fim.prompt(*_both_sides(model, prefix, suffix, room))
    return Prompt(ids, True, forced_prefix)


def _anchored(
    model: BaseModel, fim: FimTokens, prefix: str, suffix: str, room: int, anchors: Anchors, document: str
) -> list[int]:
    """The prompt with the last anchor if the document has changed behind it only, else with one at the line's start."""
    slack, anchor = min(MAX_TYPED, room // 5), anchors.get(document)
    typed = anchor.typed(prefix, suffix, room) if anchor is not None else None
    if anchor is not None and typed is not None and len(line := model.encode_incrementally(typed)) <= slack:
        return fim.prompt(anchor.before_ids, anchor.after_ids, line)
    start = prefix.rfind("\n") + 1
    line = model.encode_incrementally(prefix[start:])
    if len(line) > slack:  # a line without end: the cursor is the anchor
        start, line = len(prefix), []
    before, after = _both_sides(model, prefix[:start], suffix, room - slack)
    kept = prefix[max(0, start - room * _CHARACTERS_PER_TOKEN) : start]
    anchors.put(document, _Anchor(kept, suffix, before, after, room))
    return fim.prompt(before, after, line)


def _both_sides(model: BaseModel, prefix: str, suffix: str, room: int) -> tuple[list[int], list[int]]:
    """The tokens nearest to the cursor on both sides, at most `room` together."""
    after = model.encode_cached(suffix[: room * _CHARACTERS_PER_TOKEN])
    min_after = min(len(after), max(int(room * (1 - PREFIX_SHARE)), 1))
    before = _encode_prefix(model, prefix, room - min_after)
    return before, after[: max(min_after, (room - len(before)) // _TOKEN_STEP * _TOKEN_STEP)]


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
