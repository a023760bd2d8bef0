"""Which editors are here, and why one is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "editors"
REQUIRED = os.environ.get("C2L_EDITORS") == "required"
"""Nothing is skipped for want of an editor."""


def needs(name: str, here: bool) -> pytest.MarkDecorator:
    """Skips without the editor, and says what its set-up said last."""
    try:
        why = (BUILD / f"{name}.missing").read_text(encoding="utf-8").strip()
    except OSError:
        why = "make test-editors sets it up"
    return pytest.mark.skipif(not (here or REQUIRED), reason=f"no {name} here: {why}")
