"""Folders of real Python files: the sources of c2l_lsp."""

from __future__ import annotations

from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[3] / "c2l_lsp"


@cache
def sources() -> tuple[str, ...]:
    """The texts of the modules of c2l_lsp, by name."""
    root = PACKAGE
    return tuple(path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py")) if path.stat().st_size > 800)


def project(root: Path, files: int, folders: int = 1) -> Path:
    """A folder with `files` Python files in `folders` folders; its resolved path."""
    texts = sources()
    for number in range(files):
        path = root / f"pkg{number % folders}" / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f"NUMBER_{number} = {number}\n\n" if number >= len(texts) else ""
        path.write_text(head + texts[number % len(texts)][:6000], encoding="utf-8")
    return root.resolve()
