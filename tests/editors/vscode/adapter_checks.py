"""Checks of adapters in VS Code: generations, the report, fine-tuning, several folders, workspace trust."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.editors.vscode.code_server import PATIENCE
from tests.editors.vscode.steps import COMPLETE, LINE, discard, generations, wait_for_ghost
from tests.editors.vscode.workbench import Workbench

PROMPTS = ("import ", "from zebra import ", "def quokka_", "result = wombat_")
ZOO = """from zebra import {name}_{number}


def quokka_handler_{number}(wombat):
    result = wombat_service(wombat)
    return zebra.quokka_handler(result)


"""
INVOKED = 1


def a_changed_file_changes_completions(vscode: Workbench) -> None:
    """After a file changes on disk, the status shows a new generation and completions differ."""
    now, before = vscode.generation(0), completions_after_prompts(vscode)
    name = f"quokka_{time.monotonic_ns()}"
    lines = "".join(ZOO.format(name=name, number=number) for number in range(60))
    (vscode.folder / "outside.py").write_text("import zebra\n\n\n" + lines)
    vscode.generation(now)
    # The buffer with the prompts is indexed too, so a new generation may not contain the changed file yet.
    end = time.monotonic() + 60 * vscode.patience
    while (after := completions_after_prompts(vscode)) == before and time.monotonic() < end:
        time.sleep(0.5)
    assert after != before, f"no completion has changed: {before}"


def completions_after_prompts(vscode: Workbench) -> list[str]:
    """Return the first completion after each prompt; an empty string if there is none."""
    vscode.file("changes.py")
    texts = []
    for prompt in PROMPTS:
        before = len(vscode.messages())
        vscode.press("Control+a")
        vscode.type(prompt)
        vscode.press("Alt+Backslash")

        def results(before: int = before, at: int = len(prompt)) -> list[str]:
            """Return the completions of the explicit request once the server has answered it."""
            sent = vscode.messages()[before:]
            requests = [(one["id"], one["params"]) for one in sent if one.get("method") == COMPLETE]
            ids = [
                number for number, params in requests
                if params["context"]["triggerKind"] == INVOKED and params["position"]["character"] == at
            ]  # fmt: skip
            answers = [one for one in sent if one.get("answer") == COMPLETE and one["id"] in ids and not one["error"]]
            answered = [(one["result"] or {}).get("items", []) for one in answers]
            return [items[0]["insertText"] if items else "" for items in answered]

        texts.append(vscode.until(f"a result after {prompt!r}", results, 30)[-1])
        vscode.press("Escape")
    assert any(texts), "no prompt has a completion"
    discard(vscode)
    return texts


def a_changed_file_publishes_a_generation(vscode: Workbench) -> None:
    """After a file changes on disk, the status shows a new generation."""
    now = vscode.generation(0)
    (vscode.folder / "more.py").write_text(f"def more_{time.monotonic_ns()}(depth):\n    return depth\n")
    vscode.generation(now)


def the_report_shows_the_newest_generation(vscode: Workbench) -> None:
    """The report lists the server's newest generation, is usable by keyboard, and obeys its security policy."""
    a_changed_file_publishes_a_generation(vscode)
    vscode.command("Show Adapter Report")

    def is_first() -> bool:
        """Whether the newest generation is listed first. Changes of earlier checks may still publish one."""
        live = vscode.messages(method="c2l/adapter/didChange")[-1]["params"]["generation"]
        return vscode.do("frameTexts", selector="tbody tr th", timeout=20_000)[:1] == [str(live)]

    try:
        vscode.until("the newest generation in the report", is_first, 60)
        for _ in range(3):
            vscode.press("Tab")
            time.sleep(0.3)
        code = "[document.activeElement.id, document.querySelectorAll('main [style], main img, main script').length]"
        focused, unsafe = vscode.do("frameEvaluate", selector="#reset", code=code, timeout=20_000)
        vscode.screenshot("panel")
    finally:
        vscode.do("click", selector='.tab.active [aria-label^="Close"]')
    assert focused in ("regenerate", "toggle", "export", "reset"), f"Tab leads to {focused!r}"
    assert unsafe == 0


def the_report_buttons_delete_and_export(vscode: Workbench) -> None:
    """The buttons of the report delete the adapter after confirmation and export it to a chosen folder."""
    old = vscode.generation(0)
    before = len(vscode.messages(method="c2l/adapter/didChange"))
    vscode.command("Show Adapter Report")
    try:
        vscode.do("frameClick", selector="#reset:enabled", timeout=20_000)
        vscode.confirm("Delete")

        def triggers() -> list[str]:
            return [one["params"]["trigger"] for one in vscode.messages(method="c2l/adapter/didChange")[before:]]

        vscode.until("the adapter to be deleted", lambda: "reset" in triggers(), 180)

        def is_rebuilt() -> bool:
            rows = vscode.do("frameTexts", selector="tbody tr th", timeout=20_000)
            return rows[:1] == [str(vscode.generation(0))] and str(old) not in rows

        vscode.until("the old rows to disappear", is_rebuilt, 180)
        exported = len(vscode.messages(answer="c2l/adapter/export"))
        vscode.do("frameClick", selector="#export:enabled", timeout=20_000)
        vscode.wait(".quick-input-widget input", 20)
        vscode.press("Enter")
        vscode.until("the export", lambda: len(vscode.messages(answer="c2l/adapter/export")) > exported, 60)
        answer = vscode.messages(answer="c2l/adapter/export")[-1]
        assert answer["error"] is None
        assert answer["result"]["out"].endswith("project-adapter")
    finally:
        for _ in range(3):
            vscode.press("Escape")
        vscode.do("click", selector='.tab.active [aria-label^="Close"]')


def fine_tuning_starts_and_stops(vscode: Workbench) -> None:
    """The command starts fine-tuning, and running it again stops it."""
    now, bulk = vscode.generation(0), vscode.folder / "bulk.py"
    try:
        bulk.write_text(
            "".join(ZOO.format(name="walrus", number=number) for number in range(120))
        )  # enough text for a long run
        now = vscode.generation(now)
        start_and_stop_fine_tuning(vscode)
    finally:
        bulk.unlink()
        vscode.generation(now)


def start_and_stop_fine_tuning(vscode: Workbench) -> None:
    before = len(vscode.messages(method="c2l/adapter/didChange"))

    def training() -> bool:
        answers = vscode.messages(answer="c2l/adapter/info")
        return bool(answers) and (answers[-1]["result"] or {}).get("deep", "").startswith("training")

    vscode.command("Start or Stop Fine-Tuning")
    vscode.until("fine-tuning to start", training, 60)
    vscode.screenshot("training")
    vscode.command("Start or Stop Fine-Tuning")
    vscode.until("fine-tuning to stop", lambda: not training(), 60)
    changes = [one["params"]["trigger"] for one in vscode.messages(method="c2l/adapter/didChange")[before:]]
    assert "deep" not in changes, changes


def each_folder_has_its_own_adapter(vscode: Workbench) -> None:
    """With two folders in a window, the status shows the adapter of the active file's folder."""
    folders = [vscode.work / f"{name}-{time.monotonic_ns()}" for name in ("first", "second")]
    files = [folder / f"{folder.name}.py" for folder in folders]
    for file in files:
        file.parent.mkdir()
        file.write_text("def one(width):\n    return width\n")
    workspace = vscode.work / "both.code-workspace"
    workspace.write_text(json.dumps({"folders": [{"path": str(folder)} for folder in folders]}))
    try:
        vscode.open(*map(str, files), workspace=workspace)

        def published() -> dict[str, int]:
            changes = [one["params"] for one in vscode.messages(method="c2l/adapter/didChange")]
            return {one["folder"]: one["generation"] for one in changes if Path(one["folder"]) in folders}

        vscode.until("an adapter for each folder", lambda: len(published()) == 2, 180, hurry=False)
        files[1].with_name("more.py").write_text("def two(height):\n    return height\n")
        vscode.until(
            "a second generation of the second folder", lambda: published()[str(folders[1])] > 1, 60, hurry=False
        )
        for folder, file in zip(folders, files, strict=True):
            vscode.open_tab(file.name)
            wanted = f"g{published()[str(folder)]}"
            vscode.until(f"{wanted} in the status", lambda wanted=wanted: vscode.status().endswith(wanted), 30)
    finally:
        vscode.open("other.py")
        vscode.patience = PATIENCE


def an_untrusted_folder_is_not_indexed(vscode: Workbench) -> None:
    """An untrusted folder is not indexed and cannot choose the server, until trust is granted."""
    folder = vscode.work / f"untrusted-{time.monotonic_ns()}"
    evil, ran = folder / "evil.sh", vscode.control / "evil-ran"
    (folder / ".vscode").mkdir(parents=True)
    (folder / "untrusted.py").write_text((vscode.folder / "other.py").read_text())
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n")
    evil.chmod(0o755)
    settings = {"c2l.server.path": str(evil), "c2l.server.interpreter": str(evil)}
    (folder / ".vscode" / "settings.json").write_text(json.dumps(settings))
    vscode.set_user(**{"security.workspace.trust.enabled": True})
    try:
        starts = len(vscode.messages(method="initialize"))
        vscode.open("untrusted.py", folder=folder)
        vscode.until("the server", lambda: len(vscode.messages(method="initialize")) > starts, 120)
        vscode.until("the status to show restricted", lambda: vscode.status().endswith("restricted"), 60)
        assert "not trusted: its files are not indexed" in vscode.status_label()
        answers = len(vscode.messages(answer=COMPLETE))
        vscode.to_end()
        vscode.type(LINE)
        vscode.until("an answer", lambda: len(vscode.messages(answer=COMPLETE)) > answers, 60)
        time.sleep(2)
        assert vscode.status().endswith("restricted")
        assert generations(vscode, folder) == [], "the folder was indexed"
        vscode.screenshot("restricted")
        vscode.command("Workspaces: Manage Workspace Trust")
        vscode.do("click", selector='.workspace-trust-editor .monaco-button:text-is("Trust")')
        vscode.generation(0)
        assert generations(vscode, folder) != []
        vscode.do("click", selector=".monaco-modal-editor-block .codicon-close")
        discard(vscode)
        vscode.to_end()
        vscode.type(LINE)
        wait_for_ghost(vscode)
        assert not ran.exists(), "the folder's own settings chose the server"
    finally:
        vscode.set_user()
        vscode.open("other.py")
    vscode.generation(0)
