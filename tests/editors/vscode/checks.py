"""What a user of VS Code does and sees: one function each, which holds or raises AssertionError. See CHECKS below."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench
from workbench import Workbench

LINE = "box = vol"
PROMPTS = ("import ", "from zebra import ", "def quokka_", "result = wombat_")
ZOO = """from zebra import {name}_{number}


def quokka_handler_{number}(wombat):
    result = wombat_service(wombat)
    return zebra.quokka_handler(result)


"""
INVOKED = 1
COMPLETE, EXECUTE = "textDocument/inlineCompletion", "workspace/executeCommand"


def ghost_text_is_accepted(shown: Workbench) -> None:
    """Type, see grey text, Tab, save: the file holds what the server said."""
    before = begin(shown, "accept.py")
    shown.type(LINE)
    ghost = see_ghost(shown)
    shown.picture("ghost")
    shown.press("Tab")
    item = accepted(shown)
    assert first_line(item) in ghost, f"the editor showed {ghost!r}, the server said {item['insertText']!r}"
    saved(shown, "accept.py", applied(before + LINE, item))


def candidates_cycle(shown: Workbench) -> None:
    """Asked explicitly there are several, and Alt+] goes on to the next."""
    begin(shown, "cycle.py")
    shown.type("x = ")
    shown.press("Escape")
    shown.press("Alt+Backslash")
    first = see_ghost(shown)
    shown.press("Alt+]")
    shown.until("the next candidate", lambda: shown.ghost() not in ("", first), 30)


def a_word_is_accepted(shown: Workbench) -> None:
    """Ctrl+Right takes part of the grey text; the server learns that from the edit alone."""
    before = begin(shown, "partial.py")
    shown.type(LINE)
    see_ghost(shown)
    item = answered(shown)
    shown.press("Control+ArrowRight")
    shown.press("Escape")
    text = saved(shown, "partial.py", None)
    whole, start = applied(before + LINE, item), before + LINE
    assert whole.startswith(text.rstrip("\n")) and len(text) > len(start), f"{text!r} is no part of {whole!r}"


def typing_along_keeps_it(shown: Workbench) -> None:
    """Typing what is shown keeps the rest, and accepting then writes nothing twice."""
    before = begin(shown, "through.py")
    shown.type(LINE)
    see_ghost(shown)
    whole = applied(before + LINE, answered(shown))
    along = whole[len(before + LINE) :][:2]
    assert along.isprintable(), f"the server says {along!r} next"
    shown.type(along, delay=300)
    shown.until("the rest of the grey text", lambda: shown.ghost() and not shown.ghost().startswith(along), 30)
    shown.press("Tab")
    saved(shown, "through.py", whole)


def turned_off_shows_nothing_and_why(shown: Workbench) -> None:
    """The menu turns everything off: no grey text, and the status says why."""
    begin(shown, "toggle.py")
    shown.choose("Turn completions off", picture="menu")
    try:
        shown.until("the status to say off", lambda: "off" in shown.status(), 20)
        assert "Completions are off" in shown.status_spoken()
        shown.to_end()
        shown.type(LINE)
        time.sleep(3)
        assert shown.ghost() == ""
        assert not [one for one in shown.passed(answer=COMPLETE)[-1:] if (one["result"] or {}).get("items")]
    finally:
        shown.picture("off")
        toggled = [one["params"]["command"] for one in shown.passed(method=EXECUTE)].count("c2l.toggle")
        if toggled and "off" in shown.status():
            shown.choose("Turn completions on")
            shown.until("the status to say on", lambda: "off" not in shown.status(), 20)
        discard(shown)


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


def a_changed_file_changes_completions(shown: Workbench) -> None:
    """A file changes on disk, outside of the editor: the status shows a new generation, and other text is suggested."""
    now, before = shown.generation(0), suggested(shown)
    name = f"quokka_{time.monotonic_ns()}"
    lines = "".join(ZOO.format(name=name, number=number) for number in range(60))
    (shown.folder / "outside.py").write_text("import zebra\n\n\n" + lines)
    shown.generation(now)
    # the prompts stand in a buffer, which is learned too: not every new generation has read the file
    end = time.monotonic() + 60 * shown.patience
    while (after := suggested(shown)) == before and time.monotonic() < end:
        time.sleep(0.5)
    assert after != before, f"nothing has changed: {before}"


def suggested(shown: Workbench) -> list[str]:
    """What is suggested behind some prompts; nothing at all is an answer, too."""
    shown.file("changes.py")
    texts = []
    for prompt in PROMPTS:
        before = len(shown.passed())
        shown.press("Control+a")
        shown.type(prompt)
        shown.press("Alt+Backslash")

        def told(before: int = before, at: int = len(prompt)) -> list[str]:
            """What came back for the request that was made on purpose, as soon as that is known."""
            notes = shown.passed()[before:]
            asked = [(one["id"], one["params"]) for one in notes if one.get("method") == COMPLETE]
            ids = [
                number for number, params in asked
                if params["context"]["triggerKind"] == INVOKED and params["position"]["character"] == at
            ]  # fmt: skip
            answers = [one for one in notes if one.get("answer") == COMPLETE and one["id"] in ids and not one["error"]]
            given = [(one["result"] or {}).get("items", []) for one in answers]
            return [items[0]["insertText"] if items else "" for items in given]

        texts.append(shown.until(f"an answer behind {prompt!r}", told, 30)[-1])
        shown.press("Escape")
    assert any(texts), "nothing is suggested anywhere"
    discard(shown)
    return texts


def a_changed_file_makes_a_generation(shown: Workbench) -> None:
    """A file changes on disk: the status shows a new generation."""
    now = shown.generation(0)
    (shown.folder / "more.py").write_text(f"def more_{time.monotonic_ns()}(depth):\n    return depth\n")
    shown.generation(now)


def the_panel_tells(shown: Workbench) -> None:
    """The panel's newest generation is the server's; its buttons are reached by keyboard; nothing breaks its policy."""
    a_changed_file_makes_a_generation(shown)
    shown.command("What Has It Learned?")

    def listed() -> bool:
        """The newest generation stands first; what an earlier check has changed may still make one."""
        live = shown.passed(method="c2l/adapter/didChange")[-1]["params"]["generation"]
        return shown.do("frameTexts", selector="tbody tr th", timeout=20_000)[:1] == [str(live)]

    shown.until("the newest generation in the panel", listed, 60)
    for _ in range(3):
        shown.press("Tab")
        time.sleep(0.3)
    code = "[document.activeElement.id, document.querySelectorAll('main [style], main img, main script').length]"
    focused, unsafe = shown.do("frameEvaluate", selector="#forget", code=code, timeout=20_000)
    shown.picture("panel")
    shown.do("click", selector='.tab.active [aria-label^="Close"]')
    assert focused in ("regenerate", "toggle", "export", "forget"), f"Tab leads to {focused!r}"
    assert unsafe == 0


def the_panels_buttons_work(shown: Workbench) -> None:
    """Forget asks and forgets, Export asks where to and writes: by clicks in the panel."""
    old = shown.generation(0)
    before = len(shown.passed(method="c2l/adapter/didChange"))
    shown.command("What Has It Learned?")
    try:
        shown.do("frameClick", selector="#forget:enabled", timeout=20_000)
        shown.confirm("Forget")

        def triggers() -> list[str]:
            return [one["params"]["trigger"] for one in shown.passed(method="c2l/adapter/didChange")[before:]]

        shown.until("the folder to be forgotten", lambda: "reset" in triggers(), 180)

        def anew() -> bool:
            rows = shown.do("frameTexts", selector="tbody tr th", timeout=20_000)
            return rows[:1] == [str(shown.generation(0))] and str(old) not in rows

        shown.until("the rows of before to be gone", anew, 180)
        exported = len(shown.passed(answer="c2l/adapter/export"))
        shown.do("frameClick", selector="#export:enabled", timeout=20_000)
        shown.wait(".quick-input-widget input", 20)
        shown.press("Enter")
        shown.until("the export", lambda: len(shown.passed(answer="c2l/adapter/export")) > exported, 60)
        told = shown.passed(answer="c2l/adapter/export")[-1]
        assert told["error"] is None
        assert told["result"]["out"].endswith("project-adapter")
    finally:
        for _ in range(3):
            shown.press("Escape")
        shown.do("click", selector='.tab.active [aria-label^="Close"]')


def training_is_begun_and_stopped(shown: Workbench) -> None:
    """Training on request is followed by the extension, and the command, run again, stops it."""
    now, bulk = shown.generation(0), shown.folder / "bulk.py"
    try:
        bulk.write_text("".join(ZOO.format(name="walrus", number=number) for number in range(120)))  # trains for long
        now = shown.generation(now)
        train_and_stop(shown)
    finally:
        bulk.unlink()
        shown.generation(now)


def train_and_stop(shown: Workbench) -> None:
    before = len(shown.passed(method="c2l/adapter/didChange"))

    def training() -> bool:
        told = shown.passed(answer="c2l/adapter/info")
        return bool(told) and (told[-1]["result"] or {}).get("deep", "").startswith("training")

    shown.command("Train on the Folder, or Stop That")
    shown.until("the training", training, 60)
    shown.picture("training")
    shown.command("Train on the Folder, or Stop That")
    shown.until("the end of it", lambda: not training(), 60)
    changes = [one["params"]["trigger"] for one in shown.passed(method="c2l/adapter/didChange")[before:]]
    assert "deep" not in changes, changes


def settings_apply_live(shown: Workbench) -> None:
    """The menu turns a language off in the user's settings: at once nothing is shown, and the status says why."""
    begin(shown, "settings.py")
    settings = shown.work / "data" / "User" / "settings.json"
    shown.choose("Turn off for python")
    try:
        shown.until("the setting", lambda: json.loads(settings.read_text()).get("c2l.enable") == {"python": False}, 20)
        shown.until("the status to say off", lambda: "off here" in shown.status(), 20)
        assert "off for this language" in shown.status_spoken()
        shown.to_end()
        shown.type(LINE)
        time.sleep(2)
        assert shown.ghost() == ""
    finally:
        shown.choose("Turn on for python")
        discard(shown)
    shown.generation(0)
    shown.to_end()
    shown.type(LINE)
    see_ghost(shown)
    discard(shown)


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


def two_folders_are_kept_apart(shown: Workbench) -> None:
    """Two folders in one window, each with its adapter: the status follows the file in front."""
    folders = [shown.work / f"{name}-{time.monotonic_ns()}" for name in ("first", "second")]
    files = [folder / f"{folder.name}.py" for folder in folders]
    for file in files:
        file.parent.mkdir()
        file.write_text("def one(width):\n    return width\n")
    workspace = shown.work / "both.code-workspace"
    workspace.write_text(json.dumps({"folders": [{"path": str(folder)} for folder in folders]}))
    try:
        shown.open(*map(str, files), workspace=workspace)

        def learned() -> dict[str, int]:
            told = [one["params"] for one in shown.passed(method="c2l/adapter/didChange")]
            return {one["folder"]: one["generation"] for one in told if Path(one["folder"]) in folders}

        shown.until("an adapter for each", lambda: len(learned()) == 2, 180, hurry=False)
        files[1].with_name("more.py").write_text("def two(height):\n    return height\n")
        shown.until("a second generation of the second", lambda: learned()[str(folders[1])] > 1, 60, hurry=False)
        for folder, file in zip(folders, files, strict=True):
            shown.tab(file.name)
            wanted = f"g{learned()[str(folder)]}"
            shown.until(f"{wanted} in the status", lambda wanted=wanted: shown.status().endswith(wanted), 30)
    finally:
        shown.open("other.py")
        shown.patience = workbench.PATIENCE


def an_untrusted_folder_is_not_learned(shown: Workbench) -> None:
    """In restricted mode the bare model answers, the folder chooses nothing, the status says why; trust ends that."""
    folder = shown.work / f"stranger-{time.monotonic_ns()}"
    evil, ran = folder / "evil.sh", shown.control / "evil-ran"
    (folder / ".vscode").mkdir(parents=True)
    (folder / "strange.py").write_text((shown.folder / "other.py").read_text())
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n")
    evil.chmod(0o755)
    theirs = {"c2l.server.path": str(evil), "c2l.server.interpreter": str(evil)}
    (folder / ".vscode" / "settings.json").write_text(json.dumps(theirs))
    shown.set_user(**{"security.workspace.trust.enabled": True})
    try:
        starts = len(shown.passed(method="initialize"))
        shown.open("strange.py", folder=folder)
        shown.until("the server", lambda: len(shown.passed(method="initialize")) > starts, 120)
        shown.until("the status to say restricted", lambda: shown.status().endswith("restricted"), 60)
        assert "not trusted: nothing is learned" in shown.status_spoken()
        asked = len(shown.passed(answer=COMPLETE))
        shown.to_end()
        shown.type(LINE)
        shown.until("an answer", lambda: len(shown.passed(answer=COMPLETE)) > asked, 60)
        time.sleep(2)
        assert shown.status().endswith("restricted")
        assert learned(shown, folder) == [], "the folder was learned"
        shown.picture("restricted")
        shown.command("Workspaces: Manage Workspace Trust")
        shown.do("click", selector='.workspace-trust-editor .monaco-button:text-is("Trust")')
        shown.generation(0)
        assert learned(shown, folder) != []
        shown.do("click", selector=".monaco-modal-editor-block .codicon-close")
        discard(shown)
        shown.to_end()
        shown.type(LINE)
        see_ghost(shown)
        assert not ran.exists(), "the folder's own settings chose the server"
    finally:
        shown.set_user()
        shown.open("other.py")
    shown.generation(0)


def learned(shown: Workbench, folder: Path) -> list[int]:
    """Generations of a folder's adapter that VS Code was told of."""
    told = [one["params"] for one in shown.passed(method="c2l/adapter/didChange")]
    return [one["generation"] for one in told if Path(one["folder"]) == folder]


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


OF_THE_EXTENSION = (
    a_setting_applies_without_a_restart,
    a_setting_of_the_model_restarts_the_server,
    a_missing_server_is_set_up,
    a_named_server_that_is_not_there_is_told,
)
"""Checks of what the extension does with the server's process: no model has a part in them."""


@dataclass(frozen=True)
class Fault:
    """What is planted (see `between.py`), and what the check must say then."""

    name: str
    symptom: str


CHECKS: dict[Callable[[Workbench], None], tuple[Fault, ...]] = {
    ghost_text_is_accepted: (Fault("wrong-text", "the editor showed|the file ends with"),),
    candidates_cycle: (Fault("no-answers", "grey text"),),
    a_word_is_accepted: (Fault("wrong-text", "is no part of"),),
    typing_along_keeps_it: (Fault("wrong-text", "the rest of the grey text|the file ends with"),),
    turned_off_shows_nothing_and_why: (Fault("deaf", "the status to say off"),),
    settings_apply_live: (Fault("frozen", "the status to say off"),),
    a_setting_applies_without_a_restart: (Fault("restless", "the server was started anew"),),
    a_setting_of_the_model_restarts_the_server: (Fault("unset", "the other model"),),
    a_switch_outlives_server_and_window: (Fault("forgetful", "the status to say off still"),),
    training_is_begun_and_stopped: (Fault("untrained", "the training"),),
    a_changed_file_changes_completions: (Fault("stale", "nothing has changed"),),
    the_panel_tells: (Fault("renumbered", "in the panel"),),
    the_panels_buttons_work: (Fault("unforgotten", "the folder to be forgotten"),),
    a_killed_server_comes_back: (Fault("stay-dead", "for the server"),),
    a_missing_server_is_set_up: (Fault("unsaid", "a notification"), Fault("no-package", "could not be set up")),
    a_named_server_that_is_not_there_is_told: (Fault("unsaid", "a notification"),),
    two_folders_are_kept_apart: (Fault("mute", "in the status"),),
    an_untrusted_folder_is_not_learned: (
        Fault("trusting", "the folder was learned"),
        Fault("distrusting", "a generation after 0"),
    ),
}


# --- helpers ---


def run(shown: Workbench, check: Callable[[Workbench], None]) -> None:
    try:
        check(shown)
    except AssertionError:
        shown.picture(f"failed-{check.__name__}")
        recover(shown)
        raise


def recover(shown: Workbench, *, restart: bool = False) -> None:
    """Whatever a failed check left behind: dialogs, edits, a dead server."""
    for _ in range(3):
        shown.press("Escape")
    shown.clear_notifications()
    discard(shown)
    if restart or not re.search(r"g\d", shown.status()):
        starts = len(shown.passed(method="initialize"))
        shown.command("Restart the Server")
        shown.until("a new server", lambda: len(shown.passed(method="initialize")) > starts, 120)
    shown.until("a status", lambda: re.search(r"g\d|off", shown.status()), 180)
    if "off" in shown.status():  # a switch that the extension kept, and a faulty server forgot
        shown.choose("Turn completions on")
    shown.generation(0)


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
