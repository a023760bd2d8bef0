"""Checks of follow-up edits in VS Code: on the line, as ghost text, and everywhere with the preview."""

from __future__ import annotations

import time

from tests.editors.vscode.steps import discard, wait_for_ghost
from tests.editors.vscode.workbench import Workbench

SHOP = "def area(width, height):\n    return width * height\n\n\nbox = area(2, 3)\nbag = area(4, 5)\n"
USER = "import {0}\n\nprint({0}.area(6, 7))\n"
MARK = ".monaco-editor .view-lines span[class*='ced-']"
ACTION = '.action-widget .monaco-list-row[aria-label*="Apply the same edit here"]'
PREVIEW = ".bulk-edit-panel"


def renamed(vscode: Workbench, name: str, new: str) -> None:
    """Rename the function of a module with this name, in the editor; a second file uses it."""
    (vscode.folder / f"{name}.py").write_text(SHOP)
    (vscode.folder / f"{name}_user.py").write_text(USER.format(name))
    vscode.open_tab(f"{name}.py")
    # A tab that is open already shows the new text a moment after it was written.
    lines = ".editor-group-container.active .view-lines"

    def reloaded() -> bool:
        text = "".join(vscode.do("texts", selector=lines)).replace("\xa0", " ")
        return all(part in text for part in ("def area(", "box = area(", "bag = area("))

    vscode.until("the text", reloaded, 20, hurry=False)
    vscode.to_end()
    vscode.press("Control+Home")
    for _ in range(4):
        vscode.press("ArrowRight")
    vscode.press("Control+Shift+ArrowRight")
    vscode.type(new)
    for _ in range(2):  # a list of words and ghost text
        vscode.press("Escape")


def shown(vscode: Workbench) -> str:
    """The text that is drawn behind a place."""
    return "".join(vscode.do("added", selector=MARK)).replace("\xa0", " ")


def on_line(vscode: Workbench, steps: int, wanted: str, *, hurry: bool = True) -> None:
    """Move the cursor from the end of the file up to a place, until its new text is shown there."""

    def seen() -> bool:
        vscode.press("Control+End")
        for _ in range(steps):
            vscode.press("ArrowUp")
        time.sleep(1)
        return wanted in shown(vscode)

    vscode.until("the new name on the line", seen, 30, hurry=hurry)


def saved_as(vscode: Workbench, name: str, wanted: str) -> None:
    """Save the active file until it has this text: an accepted edit arrives a moment after the key."""

    def same() -> bool:
        vscode.press("Control+s")
        return (vscode.folder / name).read_text() == wanted

    vscode.until(f"the edited {name}", same, 20)


def a_follow_up_edit_is_shown_on_its_line(vscode: Workbench) -> None:
    """The new name is shown behind the old one when the cursor comes to the line; Tab applies it, Escape hides it."""
    renamed(vscode, "follow_line", "surface")
    try:
        on_line(vscode, 2, "→ surface")
        vscode.screenshot("follow-up")
        vscode.press("Tab")
        wanted = SHOP.replace("def area", "def surface").replace("box = area", "box = surface")
        saved_as(vscode, "follow_line.py", wanted)
        on_line(vscode, 1, "→ surface")
        vscode.press("Escape")
        vscode.until("the new name to be hidden", lambda: shown(vscode) == "", 20)
        saved_as(vscode, "follow_line.py", wanted)
    finally:
        discard(vscode)


def a_longer_name_is_shown_as_ghost_text(vscode: Workbench) -> None:
    """What the new name adds to the old one is an inline completion, without the model."""
    renamed(vscode, "follow_ghost", "areas")
    try:
        on_line(vscode, 2, "→ areas", hurry=False)
        vscode.press("Escape")
        for _ in range(10):
            vscode.press("ArrowRight")
        vscode.press("Escape")
        vscode.press("Alt+Backslash")
        ghost = wait_for_ghost(vscode)
        assert ghost == "s", f"the editor showed {ghost!r}"
        vscode.press("Tab")
        saved_as(vscode, "follow_ghost.py", SHOP.replace("def area", "def areas").replace("box = area", "box = areas"))
    finally:
        discard(vscode)


def a_follow_up_edit_is_applied_everywhere_after_its_preview(vscode: Workbench) -> None:
    """The code action shows all places in the preview, and changes both files when it is confirmed."""
    renamed(vscode, "follow_all", "surface")
    try:
        on_line(vscode, 2, "→ surface", hurry=False)
        vscode.press("Control+.")
        vscode.wait(ACTION, 20)
        vscode.screenshot("follow-up-action")
        vscode.do("click", selector=ACTION)
        vscode.wait(PREVIEW, 20)
        vscode.screenshot("follow-up-preview")
        for name in ("follow_all.py", "follow_all_user.py"):
            vscode.do("click", selector=f'{PREVIEW} .monaco-list-row:has-text("{name}") .edit-checkbox')
        vscode.do("click", selector='.pane-body .monaco-button:has-text("Apply")')
        vscode.command("File: Save All Files")
        texts = {
            "follow_all.py": SHOP.replace("area", "surface"),
            "follow_all_user.py": USER.format("follow_all").replace("area", "surface"),
        }
        for name, text in texts.items():
            path = vscode.folder / name
            vscode.until(f"the places in {name}", lambda path=path, text=text: path.read_text() == text, 20)
    finally:
        discard(vscode)
