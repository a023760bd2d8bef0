"""Steps of a VS Code user that several checks share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.editors.vscode.workbench import Workbench

LINE = "box = vol"
COMPLETE, EXECUTE = "textDocument/inlineCompletion", "workspace/executeCommand"


def begin(vscode: Workbench, name: str) -> str:
    """Open a file, go to a new line at its end, and return its text up to the cursor."""
    vscode.file(name)
    text = (vscode.folder / name).read_text()
    if text.endswith("\n"):
        return text
    vscode.press("Enter")
    return text + "\n"


def discard(vscode: Workbench) -> None:
    """Discard unsaved changes of the active file."""
    vscode.command("File: Revert File")
    time.sleep(0.5)


def wait_for_ghost(vscode: Workbench) -> str:
    return vscode.until("ghost text", vscode.ghost, 60)


def answered(vscode: Workbench) -> dict[str, Any]:
    """Return the first item of the last non-empty result, as the server sent it."""
    with_items = [
        one["result"]["items"] for one in vscode.messages(answer=COMPLETE) if (one["result"] or {}).get("items")
    ]
    return with_items[-1][0]


def accepted(vscode: Workbench) -> dict[str, Any]:
    """Return the item that VS Code last reported as accepted, as the server sent it."""

    def reported() -> str | None:
        calls = [one["params"] for one in vscode.messages(method=EXECUTE)]
        ids = [call["arguments"][0] for call in calls if call["command"] == "c2l.didAcceptCompletion"]
        return ids[-1] if ids else None

    wanted = vscode.until("the report of the acceptance", reported, 20)
    answers = [item for one in vscode.messages(answer=COMPLETE) for item in (one["result"] or {}).get("items", [])]
    return [item for item in answers if item["command"]["arguments"] == [wanted]][-1]


def first_line(item: dict[str, Any]) -> str:
    return item["insertText"].strip().splitlines()[0]


def applied(text: str, item: dict[str, Any]) -> str:
    """Return ASCII `text`, whose end is the cursor, with an item applied."""
    line, start = item["range"]["start"]["line"], item["range"]["start"]["character"]
    lines = text.split("\n")[: line + 1]
    lines[line] = lines[line][:start] + item["insertText"]
    return "\n".join(lines)


def saved(vscode: Workbench, name: str, wanted: str | None) -> str:
    """Save the file and return its text, which must equal `wanted` unless that is None."""
    path = vscode.folder / name
    before = path.read_text()
    vscode.press("Control+s")
    vscode.until("the saved file", lambda: path.read_text() not in ("", before), 20)
    text = path.read_text()
    assert wanted is None or text == wanted, f"the file ends with {text[-80:]!r}, not {wanted[-80:]!r}"
    return text


def generations(vscode: Workbench, folder: Path) -> list[int]:
    """Return the generations of a folder's adapter that were sent to VS Code."""
    changes = [one["params"] for one in vscode.messages(method="c2l/adapter/didChange")]
    return [one["generation"] for one in changes if Path(one["folder"]) == folder]
