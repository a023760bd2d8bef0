"""What a user of VS Code does and sees. Each check must hold, and must fail with its fault planted."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import workbench
from found import needs
from workbench import Workbench

pytestmark = [
    pytest.mark.editors,
    pytest.mark.timeout(900),
    needs("vscode", here=workbench.installed()),
]
LINE = "box = vol"
PROMPTS = ("import ", "from zebra import ", "def quokka_", "result = wombat_")
ZOO = """from zebra import {name}_{number}


def quokka_handler_{number}(wombat):
    result = wombat_service(wombat)
    return zebra.quokka_handler(result)


"""
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
    assert after != before, before


def suggested(shown: Workbench) -> list[str]:
    """What is suggested behind some prompts; nothing at all is an answer, too."""
    shown.file("changes.py")
    texts = []
    for prompt in PROMPTS:
        asked = len(shown.passed(answer=COMPLETE))
        shown.press("Control+a")
        shown.type(prompt)
        shown.press("Alt+Backslash")

        def told(asked: int = asked, at: int = len(prompt)) -> list[str]:
            answers = [one["result"]["items"] for one in shown.passed(answer=COMPLETE)[asked:] if one["result"]]
            firsts = [items[0] for items in answers if items]
            return [one["insertText"] for one in firsts if one["range"]["start"]["character"] == at]

        end = time.monotonic() + 10 * shown.patience
        while not told() and time.monotonic() < end:
            time.sleep(0.2)
        texts.append((told() or [""])[0])
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
    live = shown.passed(method="c2l/adapter/didChange")[-1]["params"]["generation"]

    def listed() -> bool:
        rows = shown.do("frameTexts", selector="tbody tr th", timeout=20_000)
        return bool(rows) and rows[0] == str(live)

    shown.until(f"generation {live} in the panel", listed, 30)
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
        shown.wait(".monaco-dialog-box", 20)
        shown.do("click", selector='.monaco-dialog-box .monaco-button:text-is("Forget")')

        def triggers() -> list[str]:
            return [one["params"]["trigger"] for one in shown.passed(method="c2l/adapter/didChange")[before:]]

        shown.until("the folder to be forgotten", lambda: "reset" in triggers(), 60)

        def anew() -> bool:
            rows = shown.do("frameTexts", selector="tbody tr th", timeout=20_000)
            return rows[:1] == [str(shown.generation(0))] and str(old) not in rows

        shown.until("the rows of before to be gone", anew, 60)
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
    bulk.write_text("".join(ZOO.format(name="walrus", number=number) for number in range(900)))  # a minute's training
    now = shown.generation(now)
    try:
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

        shown.until("an adapter for each", lambda: len(learned()) == 2, 180)
        files[1].with_name("more.py").write_text("def two(height):\n    return height\n")
        shown.until("a second generation of the second", lambda: learned()[str(folders[1])] > 1, 60)
        for folder, file in zip(folders, files, strict=True):
            shown.tab(file.name)
            wanted = f"g{learned()[str(folder)]}"
            shown.until(f"{wanted} in the status", lambda wanted=wanted: shown.status().endswith(wanted), 30)
    finally:
        shown.open("other.py")
        shown.patience = workbench.PATIENCE


CHECKS: list[tuple[Callable[[Workbench], None], str]] = [
    (ghost_text_is_accepted, "wrong-text"),
    (candidates_cycle, "no-answers"),
    (a_word_is_accepted, "wrong-text"),
    (typing_along_keeps_it, "wrong-text"),
    (turned_off_shows_nothing_and_why, "deaf"),
    (settings_apply_live, "frozen"),
    (a_switch_outlives_server_and_window, "forgetful"),
    (training_is_begun_and_stopped, "untrained"),
    (a_changed_file_changes_completions, "stale"),
    (the_panel_tells, "mute"),
    (the_panels_buttons_work, "unforgotten"),
    (a_killed_server_comes_back, "stay-dead"),
    (two_folders_are_kept_apart, "mute"),
]
each = pytest.mark.parametrize(("check", "fault"), CHECKS, ids=[check.__name__ for check, _ in CHECKS])


@each
def test_holds(fake: Workbench, check: Callable[[Workbench], None], fault: str) -> None:
    run(fake, check)


@each
def test_fails_with_its_fault(fake: Workbench, check: Callable[[Workbench], None], fault: str) -> None:
    with fake.fault(fault), pytest.raises(AssertionError):
        check(fake)
    recover(fake)


@each
def test_holds_with_the_shipped_model(real: Workbench, check: Callable[[Workbench], None], fault: str) -> None:
    run(real, check)


def test_activation_is_quick(fake: Workbench) -> None:
    """VS Code's own measure of loading and activating the extension; what else runs here makes it slower."""
    fake.command("Developer: Show Running Extensions")
    listed = ".runtime-extensions-editor .monaco-list-row"
    fake.wait(listed, 30)
    fake.do("click", selector=listed)
    rows: list[str] = []
    for _ in range(10):  # only what is in view is in the page
        rows += [row for row in fake.do("texts", selector=listed) if "C2L" in row]
        fake.press("PageDown")
    fake.press("Escape")
    found = [re.search(r"Activation: (\d+)ms", row) for row in rows]
    assert found and found[0], rows
    crowded = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"activation: {found[0][1]} ms with {crowded:.1f} times as much to do as there are cores")
    assert int(found[0][1]) <= 200 * crowded


def test_the_package_is_small(vsix: Path) -> None:
    size = vsix.stat().st_size
    print(f"VSIX: {size} bytes")
    assert size <= 1_000_000


# --- helpers ---


def run(shown: Workbench, check: Callable[[Workbench], None]) -> None:
    try:
        check(shown)
    except AssertionError:
        shown.picture(f"failed-{check.__name__}")
        recover(shown)
        raise


def recover(shown: Workbench) -> None:
    """Whatever a failed check left behind: dialogs, edits, a dead server."""
    for _ in range(3):
        shown.press("Escape")
    discard(shown)
    if not re.search(r"g\d", shown.status()):
        shown.command("Restart the Server")
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
    assert wanted is None or path.read_text() == wanted
    return path.read_text()
