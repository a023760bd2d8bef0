"""A real VS Code: code-server with the packaged extension installed, its workbench in a headless Chromium."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.editors.vscode.code_server import EXTENSION, HERE, INSTALLED, PATIENCE, ROOT, CodeServer, finish

PICTURES = ROOT / "build" / "editors" / "pictures"
STATUS = '.part.statusbar .statusbar-item[id*="c2l.status"]'
BUTTON = ".notifications-center .notification-list-item-buttons-container .monaco-button"
GHOST = (
    ".monaco-editor .ghost-text-decoration, .monaco-editor .ghost-text-decoration-preview, .monaco-editor .ghost-text"
)
PATIENT = {
    "c2l.completion.maxLatencyMs": 20_000,
    "c2l.completion.maxLatencyInvokedMs": 60_000,
    "c2l.completion.minConfidence": 0,
}
"""A person's patience would only make a test on a busy machine unsure; so would the model's own doubts."""
SETTINGS_FAULTS = {"unsaid": {"c2l.showNotifications": "off"}}
"""Faults that are settings."""
HURRY = 0.15
LONGEST = 15
"""Factor and longest wait in seconds while a fault is planted: what is waited for then does not come."""


class Workbench:
    """One VS Code on one folder. `server` is the command that VS Code's extension starts, through `between.py`."""

    def __init__(
        self, work: Path, vsix: Path | None, server: list[str], settings: dict[str, Any] | None = None
    ) -> None:
        self.work, self.folder, self.control = work, work / "project", work / "control"
        self.patience = PATIENCE
        self.pictures = PICTURES / work.name.rstrip("0123456789")
        for path in (self.folder, self.control, self.pictures):
            path.mkdir(parents=True, exist_ok=True)
        self._log = (work / "workbench.log").open("w", encoding="utf-8")
        self.code = CodeServer(work, server, settings or {}, self._log)
        if vsix is not None:
            self.code.install(vsix)
        self.code.start()
        self.set, self.set_user = self.code.set, self.code.set_user
        self._bridge = subprocess.Popen(
            [INSTALLED / "bin" / "node", HERE / "bridge.cjs"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
            env={**os.environ, "C2L_VSCODE": str(INSTALLED)},
        )  # fmt: skip
        self._answer()

    # --- what a user does and sees ---

    def open(self, *names: str, folder: Path | None = None, workspace: Path | None = None) -> None:
        """Open the folder (another one, or a workspace of several) with these files, and wait for the editor."""
        remote, folder = f"vscode-remote://127.0.0.1:{self.code.port}", folder or self.folder
        payload = json.dumps([["openFile", f"{remote}{folder / name}"] for name in names])
        what = f"folder={quote(str(folder))}" if workspace is None else f"workspace={quote(str(workspace))}"
        self.do("open", url=f"http://127.0.0.1:{self.code.port}/?{what}&payload={quote(payload)}", timeout=180_000)
        self.wait(".monaco-editor .view-lines", 180)

    def begin(self, *names: str) -> None:
        """Open and wait for the extension. An extension host has 60 s to start, which a busy machine may miss."""
        for last in (False, True):
            self.open(*names)
            try:
                self.until("the status item", self.status, 100)
            except AssertionError:
                if last:
                    raise
            else:
                return

    def inside(self, tests: Path, folder: Path) -> int:
        """Run tests in the extension host, with the extension from its source folder: the exit code."""
        remote = f"vscode-remote://127.0.0.1:{self.code.port}"
        wanted = [["extensionDevelopmentPath", f"{remote}{EXTENSION}"], ["extensionTestsPath", f"{remote}{tests}"]]
        url = f"http://127.0.0.1:{self.code.port}/?folder={quote(str(folder))}&payload={quote(json.dumps(wanted))}"
        return self.do("inside", url=url, timeout=240_000 * PATIENCE)

    def wait(self, selector: str, seconds: float, state: str = "visible") -> None:
        self.do("wait", selector=selector, timeout=1000 * seconds * self.patience, state=state)

    def until(self, what: str, seen: Callable[[], Any], seconds: float, *, hurry: bool = True) -> Any:
        """The first truthy value; AssertionError saying what was waited for. `hurry`: less long with a fault."""
        limit = seconds * (self.patience if hurry else PATIENCE)
        if hurry and self.patience < PATIENCE:
            limit = min(limit, LONGEST * PATIENCE)
        end = time.monotonic() + limit
        while not (value := seen()):
            if time.monotonic() > end:
                raise AssertionError(f"Waited {limit:.0f} s for {what}; the status is {self.status()!r}.")
            time.sleep(0.2)
        return value

    def status(self) -> str:
        """Text of the status bar item."""
        texts = self.do("texts", selector=STATUS)
        return " ".join(texts).strip() if texts else ""

    def status_spoken(self) -> str:
        """What a screen reader says of it."""
        return self.do("attribute", selector=f"{STATUS} a, {STATUS}[aria-label]", name="aria-label") or ""

    def generation(self, more_than: int) -> int:
        """Wait until the status shows a generation beyond this one, and nothing else."""

        def shown() -> int | None:
            found = re.search(r"\bg(\d+)$", self.status())
            return int(found[1]) if found and int(found[1]) > more_than else None

        return self.until(f"a generation after {more_than}", shown, 180)

    def ghost(self) -> str:
        """The ghost text in the editor, as one line."""
        return "".join(self.do("texts", selector=GHOST)).replace("\xa0", " ")

    def file(self, name: str) -> None:
        """Open a file, cursor at its end."""
        self.tab(name)
        self.to_end()

    def tab(self, name: str) -> None:
        """Go to a file, by its name."""
        self.press("Control+p")
        self.wait(".quick-input-widget input", 20)
        self.do("insert", text=name)
        self.wait(f'.quick-input-list .monaco-list-row.focused[aria-label*="{name}"]', 20)
        self.press("Enter")
        self.wait(f'.tab.active[data-resource-name="{name}"]', 20)

    def to_end(self) -> None:
        """Cursor to the end of the document, with the focus in the editor."""
        self.do("click", selector=".editor-group-container.active .monaco-editor .view-lines")
        self.do("press", key="Control+End")

    def type(self, text: str, delay: int = 40) -> None:
        self.do("type", text=text, delay=delay)

    def press(self, key: str) -> None:
        self.do("press", key=key)

    def command(self, title: str) -> None:
        """Run a command through the palette."""
        self.press("F1")
        self.wait(".quick-input-widget input", 20)
        self.do("insert", text=title)
        names = [name for full in (title, f"C2L: {title}") for name in (f'="{full}"', f'^="{full},"')]
        row = ", ".join(f".quick-input-list .monaco-list-row.focused[aria-label{name}]" for name in names)
        self.wait(row, 20)
        self.press("Enter")

    def choose(self, label: str, picture: str = "") -> None:
        """An entry of the status item's menu."""
        self.do("click", selector=STATUS)
        row = f'.quick-input-list .monaco-list-row[aria-label*="{label}"]'
        self.wait(row, 20)
        if picture:
            self.picture(picture)
        self.do("click", selector=row)

    def clear_notifications(self) -> None:
        self.command("Notifications: Clear All Notifications")

    def notifications(self) -> list[str]:
        """What is told of this extension at the moment. A VS Code under test shows no toasts, only the whole list."""
        self.command("Notifications: Show Notifications")
        self.wait(".notifications-center", 20)
        return self.listed()

    def listed(self) -> list[str]:
        """What stands in the list that is shown."""
        texts = self.do("texts", selector=".notifications-center .notification-list-item-message")
        return [text for text in texts if "C2L" in text]

    def buttons(self) -> list[str]:
        """Of the notifications in the list that is shown."""
        return self.do("texts", selector=BUTTON)

    def answer(self, button: str) -> None:
        """Press a notification's button."""
        self.do("click", selector=f'{BUTTON}:text-is("{button}")')

    def confirm(self, button: str) -> None:
        """Press a button of the dialog that comes."""
        self.wait(".monaco-dialog-box", 20)
        self.do("click", selector=f'.monaco-dialog-box .monaco-button:text-is("{button}")')

    def picture(self, name: str) -> Path:
        """A screenshot, into an ignored folder."""
        return Path(self.do("screenshot", path=str(self.pictures / f"{name}.png")))

    # --- behind the scenes ---

    def passed(self, **wanted: object) -> list[dict[str, Any]]:
        """Messages between the extension and the server so far."""
        path = self.control / "passed.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        notes = [json.loads(line) for line in lines if line.endswith("}")]
        return [note for note in notes if all(note.get(key) == value for key, value in wanted.items())]

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Plant a fault between the extension and the server, in the settings, or in what a set-up finds."""
        (self.control / "fault").write_text(name)
        wheels, hidden = self.work / "wheels", self.work / "no-wheels"
        if name == "no-package":
            wheels.rename(hidden)
        if name in SETTINGS_FAULTS:
            self.code.overruling = SETTINGS_FAULTS[name]
            self.set()
        self.patience = PATIENCE * HURRY
        try:
            yield
        finally:
            self.patience = PATIENCE
            if hidden.exists():
                hidden.rename(wheels)
            if self.code.overruling:
                self.code.overruling = {}
                self.set()
            (self.control / "fault").unlink()

    def kill_server(self) -> None:
        os.kill(int((self.control / "pid").read_text()), signal.SIGKILL)

    def do(self, command: str, **arguments: object) -> Any:
        assert self._bridge.stdin is not None
        self._bridge.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._bridge.stdin.flush()
        answer = self._answer()
        if not answer["ok"]:
            raise AssertionError(f"{command} {arguments}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        finish(self._bridge)
        self.code.close()
        for stream in (self._bridge.stdin, self._bridge.stdout, self._log):
            stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._bridge.stdout is not None
        line = self._bridge.stdout.readline()
        assert line, "the browser's driver ended; see workbench.log"
        return json.loads(line)
