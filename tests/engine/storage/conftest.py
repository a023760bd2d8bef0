"""A file system that refuses to delete some files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def undeletable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files for which unlink fails."""
    names: list[str] = []
    real = os.unlink

    def unlink(path, *args: object, **more: object) -> None:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    return names
