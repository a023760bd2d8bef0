"""Open notebooks: the order of their cells, and the text around a cell. The cells' texts are documents of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from c2l_lsp.server.workspace.documents import Document, Documents

_CELL_SCHEME = "vscode-notebook-cell"
_SAME_LANGUAGE_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun")


class Cell(NamedTuple):
    """A cell: the URI of its document, and whether it holds code."""

    uri: str
    code: bool


class Splice(NamedTuple):
    """Replaces `deleted` cells of a notebook from `start` on by `cells`."""

    start: int
    deleted: int
    cells: list[Cell]


@dataclass
class Notebook:
    """An open notebook. `in_step` False: a change of its cells could not be read, so that their order is unknown."""

    cells: list[Cell]
    in_step: bool = True


class Notebooks:
    """All open notebooks by URI."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._open: dict[str, Notebook] = {}

    def open(self, uri: str, cells: Sequence[Cell]) -> None:
        """Open a notebook, or replace it if it is open."""
        self._open[uri] = Notebook(list(cells))

    def close(self, uri: str) -> None:
        """Close a notebook, if it is open."""
        self._open.pop(uri, None)

    def cells(self, uri: str) -> list[str]:
        """The URIs of a notebook's cells in their order; none if it is not open."""
        notebook = self._open.get(uri)
        return [cell.uri for cell in notebook.cells] if notebook is not None else []

    def splice(self, uri: str, splice: Splice) -> bool:
        """Replace some cells; returns False if the notebook is not open or has no such cells."""
        notebook = self._open.get(uri)
        if notebook is None or not 0 <= splice.start <= splice.start + splice.deleted <= len(notebook.cells):
            return False
        notebook.cells[splice.start : splice.start + splice.deleted] = splice.cells
        return True

    def update(self, uri: str, cells: Sequence[Cell]) -> None:
        """Take what changed of cells beside their text."""
        changed = {cell.uri: cell for cell in cells}
        notebook = self._open.get(uri)
        if notebook is not None:
            notebook.cells = [changed.get(cell.uri, cell) for cell in notebook.cells]

    def lose(self, uri: str | None) -> list[str]:
        """Mark a notebook (None: all of them) as out of step with the editor's; returns the URIs of its cells."""
        lost = [one for one in self._open if uri in (None, one)]
        for one in lost:
            self._open[one].in_step = False
        return [cell for one in lost for cell in self.cells(one)]

    def around(self, document: Document) -> tuple[str, str]:
        """The text of the code cells before and after a cell, as one text with it; empty for every other document.

        Markdown cells are left out: the prompt is short, and prose would take the place of code. Cells in another
        language than this one, and cells whose text is not known exactly, are left out too.
        """
        notebook = self._open.get(document.notebook)
        uris = self.cells(document.notebook)
        if notebook is None or not notebook.in_step or document.uri not in uris:
            return "", ""
        place = uris.index(document.uri)
        before, after = (
            self._texts(notebook.cells[:place], document),
            self._texts(notebook.cells[place + 1 :], document),
        )
        return "".join(f"{text}\n\n" for text in before), "".join(f"\n\n{text}" for text in after)

    def _texts(self, cells: Sequence[Cell], near: Document) -> list[str]:
        found = [self._documents.get(cell.uri) for cell in cells if cell.code]
        return [
            one.text.rstrip().lstrip("\r\n")
            for one in found
            if one is not None and one.in_step and one.language == near.language and _is_code(one.text)
        ]


def notebook_uri(cell_uri: str) -> str:
    """The URI of the notebook file that a cell URI of VS Code names; "" for every other URI."""
    try:
        parts = urlsplit(cell_uri)
    except ValueError:
        return ""
    return f"file://{parts.netloc}{parts.path}" if parts.scheme == _CELL_SCHEME else ""


def _is_code(text: str) -> bool:
    """Whether a cell is neither blank nor, by a magic of IPython such as `%%bash`, in a language of its own."""
    words = text.split(None, 1)
    return bool(words) and (not words[0].startswith("%%") or words[0] in _SAME_LANGUAGE_MAGICS)
