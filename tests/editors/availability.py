"""Which editors are installed in build/editors, and a skip marker for tests of those that are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "editors"
REQUIRED = os.environ.get("C2L_EDITORS") == "required"
"""Run the tests of a missing editor, so that they fail instead of being skipped."""


def requires_editor(name: str, installed: bool) -> pytest.MarkDecorator:
    """Return a marker that skips without the editor, with the last lines of its set-up as the reason."""
    try:
        reason = (BUILD / f"{name}.missing").read_text(encoding="utf-8").strip()
    except OSError:
        reason = "run `make test-editors` to set it up"
    return pytest.mark.skipif(not (installed or REQUIRED), reason=f"{name} is not installed: {reason}")
