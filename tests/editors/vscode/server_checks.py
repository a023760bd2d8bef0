"""Checks of the server process in VS Code: crashes, a missing server, restarts after changed settings."""

from __future__ import annotations

import shutil
import time

from tests.editors.vscode.steps import LINE, begin, discard, saved, wait_for_ghost
from tests.editors.vscode.workbench import Workbench


def switches_persist_across_server_and_window(vscode: Workbench) -> None:
    """Completions stay off after the server was killed and after the window was reloaded."""
    vscode.choose("Turn completions off")
    try:
        vscode.until("the status to show off", lambda: "off" in vscode.status(), 20)
        for restart in (vscode.kill_server, lambda: vscode.begin("other.py")):
            starts = len(vscode.messages(method="initialize"))
            restart()
            vscode.until("a new server", lambda starts=starts: len(vscode.messages(method="initialize")) > starts, 120)
            vscode.until("the status to remain off", lambda: vscode.status().endswith("off"), 60)
    finally:
        if "off" not in vscode.status():  # a faulty server lost the switch, the extension did not: set it in both
            vscode.choose("Turn completions off")
            vscode.until("the status to show off again", lambda: "off" in vscode.status(), 20)
        vscode.choose("Turn completions on")
    vscode.generation(0)


def a_killed_server_is_restarted(vscode: Workbench) -> None:
    """After the server was killed, the status shows a restart and completions work again."""
    begin(vscode, "killed.py")
    starts = len(vscode.messages(method="initialize"))
    vscode.kill_server()
    vscode.until("the status to show restarting", lambda: "restarting" in vscode.status(), 20)
    vscode.until("the server", lambda: len(vscode.messages(method="initialize")) > starts, 120)
    vscode.generation(0)
    vscode.to_end()
    vscode.type(LINE)
    wait_for_ghost(vscode)
    discard(vscode)


def a_setting_applies_without_a_restart(vscode: Workbench) -> None:
    """A setting that the server can apply while running does not restart it."""
    starts = len(vscode.messages(method="initialize"))
    vscode.open_tab("other.py")
    vscode.set(**{"c2l.completion.trigger": "manual"})
    try:
        vscode.until("the status to show manual", lambda: vscode.status().endswith("manual"), 60, hurry=False)
    finally:
        vscode.set()
        vscode.generation(0)
    assert len(vscode.messages(method="initialize")) == starts, "the server was restarted"


def a_model_setting_restarts_the_server(vscode: Workbench) -> None:
    """A setting that is read at the start causes exactly one restart, with the new value."""
    starts = len(vscode.messages(method="initialize"))

    def model() -> str:
        return (vscode.messages(method="c2l/didChangeStatus")[-1]["params"].get("model")) or ""

    before = model()
    try:
        vscode.set(**{"c2l.model.id": "c2l-small"})
        vscode.until("a new server", lambda: len(vscode.messages(method="initialize")) > starts, 60)
        vscode.until("the other model", lambda: model() == "c2l-small", 120)
        vscode.generation(0)
        assert len(vscode.messages(method="initialize")) == starts + 1, "one change must cause one start"
    finally:
        vscode.set()
        vscode.until("the previous model", lambda: model() == before, 120)
    vscode.generation(0)


def a_missing_server_is_set_up(vscode: Workbench) -> None:
    """A missing server is reported once with a button that sets it up, and the editor stays usable."""
    vscode.clear_notifications()
    before = begin(vscode, "missing.py")
    (vscode.control / "no-python").touch()
    vscode.set(**{"c2l.server.path": ""})
    try:
        vscode.until("the status to show the problem", lambda: vscode.status().endswith("set up"), 60)
        assert "No Python environment with the c2l-lsp package" in vscode.status_label()
        vscode.until("a notification", vscode.notifications, 20)
        assert_one_notification(vscode)
        assert vscode.buttons() == ["Set Up…", "Choose Python…", "Don't Ask Again"]
        vscode.command("Restart the Server")
        time.sleep(2)
        vscode.until("the status to show the problem again", lambda: vscode.status().endswith("set up"), 60)
        assert_one_notification(vscode)
        vscode.press("Escape")
        vscode.to_end()
        vscode.type("size = 1")
        saved(vscode, "missing.py", before + "size = 1")
        vscode.notifications()
        vscode.answer("Set Up…")
        vscode.confirm("Set Up")

        def is_reported() -> bool:
            """Whether the missing Python is the only notification, which replaces the progress."""
            return ["No Python 3.10 or newer" in one for one in vscode.notifications()] == [True]

        vscode.until("a notification about Python", is_reported, 60, hurry=False)
        (vscode.control / "no-python").unlink()
        vscode.answer("Try Again")
        vscode.confirm("Set Up")

        def is_set_up() -> bool:
            listed = vscode.notifications()
            assert not any("could not be set up" in one for one in listed), listed
            return not vscode.status().endswith("set up")

        vscode.until("the end of the set-up", is_set_up, 180, hurry=False)
        vscode.generation(0)
        assert (listed := vscode.notifications()) == [], f"outdated notifications are still shown: {listed}"
        vscode.press("Escape")
        vscode.to_end()
        vscode.press("Enter")
        vscode.type(LINE)
        wait_for_ghost(vscode)
    finally:
        (vscode.control / "no-python").unlink(missing_ok=True)
        vscode.press("Escape")
        restore_server(vscode)
        shutil.rmtree(vscode.work / "data" / "User" / "globalStorage" / "c2l.c2l-lsp" / "python", ignore_errors=True)
    discard(vscode)


def an_invalid_server_path_is_reported(vscode: Workbench) -> None:
    """A server path that does not exist is reported once, with a button that opens the setting."""
    vscode.clear_notifications()
    vscode.set(**{"c2l.server.path": "/nowhere/c2l-lsp"})
    try:
        vscode.until("the status to show the problem", lambda: vscode.status().endswith("settings"), 60)
        assert "c2l.server.path names /nowhere/c2l-lsp, which does not exist." in vscode.status_label()
        vscode.until("a notification", vscode.notifications, 20)
        time.sleep(3)  # longer than the delay of an automatic restart
        assert_one_notification(vscode)
        assert vscode.buttons() == ["Open Settings", "Show Log"]
        vscode.answer("Open Settings")
        vscode.wait('.settings-editor .setting-item-contents[data-key="c2l.server.path"]', 30)
    finally:
        vscode.press("Escape")
        restore_server(vscode)


def assert_one_notification(vscode: Workbench) -> None:
    listed = vscode.notifications()
    assert len(listed) == 1, f"expected one notification: {listed}"


def restore_server(vscode: Workbench) -> None:
    """Reset the settings and wait for the tests' own server."""
    starts = len(vscode.messages(method="initialize"))
    vscode.set()
    vscode.until("the server", lambda: len(vscode.messages(method="initialize")) > starts, 120)
    vscode.generation(0)


def a_resting_cursor_is_reported(vscode: Workbench) -> None:
    """The server learns where the cursor rests, and reads the text there before the first key."""
    vscode.open_tab("other.py")
    vscode.to_end()
    for key, line in (("Control+Home", 0), ("ArrowDown", 1)):
        sent = len(vscode.messages(method="c2l/didMoveCursor"))
        vscode.press(key)
        vscode.until(
            "the cursor's place", lambda sent=sent: len(vscode.messages(method="c2l/didMoveCursor")) > sent, 20
        )
        last = vscode.messages(method="c2l/didMoveCursor")[-1]["params"]
        assert last["position"] == {"line": line, "character": 0}
        assert last["textDocument"]["uri"].endswith("/other.py")
