"""What an editor sends about notebooks is read exactly or reported as unreadable."""

from __future__ import annotations

from typing import Any

import pytest

from c2l_lsp.server.workspace.document_messages import Changed, Opened
from c2l_lsp.server.workspace.documents import Edit
from c2l_lsp.server.workspace.notebook_messages import (
    ChangedNotebook,
    OpenedNotebook,
    Unreadable,
    read_changed_notebook,
    read_closed_notebook,
    read_opened_notebook,
)
from c2l_lsp.server.workspace.notebooks import Cell, Splice

URI = "file:///nb.ipynb"
CODE = {"kind": 2, "document": "c1"}
ITEM = {"uri": "c1", "languageId": "python", "version": 1, "text": "x"}


def opened(notebook: Any, documents: Any) -> object:
    return read_opened_notebook({"notebookDocument": notebook, "cellTextDocuments": documents})


def changed(change: Any, uri: Any = URI) -> object:
    return read_changed_notebook({"notebookDocument": {"uri": uri, "version": 2}, "change": change})


def test_opened_notebook_is_read() -> None:
    cells = [{"kind": 1, "document": "m"}, {**CODE, "executionSummary": {"executionOrder": 1}}, {"document": "d"}]
    found = opened({"uri": URI, "cells": cells, "metadata": {"x": 1}}, [ITEM, {"uri": "m", "text": None}])
    expected = [Cell("m", code=False), Cell("c1", code=True), Cell("d", code=False)]
    assert found == OpenedNotebook(URI, expected, [Opened("c1", "python", 1, "x"), Opened("m", "", None, None)])


def test_change_is_read() -> None:
    structure = {
        "array": {"start": 1.0, "deleteCount": 2, "cells": [CODE]},
        "didOpen": [ITEM],
        "didClose": [{"uri": "o"}],
    }
    text = {"document": {"uri": "c1", "version": 3}, "changes": [{"range": None, "text": "new"}]}
    found = changed({"metadata": {}, "cells": {"structure": structure, "data": [CODE], "textContent": [text]}})
    cell = Cell("c1", code=True)
    assert found == ChangedNotebook(
        URI, Splice(1, 2, [cell]), ["o"], [Opened("c1", "python", 1, "x")], [cell], [Changed("c1", 3, [Edit("new")])]
    )
    assert changed({"metadata": {"x": 1}}) == ChangedNotebook(URI, None, [], [], [], [])
    assert changed({"cells": None}) == ChangedNotebook(URI, None, [], [], [], [])


def test_unreadable_text_of_a_cell_concerns_that_cell_alone() -> None:
    found = changed({"cells": {"textContent": [{"document": {"uri": "c1"}, "changes": [{"text": 1}]}]}})
    assert found == ChangedNotebook(URI, None, [], [], [], [Changed("c1", None, None)])


@pytest.mark.parametrize(
    "change",
    [
        None,
        [],
        {"cells": [1]},
        {"cells": {"structure": {}}},
        {"cells": {"structure": {"array": {"start": 0.5, "deleteCount": 0}}}},
        {"cells": {"structure": {"array": {"start": 0, "deleteCount": -1}}}},
        {"cells": {"structure": {"array": {"start": 0, "deleteCount": 0, "cells": [{"kind": 2}]}}}},
        {"cells": {"structure": {"array": {"start": 0, "deleteCount": 0, "cells": {}}}}},
        {"cells": {"structure": {"array": {"start": 0, "deleteCount": 0}, "didOpen": [{"text": "x"}]}}},
        {"cells": {"structure": {"array": {"start": 0, "deleteCount": 0}, "didClose": ["c1"]}}},
        {"cells": {"data": [1]}},
        {"cells": {"textContent": [{"changes": []}]}},
        {"cells": {"textContent": {}}},
    ],
)
def test_unreadable_change_names_its_notebook(change: Any) -> None:
    assert changed(change) == Unreadable(URI)


def test_unreadable_opening_names_its_notebook() -> None:
    assert opened({"uri": URI, "cells": [{"kind": 2}]}, []) == Unreadable(URI)
    assert opened({"uri": URI, "cells": [CODE]}, [{"text": "x"}]) == Unreadable(URI)


def test_notification_without_a_notebook() -> None:
    assert opened({}, []) == Unreadable(None)
    assert (changed({}, uri=3), read_changed_notebook(None)) == (Unreadable(None), Unreadable(None))


def test_closed_notebook_is_read() -> None:
    params = {"notebookDocument": {"uri": URI}, "cellTextDocuments": [{"uri": "c1"}]}
    assert read_closed_notebook(params) == (URI, ["c1"])
    assert read_closed_notebook({"notebookDocument": {"uri": URI}}) == (URI, [])
    assert read_closed_notebook(None) == (None, [])
