"""Drives a real VS Code: code-server with the packaged extension, and its workbench in a headless Chromium."""

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

SCREENSHOTS = ROOT / "build" / "editors" / "screenshots"
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
"""Settings without latency budgets and confidence threshold, which would make tests depend on the machine's load."""
SETTINGS_FAULTS = {"notifications-off": {"c2l.showNotifications": "off"}}
"""Faults that are planted by changing a setting."""
FAULT_PATIENCE = 0.15
FAULT_TIMEOUT = 15
"""Factor for timeouts and longest timeout in seconds with a planted fault: the awaited event never comes."""


class Workbench:
    """One VS Code on the folder WORK/project. The extension starts `server` through `fault_proxy.py`."""

    def __init__(
        self,
        work: Path,
        vsix: Path | None,
        server: list[str],
        settings: dict[str, Any] | None = None,
        **environment: str,
    ) -> None:
        self.work, self.folder, self.control = work, work / "project", work / "control"
        self.patience = PATIENCE
        self.screenshots = SCREENSHOTS / work.name.rstrip("0123456789")
        for path in (self.folder, self.control, self.screenshots):
            path.mkdir(parents=True, exist_ok=True)
        self._log = (work / "workbench.log").open("w", encoding="utf-8")
        self.code = CodeServer(work, server, settings or {}, self._log, **environment)
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

    # --- actions and observations of a user ---

    def open(self, *names: str, folder: Path | None = None, workspace: Path | None = None) -> None:
        """Open a folder or a multi-root workspace with these files, and wait for the editor."""
        remote, folder = f"vscode-remote://127.0.0.1:{self.code.port}", folder or self.folder
        payload = json.dumps([["openFile", f"{remote}{folder / name}"] for name in names])
        what = f"folder={quote(str(folder))}" if workspace is None else f"workspace={quote(str(workspace))}"
        self.do("open", url=f"http://127.0.0.1:{self.code.port}/?{what}&payload={quote(payload)}", timeout=180_000)
        self.wait(".monaco-editor .view-lines", 180)

    def begin(self, *names: str) -> None:
        """Open files and wait for the extension; once more if the extension host exceeds its 60 s to start."""
        for last in (False, True):
            self.open(*names)
            try:
                self.until("the status item", self.status, 100)
            except AssertionError:
                if last:
                    raise
            else:
                return

    def run_in_extension_host(self, tests: Path, folder: Path) -> int:
        """Run tests in the extension host, with the extension from its source folder; return the exit code."""
        remote = f"vscode-remote://127.0.0.1:{self.code.port}"
        options = [["extensionDevelopmentPath", f"{remote}{EXTENSION}"], ["extensionTestsPath", f"{remote}{tests}"]]
        url = f"http://127.0.0.1:{self.code.port}/?folder={quote(str(folder))}&payload={quote(json.dumps(options))}"
        return self.do("runTests", url=url, timeout=240_000 * PATIENCE)

    def wait(self, selector: str, seconds: float, state: str = "visible") -> None:
        self.do("wait", selector=selector, timeout=1000 * seconds * self.patience, state=state)

    def until(self, what: str, seen: Callable[[], Any], seconds: float, *, hurry: bool = True) -> Any:
        """Poll `seen` and return its first truthy value.

        Raises AssertionError naming `what` after `seconds`. `hurry`: wait less while a fault is planted.
        """
        limit = seconds * (self.patience if hurry else PATIENCE)
        if hurry and self.patience < PATIENCE:
            limit = min(limit, FAULT_TIMEOUT * PATIENCE)
        end = time.monotonic() + limit
        while not (value := seen()):
            if time.monotonic() > end:
                raise AssertionError(f"Waited {limit:.0f} s for {what}; the status is {self.status()!r}.")
            time.sleep(0.2)
        return value

    def status(self) -> str:
        """Return the text of the status bar item."""
        texts = self.do("texts", selector=STATUS)
        return " ".join(texts).strip() if texts else ""

    def status_label(self) -> str:
        """Return the label of the status bar item for screen readers."""
        return self.do("attribute", selector=f"{STATUS} a, {STATUS}[aria-label]", name="aria-label") or ""

    def generation(self, more_than: int) -> int:
        """Wait until the status shows a generation above `more_than` and no waiting files; return it."""

        def shown() -> int | None:
            found = re.search(r"\bg(\d+)$", self.status())
            return int(found[1]) if found and int(found[1]) > more_than else None

        return self.until(f"a generation after {more_than}", shown, 180)

    def ghost(self) -> str:
        """Return the ghost text in the editor as one line."""
        return "".join(self.do("texts", selector=GHOST)).replace("\xa0", " ")

    def file(self, name: str) -> None:
        """Open a file by name, with the cursor at its end."""
        self.open_tab(name)
        self.to_end()

    def open_tab(self, name: str) -> None:
        """Open a file by name, or switch to its tab."""
        self.press("Control+p")
        self.wait(".quick-input-widget input", 20)
        self.do("insert", text=name)
        self.wait(f'.quick-input-list .monaco-list-row.focused[aria-label*="{name}"]', 20)
        self.press("Enter")
        self.wait(f'.tab.active[data-resource-name="{name}"]', 20)

    def to_end(self) -> None:
        """Focus the editor and move the cursor to the end of the document."""
        self.do("click", selector=".editor-group-container.active .monaco-editor .view-lines")
        self.do("press", key="Control+End")

    def type(self, text: str, delay: int = 40) -> None:
        self.do("type", text=text, delay=delay)

    def press(self, key: str) -> None:
        self.do("press", key=key)

    def command(self, title: str) -> None:
        """Run a command from the command palette."""
        self.press("F1")
        self.wait(".quick-input-widget input", 20)
        self.do("insert", text=title)
        names = [name for full in (title, f"C2L: {title}") for name in (f'="{full}"', f'^="{full},"')]
        row = ", ".join(f".quick-input-list .monaco-list-row.focused[aria-label{name}]" for name in names)
        self.wait(row, 20)
        self.press("Enter")

    def choose(self, label: str, screenshot: str = "") -> None:
        """Select an entry of the status item's menu."""
        self.do("click", selector=STATUS)
        row = f'.quick-input-list .monaco-list-row[aria-label*="{label}"]'
        self.wait(row, 20)
        if screenshot:
            self.screenshot(screenshot)
        self.do("click", selector=row)

    def clear_notifications(self) -> None:
        self.command("Notifications: Clear All Notifications")

    def notifications(self) -> list[str]:
        """Open the notification center and return this extension's messages. VS Code under test shows no toasts."""
        self.command("Notifications: Show Notifications")
        self.wait(".notifications-center", 20)
        return self.listed()

    def listed(self) -> list[str]:
        """Return this extension's messages in the open notification center."""
        texts = self.do("texts", selector=".notifications-center .notification-list-item-message")
        return [text for text in texts if "C2L" in text]

    def buttons(self) -> list[str]:
        """Return the buttons in the open notification center."""
        return self.do("texts", selector=BUTTON)

    def answer(self, button: str) -> None:
        """Press a button of a notification."""
        self.do("click", selector=f'{BUTTON}:text-is("{button}")')

    def confirm(self, button: str) -> None:
        """Wait for a modal dialog and press a button of it."""
        self.wait(".monaco-dialog-box", 20)
        self.do("click", selector=f'.monaco-dialog-box .monaco-button:text-is("{button}")')

    def screenshot(self, name: str) -> Path:
        """Save a screenshot in build/editors/screenshots and return its path."""
        return Path(self.do("screenshot", path=str(self.screenshots / f"{name}.png")))

    # --- server and process control ---

    def messages(self, **fields: object) -> list[dict[str, Any]]:
        """Return the recorded messages between extension and server that have these fields."""
        path = self.control / "messages.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in found if all(one.get(key) == value for key, value in fields.items())]

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Plant a fault in the proxy, in the settings, or in the packages available to the set-up."""
        (self.control / "fault").write_text(name)
        wheels, hidden = self.work / "wheels", self.work / "no-wheels"
        if name == "no-package":
            wheels.rename(hidden)
        if name in SETTINGS_FAULTS:
            self.code.fault_settings = SETTINGS_FAULTS[name]
            self.set()
        self.patience = PATIENCE * FAULT_PATIENCE
        try:
            yield
        finally:
            self.patience = PATIENCE
            if hidden.exists():
                hidden.rename(wheels)
            if self.code.fault_settings:
                self.code.fault_settings = {}
                self.set()
            (self.control / "fault").unlink()

    def kill_server(self) -> None:
        os.kill(int((self.control / "pid").read_text()), signal.SIGKILL)

    def do(self, command: str, **arguments: object) -> Any:
        """Run a command of bridge.cjs and return its value; AssertionError if it fails."""
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
        assert line, "the browser driver exited; see workbench.log"
        return json.loads(line)
