"""The place of a completion: the text around the cursor and what is open there."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from c2l_lsp.engine.completion.shaping.lexer import HeadStates, State, Token, advance, close, tokens
from c2l_lsp.engine.completion.shaping.lexical_rules import Delimiter, LexicalRules, rules_of

_LINES_ABOVE = 24
_CHARACTERS_AFTER = 4000  # of the text after the cursor in which an open bracket is looked for


@dataclass(frozen=True)
class Place:
    """A cursor in a document: LSP language id and the text before and after it, with line ends \\n."""

    language: str
    prefix: str
    suffix: str
    heads: HeadStates = field(default_factory=HeadStates, compare=False, repr=False)

    @cached_property
    def rules(self) -> LexicalRules:
        """The lexical rules of the language."""
        return rules_of(self.language)

    @cached_property
    def line_start(self) -> int:
        """Offset of the beginning of the cursor line."""
        return self.prefix.rfind("\n") + 1

    @cached_property
    def line(self) -> str:
        """The cursor line before the cursor."""
        return self.prefix[self.line_start :]

    @cached_property
    def rest(self) -> str:
        """The cursor line after the cursor."""
        return self.suffix.partition("\n")[0].rstrip("\r")

    @cached_property
    def following(self) -> str:
        """The first line below the cursor line that is not blank, without white space around it, or ""."""
        at = self.suffix.find("\n")
        while at >= 0:
            end = self.suffix.find("\n", at + 1)
            line = self.suffix[at + 1 : end if end >= 0 else len(self.suffix)].strip()
            if line:
                return line
            at = end
        return ""

    @cached_property
    def above(self) -> list[str]:
        """The last lines above the cursor line that are not blank, without white space around them, nearest last."""
        end, found = self.line_start, list[str]()
        while end > 0 and len(found) < _LINES_ABOVE:
            start = self.prefix.rfind("\n", 0, end - 1) + 1
            if line := self.prefix[start : end - 1].strip():
                found.append(line)
            end = start
        return found[::-1]

    @cached_property
    def head(self) -> State:
        """What is open at the beginning of the cursor line."""
        return self.heads.at_end(self.language, self.prefix[: self.line_start])

    @cached_property
    def cursor(self) -> State:
        """What is open at the cursor. Offsets count from the beginning of the document."""
        return advance(self.head, self.prefix, self.rules, self.line_start)

    @cached_property
    def closed_after(self) -> frozenset[int]:
        """Offsets of the open brackets, and of the open string, that the text after the cursor closes."""
        closed = set[int]()
        inside = self.cursor.inside
        if inside is not None and self.ends(inside):
            closed.add(self.cursor.inside_at)
        elif inside is not None:
            inside = None  # the text after the cursor is complete in itself
        open_brackets = list(self.cursor.brackets)
        text, start = self.prefix + self.suffix[:_CHARACTERS_AFTER], len(self.prefix)
        for token in tokens(text, self.rules, inside, start):
            if token.kind == "reset" or not open_brackets or open_brackets[0][0] >= start:
                break
            if token.kind == "open":
                open_brackets.append((token.at, token.text))
            elif token.kind == "close" and (found := _closed(text, open_brackets, token)) is not None:
                closed.update({found} if found < start else ())
        return frozenset(closed)

    @cached_property
    def spare_after(self) -> str:
        """The closing brackets after the cursor that nothing opens: a deleted or unwritten bracket belongs to them."""
        open_brackets, spare = list(self.cursor.brackets), ""
        text, start = self.prefix + self.suffix[:_CHARACTERS_AFTER], len(self.prefix)
        inside = self.cursor.inside
        for token in tokens(text, self.rules, inside if inside and self.ends(inside) else None, start):
            if token.kind == "reset":
                break
            if token.kind == "open":
                open_brackets.append((token.at, token.text))
            elif token.kind == "close" and _closed(text, open_brackets, token) is None:
                spare += token.text
        return spare

    def ends(self, inside: Delimiter) -> bool:
        """Return whether a string or comment that is open at the cursor ends after it, rather than being new.

        A quote of several lines ends if the text after the cursor has an odd number of its ends.
        """
        if not inside.multiline or (len(inside.closing) == 1 and inside.closing != "`"):
            found = inside.body.match(self.rest)
            return found is not None and bool(found.group(1))
        return self.suffix.count(inside.closing) % 2 == 1 or (inside.comment and inside.closing in self.suffix)


def _closed(text: str, open_brackets: list[tuple[int, str]], token: Token) -> int | None:
    """Remove what a closing bracket closes, and return its offset. Brackets to which it cannot belong are skipped."""
    while (found := close(open_brackets, token.text)) is not None:
        if _belongs(text, found[0], token.at):
            return found[0]
    return None


def _belongs(text: str, opening: int, closing: int) -> bool:
    """Whether a bracket may close another by the indentation of their lines.

    A closing bracket that begins its line further left than the line of the opening one closes an outer block.
    """
    start = text.rfind("\n", 0, closing) + 1
    if start <= opening or text[start:closing].strip():
        return True
    return _width(text[start:closing]) >= _width(_indent_of_line(text, opening))


def _indent_of_line(text: str, at: int) -> str:
    start = text.rfind("\n", 0, at) + 1
    line = text[start : at + 1]
    return line[: len(line) - len(line.lstrip())]


def _width(indent: str) -> int:
    return len(indent.expandtabs(4))
