"""The fake engine as a process, and what it was asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


@pytest.fixture
def fake_env(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a fake engine that logs into tmp_path."""
    return lambda **more: {**os.environ, "FAKE_LOG": str(tmp_path / "engine.log"), **more}


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., list[dict]]:
    """What fake engines were asked so far, as their log lines, or those of one method."""

    def read(method: str | None = None) -> list[dict]:
        path = tmp_path / "engine.log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        notes = [json.loads(line) for line in lines]
        return notes if method is None else [note for note in notes if note.get("method") == method]

    return read
