"""Random edits of random documents, compared with a simple reference model that shares no code with the server."""

from __future__ import annotations

import random

from c2l_lsp.server.workspace import documents
from c2l_lsp.server.workspace.documents import Document, Edit, split_lines
from tests.soak.harness.bar import Finding, Task

EDITS = 50
CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
ALPHABET = (
    "a", "b", "(", " ", "\t", "\n", "\n", "\r\n", "\r", "é", "漢", "𝄞", "👩‍🚀", "e\u0301", "\u0bcd", "\u202e", "\ufeff",
    "\x00", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\u2028", "\u2029", "\ud7ff", "\ue000", "\uffff",
    "\U00010000", "\U0010ffff", "\ud800", "\udbff", "\udc00", "\udfff",
)  # fmt: skip
"""Line endings of the protocol, characters that other rules treat as line endings, astral, combining, control and
boundary characters, and lone surrogates, which some editors send."""


class Model:
    """The reference model: the whole text, with positions counted in units of the encoding."""

    def __init__(self, text: str, encoding: str) -> None:
        self.text = _joined(text)
        self._codec, self._unit = CODECS[encoding]

    def _offset(self, line: int, units: int) -> int:
        at = 0
        while line > 0 and at < len(self.text):
            ends = self.text[at] == "\n" or (self.text[at] == "\r" and self.text[at : at + 2] != "\r\n")
            line, at = line - ends, at + 1
        if line > 0:
            return len(self.text)
        while at < len(self.text) and self.text[at] not in "\r\n":
            size = len(self.text[at].encode(self._codec, "surrogatepass")) // self._unit
            if size > units:
                break
            units, at = units - size, at + 1
        return at

    def apply(self, edit: Edit) -> None:
        """Apply one change as an editor does."""
        if edit.start is None:
            self.text = _joined(edit.text)
            return
        start, end = sorted((self._offset(*edit.start), self._offset(*edit.end)))
        self.text = _joined(self.text[:start] + edit.text + self.text[end:])


def _joined(text: str) -> str:
    """The text as in an editor with UTF-16 strings, where two adjacent surrogates become one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def words(rng: random.Random, most: int) -> str:
    """A random text."""
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(most)))


def edit(rng: random.Random) -> Edit:
    """A random change, perhaps past the end, within a character, with reversed range, or of the whole text."""
    if rng.random() < 0.03:
        return Edit(words(rng, 40))
    line, units = rng.randrange(8), rng.randrange(14)
    down, right = rng.choice(((0, rng.randrange(4)), (rng.randrange(3), rng.randrange(14) - units)))
    return Edit(words(rng, 12), (line, units), (line + down, max(0, units + right)))


def run(task: Task) -> Finding:
    """50 edits of each document in each encoding, up to the first difference."""
    finding = Finding()
    real = documents.split_lines, documents._WIDTH, documents._join_surrogates
    try:
        if task.planted("splitlines"):
            documents.split_lines = lambda text: text.splitlines(keepends=True) or [""]
        if task.planted("codepoints"):
            documents._WIDTH = dict.fromkeys(CODECS, lambda _: 1)
        if task.planted("unpaired"):
            documents._join_surrogates = lambda text: text
        for number in range(task.count):
            finding.tried += 1
            for encoding in sorted(CODECS):
                _follow(finding, encoding, random.Random(number))
            if number % 1000 == 999:
                task.say(f"  {number + 1} documents")
    finally:
        documents.split_lines, documents._WIDTH, documents._join_surrogates = real
    finding.figures["edits"] = (float(finding.tried * EDITS * len(CODECS)), "edits")
    return finding


def _follow(finding: Finding, encoding: str, rng: random.Random) -> None:
    text = words(rng, 60)
    document, model = Document.from_text("file:///x", "python", 0, text, encoding), Model(text, encoding)
    for number in range(1, EDITS + 1):
        change = edit(rng)
        document.apply([change], number)
        model.apply(change)
        if document.text != model.text or document.lines != split_lines(model.text):
            finding.fail(f"{encoding}, edit {number}: {change!r}")
            return
