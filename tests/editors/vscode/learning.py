"""Checks of what VS Code tells of the adapters: generations, the panel, training, several folders, trust."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.editors.vscode.code_server import PATIENCE
from tests.editors.vscode.steps import COMPLETE, LINE, discard, generations, see_ghost
from tests.editors.vscode.workbench import Workbench

PROMPTS = ("import ", "from zebra import ", "def quokka_", "result = wombat_")
ZOO = """from zebra import {name}_{number}


def quokka_handler_{number}(wombat):
    result = wombat_service(wombat)
    return zebra.quokka_handler(result)


"""
INVOKED = 1


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
        shown.patience = PATIENCE


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
        assert generations(shown, folder) == [], "the folder was learned"
        shown.picture("restricted")
        shown.command("Workspaces: Manage Workspace Trust")
        shown.do("click", selector='.workspace-trust-editor .monaco-button:text-is("Trust")')
        shown.generation(0)
        assert generations(shown, folder) != []
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
