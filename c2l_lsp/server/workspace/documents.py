"""Open documents: text, incremental edits and positions. Independent of pygls and of the engine.

A line ends at \\n, \\r\\n or \\r only, as LSP specifies. `str.splitlines` is not used: it also splits at form feeds,
U+2028 and six other characters, after which incremental edits would be applied at wrong positions. Columns in the
server count code points; columns of the editor count utf-8, utf-16 or utf-32 code units.
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
    """One change of a document. `start` None replaces the whole text. Positions are the editor's (line, code units)."""

    text: str
    start: tuple[int, int] | None = None
    end: tuple[int, int] = (0, 0)


@dataclass
class Document:
    """An open document. `lines` include their line endings; the last line has none and may be empty.

    `version` grows with every change. `in_step` False: the editor sent a change that could not be read, so that its
    text may be another one. `notebook`: the URI of the notebook that it is a cell of; "" for every other document.
    """

    uri: str
    language: str
    version: int
    lines: list[str]
    encoding: str = "utf-16"
    in_step: bool = True
    notebook: str = ""
    _text: str | None = field(default=None, repr=False)

    @classmethod
    def from_text(cls, uri: str, language: str, version: int, text: str, encoding: str = "utf-16") -> Document:
        """A document with this text."""
        return cls(uri, language, version, split_lines(_join_surrogates(text)), encoding)

    @property
    def text(self) -> str:
        """The whole text."""
        if self._text is None:
            self._text = "".join(self.lines)
        return self._text

    @property
    def eol(self) -> str:
        """The line ending of the first line, used for new lines."""
        first = self.lines[0]
        return first[len(_without_ending(first)) :] or "\n"

    def apply(self, edits: Sequence[Edit], version: int | None = None) -> None:
        """Apply edits in order, each to the result of the previous one. A new whole text brings the document in step.

        `version` None, or one that does not grow, counts as the next one.
        """
        for edit in edits:
            if edit.start is None:
                self.lines = split_lines(_join_surrogates(edit.text))
                self.in_step = True
            else:
                start, end = self.locate(*edit.start), self.locate(*edit.end)
                self._splice(min(start, end), max(start, end), edit.text)  # LSP's own libraries swap them as well
        self.version = self.version + 1 if version is None else max(version, self.version + 1)
        self._text = None

    def locate(self, line: int, units: int) -> tuple[int, int]:
        """Convert an editor's position to (line, column in code points), clamped to the line and to the text."""
        if line < 0:
            return 0, 0
        if line >= len(self.lines):
            return len(self.lines) - 1, len(self.lines[-1])
        return line, _column(_without_ending(self.lines[line]), units, self.encoding)

    def to_units(self, line: int, column: int) -> int:
        """Convert a column in code points to the editor's code units."""
        before = self.lines[line][:column]
        return len(before) if before.isascii() else sum(map(_WIDTH[self.encoding], before))

    def split_at(self, line: int, column: int) -> tuple[str, str]:
        """The document's text before and after a position."""
        here = self.lines[line]
        return "".join(self.lines[:line]) + here[:column], here[column:] + "".join(self.lines[line + 1 :])

    def split_line_at(self, line: int, column: int) -> tuple[str, str]:
        """One line before and after a column, without its line ending."""
        content = _without_ending(self.lines[line])
        return content[:column], content[column:]

    def _splice(self, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        first, last = start[0], end[0] + 1
        middle = self.lines[start[0]][: start[1]] + text + self.lines[end[0]][end[1] :]
        if first and middle.startswith("\n") and self.lines[first - 1].endswith("\r"):
            first -= 1  # the edit joins two endings to \r\n
            middle = self.lines[first] + middle
        new_lines = split_lines(_join_surrogates(middle))
        if last < len(self.lines) and not new_lines[-1]:
            new_lines.pop()  # the text ends with a line ending, so the next line follows
        self.lines[first:last] = new_lines


class Documents:
    """All open documents by URI."""

    def __init__(self) -> None:
        self.encoding = "utf-16"
        self._open: dict[str, Document] = {}

    def open(self, uri: str, language: str, version: int, text: str) -> Document:
        """Open a document, or replace it if it is open."""
        document = self._open[uri] = Document.from_text(uri, language, version, text, self.encoding)
        return document

    def change(self, uri: str, version: int | None, edits: Sequence[Edit]) -> Document | None:
        """Edit a document; returns None if it is not open."""
        document = self._open.get(uri)
        if document is not None:
            document.apply(edits, version)
        return document

    def lose(self, uri: str | None) -> list[Document]:
        """Mark a document (None: all of them) as out of step with the editor's; returns those that were marked."""
        lost = [document for document in self if uri in (None, document.uri)]
        for document in lost:
            document.in_step = False
            document.apply([])
        return lost

    def close(self, uri: str) -> Document | None:
        """Close a document; returns None if it was not open."""
        return self._open.pop(uri, None)

    def get(self, uri: str) -> Document | None:
        """The open document with this URI; None if there is none."""
        return self._open.get(uri)

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))


def split_lines(text: str) -> list[str]:
    """Split a text into lines with their endings; the last line has none. "" is one empty line."""
    if "\r" not in text:
        lines = text.split("\n")
        return [line + "\n" for line in lines[:-1]] + lines[-1:]
    lines, at = [], 0
    for match in _EOL.finditer(text):
        lines.append(text[at : match.end()])
        at = match.end()
    lines.append(text[at:])
    return lines


def to_engine_text(text: str) -> str:
    """Convert a text for the engine: \\n line endings, and lone surrogates replaced, which UTF-8 cannot encode."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _without_ending(line: str) -> str:
    return line.rstrip("\r\n") if line.endswith(("\n", "\r")) else line


def _column(content: str, units: int, encoding: str) -> int:
    if content.isascii() or encoding == "utf-32":
        return max(0, min(units, len(content)))
    width, total = _WIDTH[encoding], 0
    for index, char in enumerate(content):
        total += width(char)
        if total > units:  # a position inside a character is moved to its start
            return index
    return len(content)


def _join_surrogates(text: str) -> str:
    """Join surrogate pairs: JSON may carry the two halves of one character in separate edits."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text
