"""The code that a row stands for: the product with its C sources and models, the harness, and the bar's own modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tests.soak.harness.bar import Bar
from tests.soak.harness.sources import PACKAGE

ROOT = PACKAGE.parent
SHARED = (
    "c2l_lsp", "lab/c2l_lab/clients", "tests/support", "tests/soak/harness", "tests/soak/planted",
)  # fmt: skip
"""Folders that every row depends on."""

BARS = "tests/soak/bars"
_DERIVED = {".pyc", ".so", ".pyd", ".md"}  # compiled from the rest, or prose


def files(*folders: Path) -> list[Path]:
    """The files of these folders that a result depends on, sorted."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return sorted(path for path in found if path.is_file() and path.suffix not in _DERIVED)


def digest(root: Path, paths: Iterable[Path], more: str = "") -> str:
    """A digest of names and contents."""
    made = hashlib.blake2b(more.encode(), digest_size=10)
    for path in paths:
        data = path.read_bytes()
        made.update(b"%s\0%d\0" % (path.relative_to(root).as_posix().encode(), len(data)))
        made.update(data)
    return made.hexdigest()


def code_digest(bar: Bar) -> str:
    """A digest of what a row of this bar depends on; a row with another one is of older code."""
    own = ROOT / BARS / bar.run.partition(":")[0].rpartition(".")[0].replace(".", "/")
    return digest(ROOT, files(own), f"{_shared()} {bar.fault} {bar.passes} {bar.full} {bar.run}")


def _shared() -> str:
    paths = files(*(ROOT / folder for folder in SHARED))
    return _once(tuple((path, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [path.stat()]))


@lru_cache(maxsize=1)
def _once(found: tuple[tuple[Path, int, int], ...]) -> str:
    return digest(ROOT, [path for path, _, _ in found])
