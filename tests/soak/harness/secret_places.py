"""Writes canaries (unique strings) into excluded places of a repository, and secrets of many forms into others."""

from __future__ import annotations

import random
import string
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from c2l_lab.benchmarks.secrets import forms as secret_forms

_LETTERS = string.ascii_lowercase + string.digits
LANGUAGES = ["python", "javascript", "json", "toml", "yaml", "shellscript", "markdown"]


@dataclass
class Planted:
    """The canaries by kind, the files that must not be opened, and the unsaved buffers of an editor.

    `secrets` are the random parts of secrets in files that are embedded otherwise, by the form of the secret.
    """

    canaries: dict[str, list[str]] = field(default_factory=dict)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    shut: list[Path] = field(default_factory=list)
    buffers: dict[str, str] = field(default_factory=dict)


def canary(rng: random.Random, length: int = 24) -> str:
    """A string that occurs nowhere else."""
    return "zq" + "".join(rng.choice(_LETTERS) for _ in range(length - 2))


EXCLUDED: dict[str, str] = {
    "environment file": ".env",
    "local environment file": "deploy/.env.local",
    "environment by suffix": "deploy/prod.env",
    "environment folder": ".env.d/settings.py",
    "ssh key": "keys/id_rsa",
    "certificate": "keys/server.pem",
    "private key file": "keys/tls.key",
    "credentials module": "credentials.py",
    "secrets module": "conf/secrets.py",
    "secrets folder": "secrets/app.py",
    "netrc": ".netrc",
    "npm configuration": ".npmrc",
    "pypi configuration": ".pypirc",
    "terraform variables": "infra/prod.tfvars",
    "service account": "service-account-7.json",
    "aws folder": ".aws/config.py",
    "git ignored by name": "ignored_by_name.py",
    "git ignored folder": "hidden/deep/a.py",
    "ignored by a nested file": "pkg0/local_only.py",
    "ignored by git's own exclude file": "excluded_here.py",
    "own ignore file": "own_ignored.py",
    "setting": "set_aside.py",
    "virtual environment": ".venv/lib/python3/site.py",
    "installed packages": "lib/site-packages/x.py",
    "node modules": "node_modules/left/pad.js",
    "another environment": "myenv/lib/a.py",
    "compiled": "pkg0/__pycache__/a.py",
}
"""Kind → an excluded path; the file contains the canary as plain text."""

HELD: dict[str, Callable[[str], str]] = {
    "too large a file": lambda c: f"# {c}\n" + "x = 1\n" * 120_000,
    "binary file": lambda c: f"# {c}\n\0",
}
"""Kind → text of a Python file that is excluded because of its content."""

CONTEXTS = (
    "assigned", "neutral name", "annotated", "list element", "keyword argument", "positional argument",
    "in parentheses over lines", "comment",
)  # fmt: skip
"""Contexts of `secret_forms` in which the secrets stand, in turn."""


def plant(root: Path, aside: Path, count: int, seed: int = 0) -> Planted:
    """Write `count` canaries into all kinds of places of a git repository at `root`."""
    rng = random.Random(seed)
    planted = Planted()
    _git(root, "init", "-q")
    (root / ".gitignore").write_text("ignored_by_name.py\nhidden/\n")
    (root / "pkg0").mkdir(exist_ok=True)
    (root / "pkg0" / ".gitignore").write_text("local_only.py\n")
    (root / ".git" / "info").mkdir(exist_ok=True)
    (root / ".git" / "info" / "exclude").write_text("excluded_here.py\n")
    (root / ".c2lignore").write_text("own_ignored.py\n")
    _write(root / "myenv" / "pyvenv.cfg", "home = /\n")
    each = max(1, count // 40)
    for kind, path in EXCLUDED.items():
        names = planted.canaries[kind] = [canary(rng) for _ in range(each)]
        _write(root / path, "".join(f"{name} = '{name}'\n" for name in names))
        planted.shut.append(root / path)
    for number, (kind, text) in enumerate(HELD.items()):
        names = planted.canaries[kind] = [canary(rng) for _ in range(each)]
        for index, name in enumerate(names):
            _write(root / "held" / f"h{number}_{index}.py", text(name))
    _forms(root, planted, rng, each)
    _links(root, aside, planted, [canary(rng) for _ in range(each)])
    _unsaved(planted, rng, each)
    _removed(root, planted, [canary(rng) for _ in range(each)])
    return planted


def _forms(root: Path, planted: Planted, rng: random.Random, each: int) -> None:
    """One file a form. The forms come from a list that was written without the filter's rules."""
    for number, form in enumerate(secret_forms.forms()):
        parts, texts = list[str](), [f"ORDINARY_{number} = {number}\n"]
        for index in range(each):
            secret = form.value(rng)
            context = "triple quotes" if "\n" in secret.text else CONTEXTS[(number + index) % len(CONTEXTS)]
            texts.append(secret.placed(context, form.name))
            parts.append(max(secret.parts, key=len))
        planted.secrets[form.kind] = parts
        _write(root / "forms" / f"f{number}.py", "\n\n".join(texts))


def _links(root: Path, aside: Path, planted: Planted, names: list[str]) -> None:
    planted.canaries["behind links"] = names
    text = "".join(f"{name} = 1\n" for name in names)
    _write(aside / "outside.py", text)
    (root / "link.py").symlink_to(aside / "outside.py")
    (root / "linked").symlink_to(aside)
    (root / "sibling.py").symlink_to("credentials.py")
    planted.shut.append(aside / "outside.py")


def _unsaved(planted: Planted, rng: random.Random, each: int) -> None:
    names = planted.canaries["unsaved buffer of an excluded file"] = [canary(rng) for _ in range(each)]
    for path in (".env", "hidden/deep/new.py", "own_ignored.py", "../outside.py"):
        planted.buffers[path] = "".join(f"{name} = '{name}'\n" for name in names)
    with_token = planted.canaries["unsaved buffer with a token"] = [canary(rng) for _ in range(each)]
    planted.buffers["pkg0/unsaved.py"] = "".join(f"T = 'xoxb-{name}'\n" for name in with_token)


def _removed(root: Path, planted: Planted, names: list[str]) -> None:
    """Committed and then removed, so that only the history contains it."""
    planted.canaries["removed lines"] = names
    kept = root / "pkg0" / "once.py"
    _write(kept, "".join(f"{name} = 'ghp_{(name * 2)[:36]}'\n" for name in names) + "x = 1\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    _git(root, "add", "-f", "pkg0/once.py")
    _git(root, *who, "commit", "-q", "-m", "one")
    _write(kept, "x = 2\n")
    _git(root, "add", "-f", "pkg0/once.py")
    _git(root, *who, "commit", "-q", "-m", "two")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _git(root: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, timeout=60)
