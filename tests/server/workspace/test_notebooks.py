"""The order of a notebook's cells, and the text around a cell."""

from __future__ import annotations

import pytest

from c2l_lsp.server.workspace.documents import Document, Documents, Edit
from c2l_lsp.server.workspace.notebooks import Cell, Notebooks, Splice, notebook_uri

URI = "file:///w/nb.ipynb"


def opened(*texts: str | tuple[str, str]) -> tuple[Notebooks, Documents]:
    """A notebook with cells "0", "1", …, each a text or a language with a text. Markdown cells hold no code."""
    documents = Documents()
    notebooks = Notebooks(documents)
    cells = []
    for number, text in enumerate(texts):
        language, text = text if isinstance(text, tuple) else ("python", text)
        add(documents, str(number), text, language)
        cells.append(Cell(str(number), language != "markdown"))
    notebooks.open(URI, cells)
    return notebooks, documents


def add(documents: Documents, uri: str, text: str, language: str = "python") -> Document:
    document = documents.open(uri, language, 1, text)
    document.notebook = URI
    return document


def around(notebooks: Notebooks, documents: Documents, uri: str) -> tuple[str, str]:
    document = documents.get(uri)
    assert document is not None
    return notebooks.around(document)


def test_text_around_a_cell_is_that_of_the_other_cells_in_order() -> None:
    both = opened("a = 1\n", "b = 2", "\n\nc = 3\n\n", "d = 4")
    assert around(*both, "0") == ("", "\n\nb = 2\n\nc = 3\n\nd = 4")
    assert around(*both, "2") == ("a = 1\n\nb = 2\n\n", "\n\nd = 4")
    assert around(*both, "3") == ("a = 1\n\nb = 2\n\nc = 3\n\n", "")


def test_typing_in_a_cell_leaves_the_text_before_it_as_it_is() -> None:
    notebooks, documents = opened("a = 1", "b", "c")
    before = around(notebooks, documents, "1")
    documents.change("1", 2, [Edit("b = 2")])
    assert around(notebooks, documents, "1") == before
    assert around(notebooks, documents, "2")[0].startswith(before[0])


@pytest.mark.parametrize(
    "other",
    [
        ("markdown", "# Title"),
        ("sql", "select 1"),
        "  \n",
        "%%bash\nls",
        "\n%%html\n<p>it's",
    ],
)
def test_cells_that_are_no_code_of_the_same_language_are_left_out(other: str | tuple[str, str]) -> None:
    both = opened("a = 1", other, "b = 2")
    assert around(*both, "2") == ("a = 1\n\n", "")
    assert around(*both, "0") == ("", "\n\nb = 2")


@pytest.mark.parametrize("magic", ["%%time\nx = 1", "%%capture out\nx = 1", "%matplotlib inline"])
def test_cells_with_a_magic_around_their_own_language_count(magic: str) -> None:
    assert around(*opened(magic, "b = 2"), "1") == (f"{magic}\n\n", "")


def test_cells_are_added_removed_and_moved() -> None:
    notebooks, documents = opened("a", "b", "c")
    add(documents, "new", "n")
    assert notebooks.splice(URI, Splice(1, 0, [Cell("new", code=True)]))
    assert around(notebooks, documents, "2") == ("a\n\nn\n\nb\n\n", "")
    assert notebooks.splice(URI, Splice(0, 1, []))
    assert around(notebooks, documents, "2") == ("n\n\nb\n\n", "")
    order = [Cell(uri, code=True) for uri in ("2", "new", "1")]
    assert notebooks.splice(URI, Splice(0, 3, order)), "the last cell moves to the front"
    assert around(notebooks, documents, "2") == ("", "\n\nn\n\nb")
    assert around(notebooks, documents, "1") == ("c\n\nn\n\n", "")
    assert around(notebooks, documents, "0") == ("", ""), "a removed cell stands alone"


@pytest.mark.parametrize("splice", [Splice(4, 0, []), Splice(0, 4, []), Splice(2, 2, []), Splice(-1, 1, [])])
def test_impossible_splice_changes_nothing(splice: Splice) -> None:
    notebooks, _ = opened("a", "b", "c")
    assert not notebooks.splice(URI, splice)
    assert notebooks.cells(URI) == ["0", "1", "2"]
    assert not notebooks.splice("file:///other.ipynb", Splice(0, 0, []))


def test_cell_that_becomes_markdown_is_left_out() -> None:
    notebooks, documents = opened("a", "b")
    notebooks.update(URI, [Cell("0", code=False), Cell("unknown", code=True)])
    assert (around(notebooks, documents, "1"), notebooks.cells(URI)) == (("", ""), ["0", "1"])


def test_cell_whose_text_is_unknown_is_left_out() -> None:
    notebooks, documents = opened("a", "b", "c")
    documents.lose("0")
    documents.close("1")
    assert around(notebooks, documents, "2") == ("", "")


def test_cells_stand_alone_after_their_order_is_lost_until_the_notebook_is_opened_again() -> None:
    notebooks, documents = opened("a", "b")
    assert notebooks.lose("file:///other.ipynb") == []
    assert around(notebooks, documents, "1") == ("a\n\n", "")
    assert notebooks.lose(None) == ["0", "1"]
    assert around(notebooks, documents, "1") == ("", "")
    notebooks.open(URI, [Cell("0", code=True), Cell("1", code=True)])
    assert around(notebooks, documents, "1") == ("a\n\n", "")


def test_documents_that_are_no_cells_stand_alone() -> None:
    notebooks, documents = opened("a", "b")
    assert notebooks.around(documents.open("file:///w/a.py", "python", 1, "x")) == ("", "")
    notebooks.close(URI)
    assert around(notebooks, documents, "1") == ("", "")


@pytest.mark.parametrize(
    ("cell", "notebook"),
    [
        ("vscode-notebook-cell:/w/a%20b.ipynb#W0sZmlsZQ%3D%3D", "file:///w/a%20b.ipynb"),
        ("vscode-notebook-cell://host/w/nb.ipynb#W1", "file://host/w/nb.ipynb"),
        ("file:///w/nb.ipynb", ""),
        ("untitled:Untitled-1", ""),
        ("vscode-notebook-cell://[", ""),
    ],
)
def test_cell_uri_of_vs_code_names_its_notebook(cell: str, notebook: str) -> None:
    assert notebook_uri(cell) == notebook
