"""The simulated author: what is on the screen, what is accepted of it, and what that counts. No process, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_WORD = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+")
_PAIRS = {"(": ")", "[": "]", "{": "}"}
WORTH = 2
"""Characters of a text, at least, for which the author presses the accept key."""


@dataclass
class Counts:
    """What happened at one or more places.

    `keys`: keystrokes of the text without completion. `pressed`: keystrokes with it, those that accept included.
    `characters`: of the text. `shown`: ghost texts; `wrong`: characters of them that disagree with the text.
    `whole`, `lines`, `words`: acceptances. `flicker`: ghost texts replaced or removed although the text still agreed.
    `requests`: completion requests; `late`: requests that were not answered before the next key.
    """

    keys: int = 0
    pressed: int = 0
    characters: int = 0
    shown: int = 0
    shown_characters: int = 0
    wrong: int = 0
    whole: int = 0
    lines: int = 0
    words: int = 0
    accepted_characters: int = 0
    flicker: int = 0
    requests: int = 0
    late: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other places."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Ghost:
    """A ghost text and the number of characters after the cursor that it replaces."""

    text: str
    replaced: int = 0


@dataclass
class Author:
    """Types `text` between two texts. With `pairs`, the editor closes brackets, as VS Code does.

    `before`, `after`: the document around the cursor. `closed`: brackets that the editor added after the cursor.
    """

    before: str
    after: str
    text: str
    ghost: Ghost | None = None
    closed: str = ""
    pairs: bool = True
    counts: Counts = field(default_factory=Counts)

    def type(self, chunk: str) -> None:
        """Type the next characters of the text. The ghost text stays as far as they are its beginning."""
        self.counts.pressed += 1
        if chunk and self.closed.startswith(chunk):  # typed over the bracket that the editor added
            self._move(chunk, 0)
            self.closed, self.after = self.closed[1:], self.after[1:]
            return
        self._move(chunk, 0)
        if self.pairs and chunk in _PAIRS and not self.after.partition("\n")[0].strip(")]} :,;"):
            self.closed, self.after = _PAIRS[chunk] + self.closed, _PAIRS[chunk] + self.after

    def show(self, ghost: Ghost | None) -> None:
        """Put an answer on the screen."""
        if ghost is None or self.ghost is None or ghost.text != self.ghost.text:
            self.counts.flicker += self.ghost is not None
            if ghost is not None:
                self.counts.shown += 1
                self.counts.shown_characters += len(ghost.text)
                self.counts.wrong += len(ghost.text) - common(ghost.text, self.text)
        self.ghost = ghost

    def accept(self) -> bool:
        """Accept what agrees with the text: all of the ghost text, its first line or a word. False if nothing does."""
        ghost = self.ghost
        if ghost is None:
            return False
        if self.text.startswith(ghost.text) and ghost.replaced <= len(self.closed) and len(ghost.text) >= WORTH:
            self.counts.whole += 1
            self._insert(ghost.text, ghost.replaced)
            return True
        first, newline, _ = ghost.text.partition("\n")
        if newline and len(first) >= WORTH and self.text.startswith(first):
            self.counts.lines += 1
            self._insert(first, 0)
            return True
        word = _WORD.match(ghost.text)
        if word and len(word.group()) >= WORTH and self.text.startswith(word.group()):
            self.counts.words += 1
            self._insert(word.group(), 0)
            return True
        return False

    def _insert(self, text: str, replaced: int) -> None:
        self.counts.pressed += 1
        self.counts.accepted_characters += len(text)
        self._move(text, replaced)

    def _move(self, text: str, replaced: int) -> None:
        ghost = self.ghost
        rest = ghost.text[len(text) :] if ghost is not None and ghost.text.startswith(text) else ""
        self.ghost = Ghost(rest, ghost.replaced) if rest and ghost is not None else None
        self.before, self.text = self.before + text, self.text[len(text) :]
        self.after, self.closed = self.after[replaced:], self.closed[replaced:]


def common(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    for at, (mine, yours) in enumerate(zip(a, b, strict=False)):
        if mine != yours:
            return at
    return min(len(a), len(b))
