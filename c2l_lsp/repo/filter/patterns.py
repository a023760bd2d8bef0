"""Patterns of .gitignore files, with git's semantics. Works on bytes; opens no files.

Follows `dir.c` and `wildmatch.c` of git, byte by byte: `?` matches one byte, not one character. A pattern is matched by
simulating a nondeterministic automaton whose states are the bits of an integer. Nothing backtracks, and a path shorter
than the pattern is refused without simulation, so that the time depends on the path's length, not on the pattern.
Patterns are indexed by their longest literal; a path is compared only with those whose literal it contains.

The caller descends from the root and stops at the first ignored directory, because git includes nothing below one.
Only a path itself is matched here, not its parents.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Literal, TypeAlias

_SLASH: Final = ord("/")
_ASTERISK: Final = ord("*")
_QUESTION_MARK: Final = ord("?")
_BRACKET: Final = ord("[")
_BACKSLASH: Final = ord("\\")
_ALL: Final = (1 << 256) - 1
_NOT_SLASH: Final = _ALL ^ (1 << _SLASH)
_SPECIAL = re.compile(rb"[*?\[\\]")
_COMPLEX = re.compile(rb"[?\[\\]|\*\*")

_Place: TypeAlias = Literal["start", "end", "anywhere"]

_STAR: Final = -1
"""Token of `*`: any bytes but '/'."""
_ANYTHING: Final = -2
"""Token of `**` without a plain slash after it: any bytes."""
_DIRECTORIES: Final = -3
"""Token of `**/`: any number of whole directories."""


class PatternError(ValueError):
    """A line is not a valid pattern: it can never match."""


class Pattern:
    """One pattern line. `ignores` is False for a negated pattern (`!pattern`).

    `by_name`: the pattern has no slash except at its end, and is matched with the last component of a path. `literals`:
    its runs of literal bytes in order. `prefix` and `suffix`: the runs at its ends, or empty.
    """

    __slots__ = (
        "_accepted_by_byte", "_folds_case", "_loops", "_loops_on_slash", "_optional", "_singles", "_size", "_text",
        "body", "by_name", "directories_only", "ignores", "is_literal", "literals", "min_length", "prefix", "suffix",
    )  # fmt: skip

    def __init__(self, line: bytes, *, fold_case: bool) -> None:
        self.ignores = not line.startswith(b"!")
        body = line if self.ignores else line[1:]
        self.directories_only = body.endswith(b"/")
        self.body = body[:-1] if self.directories_only else body
        self.by_name = b"/" not in self.body
        self._text = text = self.body.removeprefix(b"/")
        self._folds_case = fold_case
        self._size = -1  # the automaton is not built yet
        if not text:
            raise PatternError(line)
        if not _COMPLEX.search(text):  # almost every pattern: literals with single asterisks between them
            parts = (text.lower() if fold_case else text).split(b"*")
            self.prefix, self.suffix, self.is_literal = parts[0], parts[-1], len(parts) == 1
            self.literals = [part for part in parts if part]
            self.min_length = sum(map(len, parts))
            return
        tokens = _tokens(text, fold_case=fold_case)
        if not tokens:
            raise PatternError(line)
        self.literals = _literals(tokens)
        self.prefix = self.literals[0] if _is_literal(tokens[0]) else b""
        self.suffix = self.literals[-1] if _is_literal(tokens[-1]) else b""
        self.is_literal = len(self.prefix) == len(tokens)
        self.min_length = sum(token >= 0 for token in tokens)

    def matches(self, subject: bytes) -> bool:
        """Return whether the pattern matches all of `subject`: a path, or its last component if `by_name`."""
        if len(subject) < self.min_length or not self._has_literals(subject):
            return False
        return self._simulate(subject)

    def _has_literals(self, subject: bytes) -> bool:
        """Return whether `subject` contains all literals in order: necessary for a match, and cheap to test."""
        at = 0
        for literal in self.literals:
            found = subject.find(literal, at)
            if found < 0:
                return False
            at = found + len(literal)
        return True

    def _simulate(self, subject: bytes) -> bool:
        if self._size < 0:
            self._build()
        accepted_by_byte, optional = self._accepted_by_byte, self._optional
        states = 1 | (optional & 1) << 1
        for byte in subject:
            accepted = accepted_by_byte.get(byte)
            if accepted is None:
                accepted = accepted_by_byte[byte] = self._accepted(byte)
            moved = (states & accepted) << 1
            states = (
                moved | (moved & optional) << 1 | states & (self._loops_on_slash if byte == _SLASH else self._loops)
            )
            if not states:
                return False
        return bool(states >> self._size & 1)

    def _accepted(self, byte: int) -> int:
        return sum(1 << state for state, accepted in self._singles if accepted >> byte & 1)

    def _build(self) -> None:
        """Build the automaton. In state n, n single bytes have been matched, and `**/` counts as a single '/'.

        A state of `_optional` is that of a `**/`, which may match nothing: entering it enters the next one as well.
        """
        singles: list[tuple[int, int]] = []
        self._loops = self._loops_on_slash = self._optional = 0
        self._accepted_by_byte: dict[int, int] = {}
        for token in _tokens(self._text, fold_case=self._folds_case):
            state = 1 << len(singles)
            if token >= 0:
                singles.append((len(singles), token))
                continue
            self._loops |= state
            if token != _STAR:
                self._loops_on_slash |= state
            if token == _DIRECTORIES:
                self._optional |= state
                singles.append((len(singles), 1 << _SLASH))
        self._singles, self._size = singles, len(singles)


class PatternList:
    """The patterns of one ignore file, in order. The last one that matches a path decides."""

    def __init__(self, patterns: list[Pattern]) -> None:
        # Of two equal patterns the second decides, whether it is negated or not.
        last = {(pattern.body, pattern.directories_only): rank for rank, pattern in enumerate(patterns)}
        self._by_name, self._by_path = _Index(), _Index()
        for rank in sorted(last.values()):
            pattern = patterns[rank]
            (self._by_name if pattern.by_name else self._by_path).add(rank, pattern)

    @classmethod
    def from_file(cls, data: bytes, *, fold_case: bool) -> PatternList:
        """Return the patterns of an ignore file's content. Invalid lines are skipped: git never matches them."""
        return cls(list(_patterns(data, fold_case=fold_case)))

    def last_match(self, path: bytes, *, directory: bool) -> bool | None:
        """Return whether the last matching pattern ignores `path`; None if none matches.

        `path` is relative to the directory of the file, and in lower case if the patterns fold case.
        """
        name = path.rpartition(b"/")[2]
        found = [(*each, name) for each in self._by_name.candidates(name)]
        found += [(*each, path) for each in self._by_path.candidates(path)]
        found.sort(key=lambda each: each[0], reverse=True)
        for _, pattern, subject in found:
            if (directory or not pattern.directories_only) and (pattern.is_literal or pattern.matches(subject)):
                return pattern.ignores
        return None


class _Index:
    """Ranked patterns. A literal pattern is stored by its text, any other by its longest literal and its place."""

    def __init__(self) -> None:
        self._literal: dict[bytes, list[tuple[int, Pattern]]] = {}
        self._keyed: dict[tuple[_Place, int], dict[bytes, list[tuple[int, Pattern]]]] = {}
        self._others: list[tuple[int, Pattern]] = []

    def add(self, rank: int, pattern: Pattern) -> None:
        if pattern.is_literal:
            self._literal.setdefault(pattern.prefix, []).append((rank, pattern))
            return
        key = max(pattern.literals, key=len, default=b"")
        if not key:
            self._others.append((rank, pattern))
            return
        place: _Place = "start" if key is pattern.prefix else "end" if key is pattern.suffix else "anywhere"
        self._keyed.setdefault((place, len(key)), {}).setdefault(key, []).append((rank, pattern))

    def candidates(self, subject: bytes) -> Iterator[tuple[int, Pattern]]:
        """Yield the patterns that can match `subject`. Literal patterns among them do match."""
        yield from self._literal.get(subject, ())
        for (place, length), by_key in self._keyed.items():
            for key in _keys(subject, place, length, by_key):
                yield from by_key.get(key, ())
        yield from self._others


def _keys(subject: bytes, place: _Place, length: int, existing: Collection[bytes]) -> Iterable[bytes]:
    """Return the parts of `subject` of this length, at this place; those of `existing`, if these are few."""
    if length > len(subject):
        return ()
    if place == "start":
        return (subject[:length],)
    if place == "end":
        return (subject[-length:],)
    if len(existing) <= len(subject):
        return [key for key in existing if key in subject]
    return {subject[at : at + length] for at in range(len(subject) - length + 1)}


def parse(line: str, *, fold_case: bool) -> Pattern | None:
    """Return the pattern of one .gitignore line; None for a blank line or a comment.

    Raises PatternError if the line can never match anything.
    """
    try:
        data = line.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PatternError(line) from error
    if b"\0" in data:
        raise PatternError(line)
    text = _trimmed(data.rstrip(b"\r\n"))
    return Pattern(text, fold_case=fold_case) if text and not text.startswith(b"#") else None


def _patterns(data: bytes, *, fold_case: bool) -> Iterator[Pattern]:
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if line.startswith(b"#"):
            continue
        text = _trimmed(line.removesuffix(b"\r").partition(b"\0")[0])
        try:
            pattern = Pattern(text, fold_case=fold_case) if text else None
        except PatternError:
            continue
        if pattern is not None:
            yield pattern


def _trimmed(line: bytes) -> bytes:
    """Return the line without its trailing spaces. An escaped space (`\\ `) stays, and ends what is trimmed."""
    text = line.rstrip(b" ")
    if len(text) == len(line):
        return line
    backslashes = len(text) - len(text.rstrip(b"\\"))
    return text + b" " if backslashes % 2 else text


def _tokens(pattern: bytes, *, fold_case: bool) -> list[int]:
    """Return the tokens of a pattern; an empty list if it can never match.

    A token is a set of bytes, an integer with one bit for each, or one of the negative constants above.
    git compares the literal beginning of a pattern before it looks for wildcards, so that `**` after that beginning
    counts as the start of a component.
    """
    tokens: list[int] = []
    at = start = _next_special(pattern, 0)
    tokens += _bytes(pattern[:at], fold_case=fold_case)
    brackets = _Brackets(pattern, fold_case=fold_case)
    while at < len(pattern):
        byte = pattern[at]
        if byte == _ASTERISK:
            token, at = _wildcard(pattern, at, start)
            if token != _DIRECTORIES or tokens[-1:] != [_DIRECTORIES]:  # `**/**/` is `**/`
                tokens.append(token)
        elif byte == _QUESTION_MARK:
            tokens.append(_NOT_SLASH)
            at += 1
        elif byte == _BRACKET:
            accepted, at = brackets.parse(at)
            if accepted == 0:
                return []
            tokens.append(accepted)
        elif byte == _BACKSLASH:
            if at + 1 == len(pattern):
                return []  # git never matches a backslash that escapes nothing
            tokens.append(1 << pattern[at + 1])  # in its own case
            at += 2
        else:
            end = _next_special(pattern, at)
            tokens += _bytes(pattern[at:end], fold_case=fold_case)
            at = end
    return tokens


def _next_special(pattern: bytes, at: int) -> int:
    found = _SPECIAL.search(pattern, at)
    return found.start() if found else len(pattern)


def _bytes(text: bytes, *, fold_case: bool) -> list[int]:
    return [1 << byte for byte in (text.lower() if fold_case else text)]


def _wildcard(pattern: bytes, at: int, start: int) -> tuple[int, int]:
    """Return the token of the asterisks at `at`, and the position after it."""
    end = at + 1
    while pattern[end : end + 1] == b"*":
        end += 1
    if end - at == 1 or (at > start and pattern[at - 1] != _SLASH):
        return _STAR, end
    if pattern[end : end + 1] == b"/":
        return _DIRECTORIES, end + 1
    return (_ANYTHING if end == len(pattern) or pattern[end : end + 2] == b"\\/" else _STAR), end


_CLASSES: Final = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
_CLASS_SETS: Final = {name.encode(): sum(1 << ord(one) for one in members) for name, members in _CLASSES.items()}
_LOWER_BITS = _CLASS_SETS[b"lower"]
_UPPER_BITS = _CLASS_SETS[b"upper"]


class _Brackets:
    """Parses the bracket expressions of one pattern, in order."""

    def __init__(self, pattern: bytes, *, fold_case: bool) -> None:
        self._pattern = pattern
        self._fold_case = fold_case
        self._closing = 0

    def parse(self, at: int) -> tuple[int, int]:
        """Return the set of bytes of the expression that starts at `at`, and the position after it.

        The set is 0 if the expression is malformed or empty, so that it matches nothing. As in git, a `]` at the
        beginning is a member, a backslash escapes, and '/' is never a member.
        """
        pattern, found, previous = self._pattern, 0, -1
        at += 1
        negated = pattern[at : at + 1] in (b"!", b"^")
        first = at = at + negated
        while at < len(pattern) and (at == first or pattern[at] != ord("]")):
            byte = pattern[at]
            if byte == ord("-") and previous > 0 and pattern[at + 1 : at + 2] not in (b"", b"]"):
                at += 1 + (pattern[at + 1] == _BACKSLASH)
                if at == len(pattern):
                    return 0, at
                found |= self._range(previous, pattern[at])
                previous = -1
            elif byte == _BRACKET and pattern[at + 1 : at + 2] == b":" and (end := self._class_end(at + 2)) != at:
                members = _CLASS_SETS.get(pattern[at + 2 : end - 1]) if end else None
                if members is None:
                    return 0, at
                if self._fold_case and members == _UPPER_BITS:
                    members |= _LOWER_BITS
                found |= members
                at, previous = end, -1
            else:
                at += byte == _BACKSLASH
                if at == len(pattern):
                    return 0, at
                previous = pattern[at]
                found |= 1 << previous
            at += 1
        if at >= len(pattern):
            return 0, at
        return (_ALL ^ found if negated else found) & _NOT_SLASH, at + 1

    def _class_end(self, at: int) -> int:
        """Return the position of the `]` that ends the class whose name starts at `at`.

        0 if no `]` follows; the position of the opening bracket if the next `]` does not follow a colon.
        """
        if self._closing < at:
            found = self._pattern.find(b"]", at)  # remembered, so that many opening brackets cost one search
            self._closing = len(self._pattern) if found < 0 else found
        if self._closing == len(self._pattern):
            return 0
        return self._closing if self._closing > at and self._pattern[self._closing - 1] == ord(":") else at - 2

    def _range(self, low: int, high: int) -> int:
        if high < low:
            return 0
        members = (1 << (high + 1)) - (1 << low)
        if self._fold_case:
            members |= (members & _UPPER_BITS) << 32  # also the lower case of the upper-case members
        return members


def _is_literal(accepted: int) -> bool:
    return accepted > 0 and accepted & (accepted - 1) == 0


def _literals(tokens: list[int]) -> list[bytes]:
    """Return the runs of literal bytes of a pattern, in order."""
    runs: list[bytearray] = []
    open_run = False
    for token in tokens:
        if _is_literal(token):
            if not open_run:
                runs.append(bytearray())
            runs[-1].append(token.bit_length() - 1)
        open_run = _is_literal(token)
    return [bytes(run) for run in runs]
