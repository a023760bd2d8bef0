"""`c2l-lsp doctor`: checks everything that completions need on this machine, and names a fix for each problem."""

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

_MIN_FREE_MB = 700
_SHOWN_MODELS = 8
_PACKAGES = ("pygls", "torch", "transformers", "peft", "watchdog", "safetensors", "msgpack", "msgspec")


@dataclass(frozen=True)
class Check:
    """The result of one check: whether it passed, what was found, and the fix if it did not pass."""

    name: str
    ok: bool
    text: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return asdict(self)


def run_checks() -> list[Check]:
    """Run all checks in order. A check that raises an exception is reported as failed."""
    checks: list[Callable[[], Check]] = [
        _python,
        _packages,
        _git,
        _settings,
        _state,
        _memory,
        _watches,
        _models,
        _model,
    ]
    results = []
    for check in checks:
        try:
            results.append(check())
        except Exception as error:
            text = f"the check failed with {type(error).__name__}: {error}"
            results.append(Check(check.__name__.strip("_"), False, text, "This is a bug in c2l-lsp; please report it."))
    return results


def model_rows() -> list[dict[str, Any]]:
    """The models on this machine as plain JSON values; `local_models.LocalModel` describes the fields."""
    from c2l_lsp.model.lm.local_models import local_models

    return [model.to_dict() for model in local_models()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 10)
    return Check("python", ok, f"{version}, c2l-lsp {__version__}", "" if ok else "Install Python 3.10 or newer.")


def _packages() -> Check:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Check(
            "packages", False, f"missing: {', '.join(missing)}", "Run pip install c2l-lsp in this environment."
        )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "pygls"))
    return Check("packages", True, versions)


def _git() -> Check:
    path = shutil.which("git")
    fix = "" if path else "Install git. Without it, the history and the ignore rules of repositories are not used."
    return Check("git", path is not None, "found" if path else "not on PATH", fix)


def _settings() -> Check:
    _, errors = load_user()
    if errors:
        return Check("settings", False, "; ".join(map(str, errors)), f"Correct {user_file()}.")
    text = f"{user_file()}" if user_file().is_file() else f"defaults ({user_file()} does not exist)"
    return Check("settings", True, text)


def _state() -> Check:
    root = state_root()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=root) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(root).free / 2**20
    except OSError as error:
        text = f"{root} cannot be written ({error.strerror})"
        return Check("state", False, text, "Make it writable, or set C2L_STATE_DIR to another folder.")
    fix = "" if free > _MIN_FREE_MB else "Free disk space, or set C2L_STATE_DIR to a folder on another disk."
    return Check("state", free > _MIN_FREE_MB, f"{root}, {free / 1024:.1f} GB free", fix)


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**20
    fix = "" if free > _MIN_FREE_MB else "Close other programs: the default model and torch need about 0.7 GB."
    return Check("memory", free > _MIN_FREE_MB, f"{free / 1024:.1f} GB available, {os.cpu_count()} cores", fix)


def _watches() -> Check:
    """Check the limit of inotify watches on Linux. Other systems have no such limit."""
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:  # noqa: PTH123 - not a Path's job
            limit = int(file.read())
    except OSError:
        return Check("watching", True, "native file events")
    fix = (
        ""
        if limit >= 8192
        else "Run sysctl fs.inotify.max_user_watches=524288. Until then, folders are polled for changes."
    )
    return Check("watching", limit >= 8192, f"{limit} inotify watches allowed", fix)


def _models() -> Check:
    """List the models on this machine. One that cannot be used is no problem as long as it is not chosen."""
    found = model_rows()
    shown = ", ".join(f"{model['name']} ({model['gb']:.2f} GB)" for model in found[:_SHOWN_MODELS])
    more = f" and {len(found) - _SHOWN_MODELS} more" if len(found) > _SHOWN_MODELS else ""
    return Check("models", True, f"{shown}{more}; c2l-lsp models shows details")


def _model() -> Check:
    from c2l_lsp.model.lm import fast_loader
    from c2l_lsp.model.lm.local_models import is_instruct
    from c2l_lsp.model.runtime import kernel

    settings, _ = load_user()
    try:
        model = fast_loader.load(settings.model)
    except C2LError as error:
        return Check("model", False, str(error), "Set c2l.model.id to auto, or c2l.model.offline to false.")
    text = f"{model.id}: {model.parameters / 1e6:.1f}M parameters on {model.device}, loaded in {model.load_ms:.0f} ms"
    if model.device.type == "cpu" and not kernel.is_available():
        text += "; the compiled kernel is missing, so completions are several times slower"
        text += " (install GCC or Clang and reinstall c2l-lsp)"
    if not model.fim:
        text += "; no fill-in-the-middle, so the text after the cursor is not used"
    if is_instruct(settings.model.path or settings.model.id):
        text += "; it is an instruct model, trained for chat: the base model of its family completes better"
    return Check("model", True, text)
