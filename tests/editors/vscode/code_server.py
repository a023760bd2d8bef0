"""A code-server process with the packaged extension: its files, settings and environment."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
EXTENSION = ROOT / "editors" / "vscode"
INSTALLED = Path(os.environ.get("C2L_VSCODE", ROOT / "build" / "editors" / "vscode"))
PATIENCE = float(os.environ.get("C2L_PATIENCE", "1"))
"""Factor for all timeouts; larger on busy machines."""

USER = {
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.colorTheme": "Default Dark Modern",
    "chat.disableAIFeatures": True,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "extensions.autoCheckUpdates": False,
    "security.workspace.trust.enabled": False,
    "security.workspace.trust.startupPrompt": "never",
    "security.workspace.trust.banner": "never",
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.suggestOnTriggerCharacters": False,
    "editor.minimap.enabled": False,
    "editor.cursorBlinking": "solid",
    "workbench.reduceMotion": "on",
    "editor.autoClosingBrackets": "never",
    "editor.autoIndent": "none",
    "files.autoSave": "off",
    "git.enabled": False,
}


class CodeServer:
    """A code-server with its files in `work`. The extension starts `server` through `fault_proxy.py`.

    `environment`: variables of code-server itself, which the extension passes on as far as it does.
    """

    def __init__(
        self, work: Path, server: list[str], settings: dict[str, Any], log: IO[str], **environment: str
    ) -> None:
        self.work, self.control = work, work / "control"
        self.control.mkdir(parents=True, exist_ok=True)
        self.launcher = work / "server.sh"
        self.fault_settings: dict[str, object] = {}
        """Machine settings of the planted fault."""
        self._users, self._log, self._more = {**USER, **settings}, log, environment
        self.serve(server)
        self.set_user()
        self.set()
        self._install_python()
        self.port = _free_port()

    def install(self, vsix: Path) -> None:
        """Install the extension. Must be called before `start`."""
        subprocess.run(
            [*self._command(), "--install-extension", str(vsix), "--force"],
            check=True, capture_output=True, text=True, timeout=300, env=self._environment(),
        )  # fmt: skip

    def start(self) -> None:
        """Start code-server on WORK/project and wait until it answers."""
        self._process = self._started()

    def set(self, **settings: object) -> None:
        """Write the machine settings, which VS Code applies while running; the server's path is added."""
        settings = {"c2l.server.path": str(self.launcher), **self.fault_settings, **settings}
        _write(self.work / "data" / "Machine" / "settings.json", settings)

    def set_user(self, **settings: object) -> None:
        """Write the user settings, which VS Code reads when a window opens."""
        _write(self.work / "data" / "User" / "settings.json", {**self._users, **settings})

    def serve(self, server: list[str]) -> None:
        """Set the command that starts the server from now on."""
        serve = shlex.join([sys.executable, str(HERE / "fault_proxy.py"), str(self.control), *server])
        other = shlex.join([sys.executable, "-m", "c2l_lsp"])
        environment = f"C2L_STATE_DIR={shlex.quote(str(self.work / 'state'))} C2L_CONFIG=/nonexistent"
        environment += f" PYTHONPATH={shlex.quote(str(ROOT))}"
        _script(
            self.launcher, f'export {environment}\ncase "$1" in serve) exec {serve} ;; *) exec {other} "$@" ;; esac'
        )

    def close(self) -> None:
        finish(self._process)  # it does not exit on its own: it waits for windows to reconnect

    def _install_python(self) -> None:
        """Provide a Python, absent while CONTROL/no-python exists, and a wheel that starts the tests' server."""
        base = shlex.quote(str(Path(sys._base_executable)))  # type: ignore[attr-defined]
        absent = shlex.quote(str(self.control / "no-python"))
        for name in ("python3", "python"):
            _script(self.work / "bin" / name, f'[ -e {absent} ] && exit 127\nexec {base} "$@"')
        version = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))["version"]
        starts = f"import os, sys\nos.execv({str(self.launcher)!r}, [{str(self.launcher)!r}, *sys.argv[1:]])\n"
        about = f"c2l_lsp-{version}.dist-info"
        files = {
            "c2l_lsp/__init__.py": "",
            "c2l_lsp/__main__.py": starts,
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: c2l-lsp\nVersion: {version}\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
        (self.work / "wheels").mkdir(exist_ok=True)
        with zipfile.ZipFile(self.work / "wheels" / f"c2l_lsp-{version}-py3-none-any.whl", "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)

    def _command(self) -> list[str]:
        entry = INSTALLED / "node_modules" / "code-server" / "out" / "node" / "entry.js"
        folders = ["--user-data-dir", str(self.work / "data"), "--extensions-dir", str(self.work / "extensions")]
        quiet = ["--disable-telemetry", "--disable-update-check"]
        config = self.work / "code-server.yaml"
        config.touch()
        more = [*quiet, "--disable-getting-started-override", "--vscode-option", "enable-smoke-test-driver"]
        return [str(INSTALLED / "bin" / "node"), str(entry), "--config", str(config), *folders, *more]

    def _environment(self) -> dict[str, str]:
        # The extension must not find a c2l-lsp that is installed on this machine.
        others = [one for one in os.environ["PATH"].split(os.pathsep) if not (Path(one) / "c2l-lsp").exists()]
        path = os.pathsep.join([str(self.work / "bin"), str(INSTALLED / "bin"), *others])
        removed = ("VSCODE_", "ELECTRON_", "PIP_", "PYTHON")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(removed)}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.work / "wheels"), "PIP_CONFIG_FILE": os.devnull}
        # VSCODE_CLI: the extension host uses this environment instead of a login shell's.
        return {**environment, **pip, "PATH": path, "HOME": str(self.work), "VSCODE_CLI": "1", **self._more}

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*self._command(), "--auth", "none", "--bind-addr", f"127.0.0.1:{self.port}", str(self.work / "project")],
            stdout=self._log, stderr=self._log, start_new_session=True,
            env=self._environment(), cwd=self.work / "project",
        )  # fmt: skip
        end = time.monotonic() + 120 * PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5):
                    return process
            except OSError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError("code-server did not start; see workbench.log") from error
                time.sleep(0.3)


def finish(process: subprocess.Popen[Any]) -> None:
    """Terminate a process group, with SIGKILL after 5 s."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def installed() -> bool:
    """Return whether setup_vscode.sh has run and Chromium is installed."""
    return (INSTALLED / "installed").exists() and shutil.which("chromium") is not None


def package() -> Path:
    """Build the VSIX from this checkout if it is out of date; concurrent test runs build it once."""
    environment = {**os.environ, "PATH": f"{INSTALLED / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run = {"cwd": EXTENSION, "check": True, "capture_output": True, "text": True, "timeout": 300, "env": environment}
    vsix = EXTENSION / "c2l-lsp.vsix"
    with (ROOT / "build" / "editors" / "package.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (EXTENSION / "node_modules" / ".package-lock.json").exists():
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], **run)
        if not vsix.exists() or vsix.stat().st_mtime < max(_modification_times()):
            subprocess.run(["npm", "run", "package"], **run)
    return vsix


def _modification_times() -> Iterator[float]:
    """Yield the modification time of everything that goes into the VSIX."""
    generated = {"node_modules", "dist", "build", "c2l-lsp.vsix"}
    for top in EXTENSION.iterdir():
        if top.name not in generated:
            yield from (path.stat().st_mtime for path in (top, *top.rglob("*")))
    yield (EXTENSION / "node_modules" / ".package-lock.json").stat().st_mtime


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings), encoding="utf-8")


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
