"""`c2l-lsp doctor`: what would stop completions from working on this machine, and the fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from c2l_lsp import __version__
from c2l_lsp.config import load_user, state_root, user_file
from c2l_lsp.errors import C2LError

_NEEDED_MB = 700
_NEEDED = ("pygls", "torch", "transformers", "peft", "watchdog", "safetensors", "msgpack", "msgspec", "pathspec")


@dataclass(frozen=True)
class Check:
    """One finding: whether it is well, what was seen, and what to do if not."""

    name: str
    ok: bool
    text: str
    fix: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine() -> list[Check]:
    """All checks, in the order things are needed; a check that breaks is a finding itself."""
    checks: list[Callable[[], Check]] = [_python, _packages, _git, _settings, _state, _memory, _watches, _model]
    found = []
    for check in checks:
        try:
            found.append(check())
        except Exception as error:
            found.append(Check(check.__name__.strip("_"), False, f"{type(error).__name__}: {error}", "Report this."))
    return found


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 10)
    return Check("python", ok, f"{version}, c2l-lsp {__version__}", "" if ok else "Install Python 3.10 or newer.")


def _packages() -> Check:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return Check("packages", False, f"missing: {', '.join(missing)}", "pip install c2l-lsp in this environment.")
    shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "pygls"))
    return Check("packages", True, shown)


def _git() -> Check:
    found = shutil.which("git")
    fix = "" if found else "Install git; without it history and ignore rules of the repository are not used."
    return Check("git", found is not None, "found" if found else "not on PATH", fix)


def _settings() -> Check:
    _, errors = load_user()
    if errors:
        return Check("settings", False, "; ".join(map(str, errors)), f"Correct {user_file()}.")
    there = user_file().is_file()
    return Check("settings", True, f"{user_file()}" if there else "defaults (no user file)")


def _state() -> Check:
    root = state_root()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=root) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(root).free / 2**20
    except OSError as error:
        return Check(
            "state", False, f"{root} cannot be written ({error.strerror})", "Free it, or set C2L_STATE_DIR to another."
        )
    fix = "" if free > _NEEDED_MB else "Free some disk space, or set C2L_STATE_DIR to another disk."
    return Check("state", free > _NEEDED_MB, f"{root}, {free / 1024:.1f} GB free", fix)


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**20
    fix = "" if free > _NEEDED_MB else "Close something: the default model and torch need about 0.7 GB."
    return Check("memory", free > _NEEDED_MB, f"{free / 1024:.1f} GB available, {os.cpu_count()} cores", fix)


def _watches() -> Check:
    """inotify's limit; elsewhere there is none worth a check."""
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:  # noqa: PTH123 - not a Path's job
            limit = int(file.read())
    except OSError:
        return Check("watching", True, "native file events")
    fix = "" if limit >= 8192 else "sysctl fs.inotify.max_user_watches=524288; until then changes are polled."
    return Check("watching", limit >= 8192, f"{limit} inotify watches allowed", fix)


def _model() -> Check:
    from c2l_lsp.model.lm import fast_loader
    from c2l_lsp.model.runtime import kernel

    settings, _ = load_user()
    try:
        model = fast_loader.load(settings.model)
    except C2LError as error:
        return Check("model", False, str(error), "Set c2l.model.id to auto, or c2l.model.offline to false.")
    steps = (
        ""
        if kernel.is_available() or model.device.type != "cpu"
        else ("; decode steps by PyTorch, several times slower than compiled: there was no C compiler at installation")
    )
    text = f"{model.id}: {model.parameters / 1e6:.1f}M parameters on {model.device} in {model.load_ms:.0f} ms{steps}"
    return Check("model", True, text + ("" if model.fim else "; no fill-in-the-middle: the text after is not used"))
