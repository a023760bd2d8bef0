"""Checks of notebooks in VS Code, with its own Jupyter notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.editors.vscode.steps import wait_for_ghost
from tests.editors.vscode.workbench import Workbench

NAMES = ("shelves.ipynb", "shelves_again.ipynb")
"""One for each run of the check: VS Code keeps a closed notebook open in the server."""
CELLS = ("import warehouse\n", "", "print(warehouse)\n")
SECOND = ":nth-match(.notebook-editor .cell-editor-container .monaco-editor .view-lines, 2)"


def a_notebook_cell_sees_the_other_cells(vscode: Workbench) -> None:
    """A completion in an empty cell continues the cell before it, by the adapter of the notebook's folder."""
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    notebook = {
        "cells": [{**cell, "source": [text] if text else []} for text in CELLS],
        "metadata": {"language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 2,
    }
    path = next(path for path in map(vscode.folder.joinpath, NAMES) if not path.read_text().startswith("{"))
    path.write_text(json.dumps(notebook))
    vscode.open_tab(path.name)
    try:
        vscode.wait(SECOND, 60)
        vscode.do("click", selector=SECOND)
        vscode.press("Alt+Backslash")
        ghost = wait_for_ghost(vscode)
        vscode.screenshot("notebook")
        assert re.match(r"_warehouse_g\d+_0\(\)", ghost), f"the editor showed {ghost!r}"
        vscode.generation(0)
        vscode.press("Tab")
        vscode.press("Control+s")
        vscode.until("the saved cell", lambda: second_cell(path) == ghost, 30)
    finally:
        vscode.command("View: Revert and Close Editor")


def second_cell(path: Path) -> str:
    """The text of a saved notebook's second cell; "" while it is being written."""
    try:
        return "".join(json.loads(path.read_text())["cells"][1]["source"])
    except ValueError:
        return ""
