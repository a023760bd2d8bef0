"""The fake engine as a process, and the requests that it received."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = (sys.executable, str(Path(__file__).parents[1] / "support" / "fake_engine.py"))


@pytest.fixture
def fake_env(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a fake engine that logs into tmp_path."""
    return lambda **more: {**os.environ, "FAKE_LOG": str(tmp_path / "engine.log"), **more}


@pytest.fixture
def engine_requests(tmp_path: Path) -> Callable[..., list[dict]]:
    """The log of the fake engines so far, or its lines for one method."""

    def read(method: str | None = None) -> list[dict]:
        path = tmp_path / "engine.log"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the last line may be incomplete
        notes = [json.loads(line) for line in whole.splitlines()]
        return notes if method is None else [note for note in notes if note.get("method") == method]

    return read
