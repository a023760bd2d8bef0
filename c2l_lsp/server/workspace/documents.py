"""Open documents as the editor sees them: text, edits, positions. Knows nothing of pygls or of the engine.

A line ends at \\n, \\r\\n or \\r and nowhere else, as LSP says. `str.splitlines` also splits at form feeds, U+2028 and
six others, and one of those in a file makes every later incremental edit land in the wrong place; so it is not used.
Columns inside the server are code points; editors' columns (utf-8, utf-16, utf-32 units) are converted at the edge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_EOL = re.compile(r"\r\n|\n|\r")
_WIDTH: dict[str, Callable[[str], int]] = {
    "utf-8": lambda char: 1 if char < "\x80" else 2 if char < "\u0800" else 3 if char < "\U00010000" else 4,
    "utf-16": lambda char: 1 if char < "\U00010000" else 2,
    "utf-32": lambda char: 1,
}


@dataclass(frozen=True)
class Edit:
    """One change of a document; `start` None replaces everything. Positions are (line, units) of the editor."""

    text: str
    start: tuple[int, int] | None = None
    end: tuple[int, int] = (0, 0)


@dataclass
class Document:
    """One open document. `lines` keep their endings; the last one has none and may be empty."""

    uri: str
    language: str
    version: int
    lines: list[str]
    encoding: str = "utf-16"
    _text: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, uri: str, language: str, version: int, text: str, encoding: str = "utf-16") -> Document:
        """A document with this text."""
        return cls(uri, language, version, split_lines(_paired(text)), encoding)

    @property
    def text(self) -> str:
        """The whole text."""
        if self._text is None:
            self._text = "".join(self.lines)
        return self._text

    @property
    def eol(self) -> str:
        """The ending of the first line, which new lines should have too."""
        first = self.lines[0]
        return first[len(_content(first)) :] or "\n"

    def apply(self, edits: Sequence[Edit], version: int) -> None:
        """Apply edits in order, each to the result of the one before."""
        for edit in edits:
            if edit.start is None:
                self.lines = split_lines(_paired(edit.text))
            else:
                self._splice(self.locate(*edit.start), self.locate(*edit.end), edit.text)
        self.version = version
        self._text = None

    def locate(self, line: int, units: int) -> tuple[int, int]:
        """The editor's position as (line, column in code points); past the end of line or text is clamped to it."""
        if line < 0:
            return 0, 0
        if line >= len(self.lines):
            return len(self.lines) - 1, len(self.lines[-1])
        return line, _column(_content(self.lines[line]), units, self.encoding)

    def units(self, line: int, column: int) -> int:
        """The editor's character for a column in code points."""
        before = self.lines[line][:column]
        return len(before) if before.isascii() else sum(map(_WIDTH[self.encoding], before))

    def around(self, line: int, column: int) -> tuple[str, str]:
        """The text before and the text after a place."""
        here = self.lines[line]
        return "".join(self.lines[:line]) + here[:column], here[column:] + "".join(self.lines[line + 1 :])

    def line_around(self, line: int, column: int) -> tuple[str, str]:
        """The text of one line before and after a column, without its ending."""
        content = _content(self.lines[line])
        return content[:column], content[column:]

    def _splice(self, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        if end < start:  # a client's mistake; the protocol leaves it open, and an insertion loses nothing
            end = start
        first, last = start[0], end[0] + 1
        middle = self.lines[start[0]][: start[1]] + text + self.lines[end[0]][end[1] :]
        if first and middle.startswith("\n") and self.lines[first - 1].endswith("\r"):
            first -= 1  # the edit has made \r\n of two endings
            middle = self.lines[first] + middle
        chunks = split_lines(_paired(middle))
        if last < len(self.lines) and not chunks[-1]:
            chunks.pop()  # the line's own ending was kept, so the lines below follow
        self.lines[first:last] = chunks


class Documents:
    """All open documents by URI. A change of a document that is not open is dropped and reported by False."""

    def __init__(self) -> None:
        self.encoding = "utf-16"
        self._open: dict[str, Document] = {}

    def open(self, uri: str, language: str, version: int, text: str) -> Document:
        """A document was opened (or opened again)."""
        document = self._open[uri] = Document.of(uri, language, version, text, self.encoding)
        return document

    def change(self, uri: str, version: int, edits: Sequence[Edit]) -> Document | None:
        """A document was edited; None if it is not open."""
        document = self._open.get(uri)
        if document is not None:
            document.apply(edits, version)
        return document

    def close(self, uri: str) -> Document | None:
        """A document was closed; None if it was not open."""
        return self._open.pop(uri, None)

    def get(self, uri: str) -> Document | None:
        """The open document of a URI."""
        return self._open.get(uri)

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))


def split_lines(text: str) -> list[str]:
    """Lines with their endings; the last has none. "" is one empty line."""
    if "\r" not in text:
        chunks = text.split("\n")
        return [chunk + "\n" for chunk in chunks[:-1]] + chunks[-1:]
    lines, at = [], 0
    for match in _EOL.finditer(text):
        lines.append(text[at : match.end()])
        at = match.end()
    lines.append(text[at:])
    return lines


def sendable(text: str) -> str:
    """Text for the engine: \\n endings, and lone surrogates (which no UTF-8 can hold) replaced."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _content(line: str) -> str:
    return line.rstrip("\r\n") if line.endswith(("\n", "\r")) else line


def _column(content: str, units: int, encoding: str) -> int:
    if content.isascii() or encoding == "utf-32":
        return max(0, min(units, len(content)))
    width, total = _WIDTH[encoding], 0
    for index, char in enumerate(content):
        total += width(char)
        if total > units:  # past the place, or inside this character: its start
            return index
    return len(content)


def _paired(text: str) -> str:
    """JSON may carry the halves of one character in two edits; a half that meets its other half becomes one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text
