"""A lexer that knows brackets, strings and comments only, for every language, from any state it was left in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from c2l_lsp.engine.completion.shaping.lexical_rules import Delimiter, LexicalRules, rules_of

CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Token:
    """A bracket or an end of a string or comment.

    `kind` is "open", "close", "start", "end" or "reset". `at`: its offset in the text. `text`: the bracket, or the end
    of a string or comment; "" if a line break ends it.
    """

    kind: str
    at: int
    text: str = ""
    delimiter: Delimiter | None = None


@dataclass(frozen=True)
class State:
    """What is open at an offset of a text: brackets as (offset, character), innermost last, and a string or comment."""

    brackets: tuple[tuple[int, str], ...] = ()
    inside: Delimiter | None = None
    inside_at: int = -1

    @property
    def in_string(self) -> bool:
        """Whether a string is open."""
        return self.inside is not None and not self.inside.comment


def tokens(text: str, rules: LexicalRules, inside: Delimiter | None = None, start: int = 0) -> Iterator[Token]:
    """Yield the tokens of `text` from an offset on, where the string or comment `inside` is open."""
    at = start
    if inside is not None:
        at, token = _close(text, at, inside)
        if token is None:
            return
        yield token
    while found := rules.token.search(text, at):
        kind = str(found.lastgroup)
        if kind[0] != "d":
            yield Token(kind, found.start(), found.group())
            at = max(found.end(), at + 1) if kind == "reset" else found.end()
            continue
        delimiter = rules.delimiters[int(kind[1:])]
        at, token = _close(text, found.end(), delimiter)
        yield Token("start", found.start(), delimiter=delimiter)
        if token is None:
            return
        yield token


def _close(text: str, at: int, delimiter: Delimiter) -> tuple[int, Token | None]:
    """Where an open delimiter ends, and its end token; None if it is open at the end of the text."""
    found = delimiter.body.match(text, at)
    end = found.end() if found else at
    if found and found.group(1) is not None:
        return end, Token("end", end - len(found.group(1)), delimiter.closing, delimiter)
    if end >= len(text) or delimiter.multiline:
        return len(text), None
    return end, Token("end", end, "", delimiter)  # a line break ends a string of one line


def advance(state: State, text: str, rules: LexicalRules, start: int = 0) -> State:
    """Return the state after `text[start:]` for the state before it. Offsets count from the beginning of `text`."""
    brackets, inside, inside_at = list(state.brackets), state.inside, state.inside_at
    for token in tokens(text, rules, state.inside, start):
        if token.kind == "start":
            inside, inside_at = token.delimiter, token.at
        elif token.kind == "end":
            inside, inside_at = None, -1
        elif token.kind == "open":
            brackets.append((token.at, token.text))
        elif token.kind == "reset":
            brackets.clear()
        else:
            close(brackets, token.text)
    return State(tuple(brackets), inside, inside_at)


def close(brackets: list[tuple[int, str]], bracket: str) -> tuple[int, str] | None:
    """Remove what a closing bracket closes, with all that was left open inside it, and return it; None if nothing."""
    for depth in range(len(brackets) - 1, -1, -1):
        if CLOSING[brackets[depth][1]] == bracket:
            found = brackets[depth]
            del brackets[depth:]
            return found
    return None


class HeadStates:
    """The states at the beginnings of the last cursor lines, so that a key costs its own line only."""

    _MOST = 8

    def __init__(self) -> None:
        self._known: list[tuple[str, str, State]] = []

    def at_end(self, language: str, head: str) -> State:
        """Return the state at the end of `head`, a text that ends at a line's beginning."""
        best = max(
            (row for row in self._known if row[0] == language and head.startswith(row[1])),
            key=lambda row: len(row[1]),
            default=(language, "", State()),
        )
        if len(best[1]) == len(head):
            return best[2]
        state = advance(best[2], head, rules_of(language), len(best[1]))
        self._known = [row for row in self._known if row is not best][-self._MOST + 1 :]
        self._known.append((language, head, state))
        return state
