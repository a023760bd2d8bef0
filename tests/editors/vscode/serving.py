"""Checks of the server's process in VS Code: it dies, is missing, is started anew where a setting needs it."""

from __future__ import annotations

import shutil
import time

from tests.editors.vscode.steps import LINE, begin, discard, saved, see_ghost
from tests.editors.vscode.workbench import Workbench


def a_switch_outlives_server_and_window(shown: Workbench) -> None:
    """What is turned off stays off when the server dies, and when the window is loaded anew."""
    shown.choose("Turn completions off")
    try:
        shown.until("the status to say off", lambda: "off" in shown.status(), 20)
        for again in (shown.kill_server, lambda: shown.begin("other.py")):
            starts = len(shown.passed(method="initialize"))
            again()
            shown.until("a new server", lambda starts=starts: len(shown.passed(method="initialize")) > starts, 120)
            shown.until("the status to say off still", lambda: shown.status().endswith("off"), 60)
    finally:
        if "off" not in shown.status():  # a faulty server forgot it, the extension did not: it is told to both
            shown.choose("Turn completions off")
            shown.until("the status to say off again", lambda: "off" in shown.status(), 20)
        shown.choose("Turn completions on")
    shown.generation(0)


def a_killed_server_comes_back(shown: Workbench) -> None:
    """The server dies: the status says so, it is started again, and completions work again."""
    begin(shown, "killed.py")
    starts = len(shown.passed(method="initialize"))
    shown.kill_server()
    shown.until("the status to say restarting", lambda: "restarting" in shown.status(), 20)
    shown.until("the server", lambda: len(shown.passed(method="initialize")) > starts, 120)
    shown.generation(0)
    shown.to_end()
    shown.type(LINE)
    see_ghost(shown)
    discard(shown)


def a_setting_applies_without_a_restart(shown: Workbench) -> None:
    """What the server can take in while it runs needs no new one."""
    starts = len(shown.passed(method="initialize"))
    shown.tab("other.py")
    shown.set(**{"c2l.completion.trigger": "manual"})
    try:
        shown.until("the status to say manual", lambda: shown.status().endswith("manual"), 60, hurry=False)
    finally:
        shown.set()
        shown.generation(0)
    assert len(shown.passed(method="initialize")) == starts, "the server was started anew"


def a_setting_of_the_model_restarts_the_server(shown: Workbench) -> None:
    """What is read once, at the start, needs a new server: one, which works with the new value."""
    starts = len(shown.passed(method="initialize"))

    def model() -> str:
        return (shown.passed(method="c2l/didChangeStatus")[-1]["params"].get("model")) or ""

    before = model()
    try:
        shown.set(**{"c2l.model.id": "c2l-small"})
        shown.until("a new server", lambda: len(shown.passed(method="initialize")) > starts, 60)
        shown.until("the other model", lambda: model() == "c2l-small", 120)
        shown.generation(0)
        assert len(shown.passed(method="initialize")) == starts + 1, "one change, one start"
    finally:
        shown.set()
        shown.until("the model of before", lambda: model() == before, 120)
    shown.generation(0)


def a_missing_server_is_set_up(shown: Workbench) -> None:
    """No server, and no Python either: said once, with the button that mends it; the editor works meanwhile."""
    shown.clear_notifications()
    before = begin(shown, "missing.py")
    (shown.control / "no-python").touch()
    shown.set(**{"c2l.server.path": ""})
    try:
        shown.until("the status to say so", lambda: shown.status().endswith("set up"), 60)
        assert "No Python environment with the c2l-lsp package" in shown.status_spoken()
        shown.until("a notification", shown.notifications, 20)
        only_one(shown)
        assert shown.buttons() == ["Set Up…", "Choose Python…", "Don't Ask Again"]
        shown.command("Restart the Server")
        time.sleep(2)
        shown.until("the status to say so again", lambda: shown.status().endswith("set up"), 60)
        only_one(shown)
        shown.press("Escape")
        shown.to_end()
        shown.type("size = 1")
        saved(shown, "missing.py", before + "size = 1")
        shown.notifications()
        shown.answer("Set Up…")
        shown.confirm("Set Up")

        def is_told() -> bool:
            """A word on Python and nothing else, once the progress is gone."""
            return ["No Python 3.10 or newer" in one for one in shown.notifications()] == [True]

        shown.until("a word on Python", is_told, 60, hurry=False)
        (shown.control / "no-python").unlink()
        shown.answer("Try Again")
        shown.confirm("Set Up")

        def is_set_up() -> bool:
            told = shown.notifications()
            assert not any("could not be set up" in one for one in told), told
            return not shown.status().endswith("set up")

        shown.until("the end of the set-up", is_set_up, 180, hurry=False)
        shown.generation(0)
        assert (told := shown.notifications()) == [], f"what was said is over, and yet: {told}"
        shown.press("Escape")
        shown.to_end()
        shown.press("Enter")
        shown.type(LINE)
        see_ghost(shown)
    finally:
        (shown.control / "no-python").unlink(missing_ok=True)
        shown.press("Escape")
        restored(shown)
        shutil.rmtree(shown.work / "data" / "User" / "globalStorage" / "c2l.c2l-lsp" / "python", ignore_errors=True)
    discard(shown)


def a_named_server_that_is_not_there_is_told(shown: Workbench) -> None:
    """A path in the settings that leads nowhere: said once, with the way to that setting; mended there, it works."""
    shown.clear_notifications()
    shown.set(**{"c2l.server.path": "/nowhere/c2l-lsp"})
    try:
        shown.until("the status to say so", lambda: shown.status().endswith("settings"), 60)
        assert "c2l.server.path names /nowhere/c2l-lsp, which does not exist." in shown.status_spoken()
        shown.until("a notification", shown.notifications, 20)
        time.sleep(3)  # as long as it would take to start it again
        only_one(shown)
        assert shown.buttons() == ["Open Settings", "Show Log"]
        shown.answer("Open Settings")
        shown.wait('.settings-editor .setting-item-contents[data-key="c2l.server.path"]', 30)
    finally:
        shown.press("Escape")
        restored(shown)


def only_one(shown: Workbench) -> None:
    told = shown.notifications()
    assert len(told) == 1, f"not one notification: {told}"


def restored(shown: Workbench) -> None:
    """The server that the tests name, running."""
    starts = len(shown.passed(method="initialize"))
    shown.set()
    shown.until("the server", lambda: len(shown.passed(method="initialize")) > starts, 120)
    shown.generation(0)
