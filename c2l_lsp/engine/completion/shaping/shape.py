"""The one way from a decoded text to the text that is shown, by the rules of this package in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from c2l_lsp.engine.completion.shaping.brackets import balance
from c2l_lsp.engine.completion.shaping.indentation import reindented
from c2l_lsp.engine.completion.shaping.lexer import HeadStates
from c2l_lsp.engine.completion.shaping.neighbours import without_neighbours
from c2l_lsp.engine.completion.shaping.place import Place
from c2l_lsp.engine.completion.shaping.syntax import Syntax
from c2l_lsp.engine.completion.shaping.words import without_rest

_MOST_PARSES = 3
_OPENING_END = re.compile(r"\s*[:,;={]+\s*\Z")


@dataclass(frozen=True)
class Shaped:
    """A text to show and the number of characters after the cursor that it replaces."""

    text: str
    replaced: int = 0


class Shaper:
    """Applies the rules to texts at places. Keeps what makes the next key cheap; results do not depend on it."""

    def __init__(self) -> None:
        self._heads, self._syntax = HeadStates(), Syntax()

    def place(self, language: str, prefix: str, suffix: str) -> Place:
        """Return the place between two texts."""
        return Place(language, prefix, suffix, self._heads)

    def shape(self, text: str, place: Place, *, whole: bool) -> Shaped:
        """Return the part of a decoded text that may be shown; "" if none.

        `whole`: the text ends at the end of a line, so the code has to parse with it as well as without it.
        """
        balanced = balance(without_neighbours(text, place), place)
        if balanced.replaced:
            shaped = Shaped(balanced.text, balanced.replaced)
        else:
            shown = without_rest(balanced.text, place.rest).rstrip()
            shaped = Shaped(without_neighbours(shown, place).rstrip())
        if whole and shaped.text == text.rstrip():
            shaped = self._parsed(shaped, place)
        return Shaped(reindented(shaped.text, place.prefix, place.suffix), shaped.replaced)

    def _parsed(self, shaped: Shaped, place: Place) -> Shaped:
        """The text without the last lines with which the code does not parse.

        A line that only its end spoils, as the colon of a definition behind a call, loses its end.
        """
        text, replaced = shaped.text, shaped.replaced
        for _ in range(_MOST_PARSES):
            if not text.strip() or not self._syntax.worsens(text, place):
                return Shaped(text, replaced)
            shorter = _OPENING_END.sub("", text)
            if shorter != text and shorter.strip() and not self._syntax.worsens(shorter, place):
                balanced = balance(shorter, place)
                return Shaped(balanced.text, balanced.replaced)
            text, replaced = balance(text.rpartition("\n")[0].rstrip(), place).text, 0
        return Shaped("")
