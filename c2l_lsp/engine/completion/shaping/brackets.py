"""Balances a text against the brackets and strings that are open at its place and that the text after it closes."""

from __future__ import annotations

from dataclasses import dataclass

from c2l_lsp.engine.completion.shaping.lexer import CLOSING, Token, close, tokens
from c2l_lsp.engine.completion.shaping.lexical_rules import Delimiter
from c2l_lsp.engine.completion.shaping.place import Place
from c2l_lsp.text import leading_closers


@dataclass(frozen=True)
class Balanced:
    """A text that leaves brackets and strings as balanced as they were.

    `replaced`: number of characters after the cursor that the text repeats and therefore replaces.
    """

    text: str
    replaced: int = 0


@dataclass
class _Walk:
    """The brackets and the string that are open while a text is read.

    `string`: the open string and its offset, or None and -1. `borrowed`: braces that the text closes although the text
    after the cursor closes them, as (offset of the closing one, opening character); the text has to open them again, as
    `} else {` does. `stop`: where the text has to end.
    """

    brackets: list[tuple[int, str]]
    string: Delimiter | None
    string_at: int
    stop: int
    borrowed: list[tuple[int, str]]


def balance(text: str, place: Place) -> Balanced:
    """Return the longest beginning of `text` that closes what it opens and nothing that is closed after the cursor.

    A bracket that is open before the cursor and that nothing closes may be closed; one may be opened that a bracket
    after the cursor waits for. A text of several lines that ends with the closing brackets that follow the cursor keeps
    them and replaces those.
    """
    balanced = _balanced_once(text, place)
    while not balanced.replaced and balanced.text != text:  # a shorter text may end inside what was closed later
        text, balanced = balanced.text, _balanced_once(balanced.text, place)
    return balanced


def _balanced_once(text: str, place: Place) -> Balanced:
    start = len(place.prefix)
    walk = _walk(text, place)
    own = [(at, bracket) for at, bracket in walk.brackets if at >= start]
    if walk.borrowed and [bracket for _, bracket in own] != [bracket for _, bracket in reversed(walk.borrowed)]:
        first = walk.borrowed[0][0]
        return _without_tail(text, first - start, place)
    kept = text[: walk.stop - start]
    if walk.stop < len(place.prefix) + len(text) and not own and walk.string is None:
        return _without_tail(text, walk.stop - start, place)
    if walk.string is not None and walk.string_at >= start and not (walk.string.multiline and place.ends(walk.string)):
        return Balanced(_before(kept, min([walk.string_at, *(at for at, _ in own)]) - start))
    needed = "".join(CLOSING[bracket] for _, bracket in reversed(own))
    if own and not walk.borrowed and not place.spare_after.startswith(needed):
        return Balanced(_before(kept, own[0][0] - start))
    return Balanced(kept)


def _without_tail(text: str, at: int, place: Place) -> Balanced:
    """`text` before a closing bracket that follows the cursor, or up to its end if it replaces that one."""
    kept, tail = text[:at], text[at:].rstrip()
    if "\n" in kept and not kept.rpartition("\n")[2].strip() and leading_closers(place.rest).startswith(tail):
        return Balanced(kept + tail, len(tail))
    return Balanced(kept)


def _walk(text: str, place: Place) -> _Walk:
    """Read a text from the beginning of its line, up to a bracket or quote that fits nothing."""
    start, document = len(place.prefix), place.prefix + text
    string, string_at = (place.head.inside, place.head.inside_at) if place.head.in_string else (None, -1)
    walk = _Walk(list(place.head.brackets), string, string_at, len(document), [])
    for token in tokens(document, place.rules, place.head.inside, place.line_start):
        if not _step(walk, token, place, start):
            walk.stop = max(token.at, start)
            break
    comment = _open_comment(document, place)
    if comment >= start and place.rest.strip():
        walk.stop = min(walk.stop, comment)  # the comment would swallow the rest of the line
    return walk


def _step(walk: _Walk, token: Token, place: Place, start: int) -> bool:
    """Take one token; False if the text has to end before it."""
    if token.kind == "start":
        is_string = token.delimiter is not None and not token.delimiter.comment
        walk.string, walk.string_at = (token.delimiter, token.at) if is_string else (None, -1)
    elif token.kind == "end":
        opened = walk.string_at
        if opened >= start and not token.text:
            return False  # a line break ends a string that the text opened
        walk.string, walk.string_at = None, -1
        return not (token.at >= start > opened >= 0 and opened in place.closed_after)
    elif token.kind == "open":
        walk.brackets.append((token.at, token.text))
    elif token.kind == "reset":
        walk.brackets.clear()
    else:
        return _close(walk, token, place, start)
    return True


def _close(walk: _Walk, token: Token, place: Place, start: int) -> bool:
    if token.at < start:  # it stands before the cursor and is none of the text's
        close(walk.brackets, token.text)
        return True
    if not walk.brackets or CLOSING[walk.brackets[-1][1]] != token.text:
        return False
    opened, bracket = walk.brackets[-1]
    if opened in place.closed_after:
        if bracket != "{" or leading_closers(place.rest).strip():
            return False
        walk.borrowed.append((token.at, bracket))
    walk.brackets.pop()
    return True


def _open_comment(document: str, place: Place) -> int:
    """Offset of the comment that is open at the end of a text; -1 if there is none."""
    opened = -1
    for token in tokens(document, place.rules, place.head.inside, place.line_start):
        if token.kind == "start":
            opened = token.at if token.delimiter and token.delimiter.comment else -1
        elif token.kind == "end":
            opened = -1
    return opened


def _before(text: str, at: int) -> str:
    """`text` before an offset. Of several lines the last is dropped: it is only begun."""
    head, newline, _ = text[:at].rpartition("\n")
    return head if newline and head.strip() else text[:at].rstrip()
