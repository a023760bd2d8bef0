"""Steps of a user of VS Code that several checks take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.editors.vscode.workbench import Workbench

LINE = "box = vol"
COMPLETE, EXECUTE = "textDocument/inlineCompletion", "workspace/executeCommand"


def begin(shown: Workbench, name: str) -> str:
    """Open a file and go to a new line at its end; its text up to there."""
    shown.file(name)
    text = (shown.folder / name).read_text()
    if text.endswith("\n"):
        return text
    shown.press("Enter")
    return text + "\n"


def discard(shown: Workbench) -> None:
    """Undo what was typed and not saved."""
    shown.command("File: Revert File")
    time.sleep(0.5)


def see_ghost(shown: Workbench) -> str:
    return shown.until("grey text", shown.ghost, 60)


def answered(shown: Workbench) -> dict[str, Any]:
    """The first item of the server's last answer that had any, as it left the server."""
    with_items = [one["result"]["items"] for one in shown.passed(answer=COMPLETE) if (one["result"] or {}).get("items")]
    return with_items[-1][0]


def accepted(shown: Workbench) -> dict[str, Any]:
    """The item that VS Code reports as accepted, as it left the server."""

    def reported() -> str | None:
        calls = [one["params"] for one in shown.passed(method=EXECUTE)]
        ids = [call["arguments"][0] for call in calls if call["command"] == "c2l.didAcceptCompletion"]
        return ids[-1] if ids else None

    wanted = shown.until("the report of the acceptance", reported, 20)
    answers = [item for one in shown.passed(answer=COMPLETE) for item in (one["result"] or {}).get("items", [])]
    return [item for item in answers if item["command"]["arguments"] == [wanted]][-1]


def first_line(item: dict[str, Any]) -> str:
    return item["insertText"].strip().splitlines()[0]


def applied(text: str, item: dict[str, Any]) -> str:
    """A document, whose end is the cursor, with an item applied. The documents here are ASCII."""
    line, start = item["range"]["start"]["line"], item["range"]["start"]["character"]
    lines = text.split("\n")[: line + 1]
    lines[line] = lines[line][:start] + item["insertText"]
    return "\n".join(lines)


def saved(shown: Workbench, name: str, wanted: str | None) -> str:
    """Save the file, and its text then; it must become what is wanted."""
    path = shown.folder / name
    before = path.read_text()
    shown.press("Control+s")
    shown.until("the saved file", lambda: path.read_text() not in ("", before), 20)
    text = path.read_text()
    assert wanted is None or text == wanted, f"the file ends with {text[-80:]!r}, not {wanted[-80:]!r}"
    return text


def generations(shown: Workbench, folder: Path) -> list[int]:
    """Generations of a folder's adapter that VS Code was told of."""
    told = [one["params"] for one in shown.passed(method="c2l/adapter/didChange")]
    return [one["generation"] for one in told if Path(one["folder"]) == folder]
